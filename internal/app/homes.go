package app

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// homes are the addresses where workloads and nodes live: as the address cache publishes them, and those of the subjects, which
// that hears of a little later. They remember which addresses may be news to the engine.
type homes struct {
	table *table.Table[netip.Addr, []model.IdentityID]
	rev   uint64
	mine  map[netip.Addr]model.IdentityID   // of subjects
	fed   map[netip.Addr][]model.IdentityID // as the engine has been given them
	dirty map[netip.Addr]bool               // may be other than fed
}

func newHomes() homes {
	return homes{mine: map[netip.Addr]model.IdentityID{}, fed: map[netip.Addr][]model.IdentityID{}, dirty: map[netip.Addr]bool{}}
}

func (h *homes) put(e model.Endpoint) {
	for _, a := range e.Addrs() {
		h.mine[a], h.dirty[a] = e.Identity, true
	}
}

func (h *homes) drop(e model.Endpoint) {
	for _, a := range e.Addrs() {
		delete(h.mine, a)
		h.dirty[a] = true
	}
}

// follow takes in what has changed in the table since the last time.
func (h *homes) follow() {
	snap := h.table.Snapshot()
	if keys, ok := h.table.Since(h.rev); ok {
		for _, a := range keys {
			h.dirty[a] = true
		}
	} else {
		for a := range snap.All() {
			h.dirty[a] = true
		}
		for a := range h.fed {
			h.dirty[a] = true
		}
	}
	h.rev = snap.Revision()
}

// who lives at an address, sorted, with subjects that come there.
func (h *homes) who(a netip.Addr, coming ...model.Endpoint) []model.IdentityID {
	said, _ := h.table.Get(a)
	ids := slices.Clone(said)
	if id, ok := h.mine[a]; ok {
		ids = append(ids, id)
	}
	for _, e := range coming {
		if slices.Contains(e.Addrs(), a) {
			ids = append(ids, e.Identity)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// news compares the addresses that may have changed, and those of coming subjects, with what the engine has.
func (h *homes) news(coming ...model.Endpoint) (changed map[netip.Addr][]model.IdentityID, gone []netip.Addr) {
	changed = map[netip.Addr][]model.IdentityID{}
	at := map[netip.Addr][]model.Endpoint{}
	for _, e := range coming {
		for _, a := range e.Addrs() {
			at[a] = append(at[a], e)
		}
	}
	look := func(a netip.Addr) {
		now := h.who(a, at[a]...)
		switch had, fed := h.fed[a]; {
		case len(now) == 0 && fed:
			gone = append(gone, a)
		case !slices.Equal(had, now):
			changed[a] = now
		}
	}
	for a := range h.dirty {
		look(a)
	}
	for a := range at {
		if !h.dirty[a] {
			look(a)
		}
	}
	return changed, gone
}

// given notes that the engine has news, all that there was.
func (h *homes) given(changed map[netip.Addr][]model.IdentityID, gone []netip.Addr) {
	maps.Copy(h.fed, changed)
	for _, a := range gone {
		delete(h.fed, a)
	}
	clear(h.dirty)
}
