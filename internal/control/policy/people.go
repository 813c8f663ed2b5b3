package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// useAreas counts the users of the blocks that peers name.
func (e *Engine) useAreas(ps *peers, by int, denies bool) {
	for _, prefix := range e.blocks(ps) {
		x := e.places.areas[prefix]
		if x == nil {
			x = e.places.add(prefix, 0)
		}
		if was := x.refs; (was == 0) != (was+by == 0) {
			e.places.stale = true
		}
		e.places.changed = true
		x.refs += by
		if denies {
			x.denies += by
		}
	}
}

// blocks are the prefixes that tell addresses of workloads and nodes apart. Unlike those that mean the outside, the whole
// world is one of them.
func (e *Engine) blocks(ps *peers) []netip.Prefix {
	var out []netip.Prefix
	for i := range ps.terms {
		t := &ps.terms[i]
		if t.kind != termCIDR || !t.block && !e.cfg.CIDRMatchNodes {
			continue
		}
		for _, prefix := range append([]netip.Prefix{t.prefix}, t.except...) {
			if prefix.Addr().Is4() && e.cfg.IPv4 || prefix.Addr().Is6() && e.cfg.IPv6 {
				out = append(out, prefix)
			}
		}
	}
	return out
}

// people makes a peer of each identity in each area where it lives, and sees off those who do not live there any more: they
// stay until what leads to them is gone.
func (e *Engine) people() {
	e.places.refresh()
	for _, peer := range slices.SortedFunc(maps.Keys(e.places.moved), model.ComparePeers) {
		id, x, have := e.index.all[model.Peer{Identity: peer.Identity}], e.places.byNum[peer.Area], e.index.all[peer]
		wanted := id != nil && x != nil && id.insider() && e.places.people[peer] > 0
		switch {
		case wanted && have == nil:
			e.admit(id.at(e.cfg, x.num, x.prefix))
		case wanted:
			delete(e.pending.leaving, peer)
		case have != nil:
			e.pending.leaving[peer] = true
		}
	}
	e.places.moved = map[model.Peer]bool{} // not cleared: it would stay as large as it once was
	closing := false
	for _, x := range e.places.areas {
		closing = closing || x.refs == 0
	}
	switch {
	case e.adopt:
		e.adoptPeople()
		for a := range e.places.homes {
			e.guests(a)
		}
	case closing:
		for a := range e.places.fresh {
			e.guests(a)
		}
	}
	e.places.fresh = map[netip.Addr]bool{} // as moved
}

// guests makes peers of those who have just come to an address in an area that closes: until it is gone they are judged there.
func (e *Engine) guests(a netip.Addr) {
	row, _ := e.kernel.around(netip.PrefixFrom(a, a.BitLen()))
	x := e.places.byNum[row.ID]
	if x == nil || x.refs > 0 {
		return
	}
	for _, h := range e.places.homes[a] {
		id, peer := e.index.all[model.Peer{Identity: h.id}], model.Peer{Identity: h.id, Area: x.num}
		if id != nil && id.insider() && e.index.all[peer] == nil {
			e.admit(id.at(e.cfg, x.num, x.prefix))
			e.pending.leaving[peer] = true
		}
	}
}

// admit takes a peer in. Until it has a class it is judged as somebody else (see standIn), so it counts as changed.
func (e *Engine) admit(id *identity) {
	e.index.add(id)
	e.pending.ids[id.peer], e.pending.mutated[id.peer] = id, true
	delete(e.pending.leaving, id.peer)
}

// adoptPeople takes in the peers of the kernel that nobody wants, so that they can be seen off like others.
func (e *Engine) adoptPeople() {
	for peer := range e.kernel.classes {
		if peer.Area == 0 || e.index.all[peer] != nil {
			continue
		}
		id, x := e.index.all[model.Peer{Identity: peer.Identity}], e.places.byNum[peer.Area]
		if id == nil || x == nil {
			e.pending.gone[peer] = true // nothing leads there
			continue
		}
		e.admit(id.at(e.cfg, x.num, x.prefix))
		e.pending.leaving[peer] = true
	}
}

// evict takes all peers in areas out of the index; those that are wanted come back with the next plan.
func (e *Engine) evict() {
	for peer, id := range e.index.all {
		if peer.Area != 0 {
			e.index.remove(id)
			delete(e.pending.ids, peer)
			e.places.moved[peer] = true
		}
	}
	for peer := range e.places.people {
		e.places.moved[peer] = true
	}
	clear(e.pending.leaving)
}
