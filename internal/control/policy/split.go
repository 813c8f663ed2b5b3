package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// part is the members of one class that go to the same cell.
type part struct {
	cell    *cell
	members []model.Peer // sorted
	real    int          // those that have the class now; the others only behave like it until they have a row of their own
}

// split makes every class hold peers of one cell only. A prefix that enters behaves like what covers it now, and so does who
// is new in an area.
func (p *planner) split() {
	touched := map[model.ClassID]bool{}
	entering := map[model.ClassID][]*identity{}
	for peer, id := range p.e.pending.ids {
		if c, ok := p.k.classes[peer]; ok {
			touched[c] = true
		} else if peer.Area != 0 {
			if stands, ok := p.k.standIn(id); ok {
				if c, ok := p.k.classes[stands]; ok {
					touched[c] = true
					entering[c] = append(entering[c], id)
				}
			}
		}
	}
	for pre, id := range p.entering {
		if _, ok := p.k.classes[id.peer]; ok {
			continue
		}
		if c, ok := p.k.classes[model.Peer{Identity: p.covering(pre)}]; ok {
			touched[c] = true
			entering[c] = append(entering[c], id)
		}
	}
	sets := map[model.SetID]bool{}
	for _, n := range p.k.endpoints {
		sets[n] = true
	}
	for _, n := range p.flips { // to a set that an endpoint has left by now
		sets[n] = true
	}
	var s model.PolicyStep
	for _, c := range slices.Sorted(maps.Keys(touched)) {
		parts := p.parts(c, entering[c])
		keep := p.keeper(c, parts)
		for i, pt := range parts {
			class := c
			if i != keep {
				class = p.newClass()
				for n := range sets {
					p.rows(&s, n, class, p.k.rows[n][c])
				}
			}
			for _, id := range pt.members {
				if have, ok := p.k.classes[id]; !ok || have != class {
					p.class(&s, id, class)
				}
			}
		}
	}
	p.step(s)
}

func (p *planner) parts(c model.ClassID, entering []*identity) []*part {
	byCell := map[*cell]*part{}
	add := func(id model.Peer, real int) {
		cl := p.e.index.all[id].cell
		if byCell[cl] == nil {
			byCell[cl] = &part{cell: cl}
		}
		byCell[cl].members = append(byCell[cl].members, id)
		byCell[cl].real += real
	}
	for id := range p.k.members[c] {
		add(id, 1)
	}
	for _, id := range entering {
		add(id.peer, 0)
	}
	out := slices.Collect(maps.Values(byCell))
	for _, pt := range out {
		slices.SortFunc(pt.members, model.ComparePeers)
	}
	slices.SortFunc(out, func(a, b *part) int { return model.ComparePeers(a.members[0], b.members[0]) })
	return out
}

// keeper is the part that keeps the class: the cell it belongs to, else the largest.
func (p *planner) keeper(c model.ClassID, parts []*part) int {
	best := 0
	for i, pt := range parts {
		if pt.cell.class == c && pt.real > 0 {
			return i
		}
		if pt.real > parts[best].real {
			best = i
		}
	}
	return best
}

// covering is the identity that the addresses of a prefix have as long as the prefix is not there.
func (p *planner) covering(pre netip.Prefix) model.IdentityID {
	for bits := pre.Bits() - 1; bits > 0; bits-- {
		if id, ok := p.k.prefixes[netip.PrefixFrom(pre.Addr(), bits).Masked()]; ok {
			return id
		}
	}
	switch cfg := p.e.cfg; {
	case !cfg.IPv4 || !cfg.IPv6:
		return model.IdentityWorld
	case pre.Addr().Is4():
		return model.IdentityWorldIPv4
	}
	return model.IdentityWorldIPv6
}
