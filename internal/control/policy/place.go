package policy

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/hypha-net/hypha/internal/model"
)

// places know where the workloads and nodes of the cluster live, and the areas that blocks cut the address space into: an
// address is in the area of the narrowest block around it. Who lives in an area is a peer of its own there, one for each
// identity, so that what is stored grows with neither addresses nor policies.
type places struct {
	areas  map[netip.Prefix]*area // in use, and those on their way out
	inUse  bart.Table[*area]
	byNum  map[model.AreaID]*area
	nextID model.AreaID          // to be given
	stale  bool                  // inUse is not of the areas in use
	homes  map[netip.Addr][]home // who lives at an address
	people map[model.Peer]int    // addresses of a peer

	// Since the last plan:
	changed bool                // areas, or what is wanted of them
	fresh   map[netip.Addr]bool // addresses of which something was said
	moved   map[model.Peer]bool // peers in areas of whom the number of addresses or the identity has changed
}

// area is where a block that sets in use name is the narrowest one.
type area struct {
	num    model.AreaID
	prefix netip.Prefix
	refs   int
	denies int // of refs: those of entries that deny, or pass
}

// home is one who lives at an address, and the area that it is in.
type home struct {
	id   model.IdentityID
	area model.AreaID
}

func newPlaces() *places {
	return &places{areas: map[netip.Prefix]*area{}, homes: map[netip.Addr][]home{}, fresh: map[netip.Addr]bool{}, people: map[model.Peer]int{},
		moved: map[model.Peer]bool{}, nextID: 1, byNum: map[model.AreaID]*area{}}
}

// settle notes who lives at an address from now on; nobody is fine.
func (p *places) settle(a netip.Addr, ids []model.IdentityID) {
	a = a.Unmap()
	p.fresh[a] = true
	for _, h := range p.homes[a] {
		p.count(h, -1)
	}
	delete(p.homes, a)
	if len(ids) == 0 {
		return
	}
	at := p.areaOf(a)
	homes := make([]home, 0, len(ids))
	for _, id := range ids {
		homes = append(homes, home{id, at})
		p.count(homes[len(homes)-1], 1)
	}
	p.homes[a] = homes
}

func (p *places) count(h home, by int) {
	if h.area == 0 {
		return
	}
	peer := model.Peer{Identity: h.id, Area: h.area}
	if p.people[peer] += by; p.people[peer] == 0 {
		delete(p.people, peer)
	}
	p.moved[peer] = true
}

func (p *places) areaOf(a netip.Addr) model.AreaID {
	if x, ok := p.inUse.Lookup(a); ok {
		return x.num
	}
	return 0
}

// add makes the area of a prefix, with a number that is known or a new one.
func (p *places) add(prefix netip.Prefix, num model.AreaID) *area {
	if num == 0 {
		num = p.nextID
	}
	p.nextID = max(p.nextID, num+1)
	x := &area{num: num, prefix: prefix}
	p.areas[prefix], p.byNum[num] = x, x
	return x
}

func (p *places) drop(x *area) {
	delete(p.areas, x.prefix)
	delete(p.byNum, x.num)
}

// refresh finds the area of each address anew, if areas came into use or went out of it.
func (p *places) refresh() {
	if !p.stale {
		return
	}
	p.stale = false
	p.inUse = bart.Table[*area]{}
	for prefix, x := range p.areas {
		if x.refs > 0 {
			p.inUse.Insert(prefix, x)
		}
	}
	for a, homes := range p.homes {
		at := p.areaOf(a)
		for i, h := range homes {
			if h.area != at {
				p.count(h, -1)
				homes[i].area = at
				p.count(homes[i], 1)
			}
		}
	}
}

// wanted is the row of an area.
func (p *places) wanted(x *area) model.Area {
	row := model.Area{ID: x.num}
	for prefix := x.prefix; ; {
		if y := p.areas[prefix]; y != nil && y.denies > 0 {
			row.Strict = true
			return row
		}
		if prefix.Bits() == 0 {
			return row
		}
		prefix = netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
	}
}
