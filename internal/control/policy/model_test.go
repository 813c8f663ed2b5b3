package policy_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// fakeKernel is the maps that a plan is applied to, asked as the datapath asks them.
type fakeKernel struct {
	lists     map[model.PolicyKey]model.PolicyList
	classes   map[model.Peer]model.ClassID
	prefixes  map[netip.Prefix]model.IdentityID
	areas     map[netip.Prefix]model.Area
	endpoints map[uint16]model.SetID
	writes    int
	left      int // writes until one is refused, and all after it; negative: none is
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{lists: map[model.PolicyKey]model.PolicyList{}, classes: map[model.Peer]model.ClassID{},
		prefixes: map[netip.Prefix]model.IdentityID{}, areas: map[netip.Prefix]model.Area{}, endpoints: map[uint16]model.SetID{}, left: -1}
}

func (k *fakeKernel) state() model.PolicyState {
	return model.PolicyState{Lists: maps.Clone(k.lists), Classes: maps.Clone(k.classes), Prefixes: maps.Clone(k.prefixes),
		Areas: maps.Clone(k.areas), EndpointSets: maps.Clone(k.endpoints)}
}

func (k *fakeKernel) clone() *fakeKernel {
	return &fakeKernel{lists: maps.Clone(k.lists), classes: maps.Clone(k.classes), prefixes: maps.Clone(k.prefixes), areas: maps.Clone(k.areas),
		endpoints: maps.Clone(k.endpoints), left: -1}
}

// apply writes a plan, one write at a time, those of one kind in random order; after each it calls seen.
func (k *fakeKernel) apply(p model.PolicyPlan, r *rand.Rand, seen func()) {
	write := func(f func()) {
		if k.left == 0 {
			return
		}
		k.left--
		f()
		k.writes++
		if seen != nil {
			seen()
		}
	}
	for _, s := range p.Steps {
		each(r, s.Lists, func(key model.PolicyKey, l model.PolicyList) { write(func() { k.lists[key] = l }) })
		class := func(areas bool) {
			each(r, s.Classes, func(p model.Peer, c model.ClassID) {
				if (p.Area != 0) == areas {
					write(func() { k.classes[p] = c })
				}
			})
		}
		class(true)
		class(false)
		each(r, s.Prefixes, func(p netip.Prefix, id model.IdentityID) { write(func() { k.prefixes[p] = id }) })
		areas := shuffled(r, slices.Collect(maps.Keys(s.Areas)))
		slices.SortStableFunc(areas, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
		for _, p := range areas {
			write(func() { k.areas[p] = s.Areas[p] })
		}
		each(r, s.EndpointSets, func(e uint16, n model.SetID) { write(func() { k.endpoints[e] = n }) })
		for _, x := range shuffled(r, s.DeletePrefixes) {
			write(func() { delete(k.prefixes, x) })
		}
		for _, x := range s.DeleteAreas {
			write(func() { delete(k.areas, x) })
		}
		for _, x := range shuffled(r, s.DeleteClasses) {
			write(func() { delete(k.classes, x) })
		}
		for _, x := range shuffled(r, s.DeleteLists) {
			write(func() { delete(k.lists, x) })
		}
	}
}

func each[K comparable, V any](r *rand.Rand, m map[K]V, f func(K, V)) {
	for _, k := range shuffled(r, slices.Collect(maps.Keys(m))) {
		f(k, m[k])
	}
}

func shuffled[T any](r *rand.Rand, in []T) []T {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// identify is what the ipcache says of an address outside.
func (k *fakeKernel) identify(a netip.Addr, dual bool) model.IdentityID {
	best, bits := model.IdentityWorld, -1
	for p, id := range k.prefixes {
		if p.Contains(a) && p.Bits() > bits {
			best, bits = id, p.Bits()
		}
	}
	if bits < 0 && dual {
		if best = model.IdentityWorldIPv6; a.Is4() {
			best = model.IdentityWorldIPv4
		}
	}
	return best
}

type answer struct {
	verdict uint8
	rule    model.RuleID
	drop    uint8 // reason, when no list was found
}

// area is where an address is.
func (k *fakeKernel) area(a netip.Addr) (best model.Area) {
	bits := -1
	for p, area := range k.areas {
		if p.Contains(a) && p.Bits() > bits {
			best, bits = area, p.Bits()
		}
	}
	return best
}

// ask judges a peer at an address, which is zero if it does not matter: for who is outside it does not.
func (k *fakeKernel) ask(ep uint16, peer model.IdentityID, a netip.Addr, dir model.Direction, proto uint8, port uint16) answer {
	class, ok := k.classes[model.Peer{Identity: peer}]
	if !ok {
		return answer{drop: 171}
	}
	if area := k.area(a); area.ID != 0 {
		if at, ok := k.classes[model.Peer{Identity: peer, Area: area.ID}]; ok {
			class = at
		} else if area.Strict {
			return answer{drop: 171}
		}
	}
	set, ok := k.endpoints[ep]
	if !ok {
		return answer{drop: 165}
	}
	l, ok := k.lists[model.PolicyKey{Set: set, Class: class, Dir: dir}]
	if !ok {
		if l, ok = k.lists[model.PolicyKey{Set: set, Dir: dir}]; !ok {
			return answer{drop: 165}
		}
	}
	for _, e := range l.Entries {
		if e.Proto == 0 || e.Proto == proto && e.PortLo <= port && port <= e.PortHi {
			return answer{verdict: e.Verdict, rule: e.Rule}
		}
	}
	return answer{verdict: l.DefaultVerdict, rule: l.DefaultRule}
}

func mustAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
