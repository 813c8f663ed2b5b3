package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// planner leads from what the kernel holds to what is wanted. Every step is taken over into Engine.kernel as it is made.
//
//	forget  identities that are gone lose their class
//	split   classes whose members part ways: the movers get a copy of the rows they had
//	swap    prefixes and new sets are written, endpoints flip to them
//	settle  new and changed identities get their class, cells that became alike merge, leftovers go
type planner struct {
	e     *Engine
	k     *kernel
	steps []model.PolicyStep

	fresh    []*set                     // numbered in this plan
	flips    map[uint16]model.SetID     // endpoints to their new sets
	entering map[netip.Prefix]*identity // prefixes not in the kernel yet
	retiring map[model.Peer]bool        // of prefixes that no set names any more, and those who left an area
	opening  map[netip.Prefix]*area     // areas not in the kernel yet
	lost     map[model.ClassID]bool     // classes that lost a member
}

func (e *Engine) plan() []model.PolicyStep {
	e.regroup()
	e.people()
	p := &planner{e: e, k: e.kernel, flips: map[uint16]model.SetID{}, entering: map[netip.Prefix]*identity{},
		retiring: maps.Clone(e.pending.leaving), opening: map[netip.Prefix]*area{}, lost: map[model.ClassID]bool{}}
	for _, n := range slices.SortedFunc(maps.Keys(e.pending.ids), model.ComparePeers) {
		e.place(e.pending.ids[n])
	}
	p.forget()
	for pre := range e.pending.prefixes {
		x := e.prefixes[pre]
		if x == nil {
			continue
		}
		if x.refs == 0 {
			p.retiring[x.id.peer] = true
		} else if id, ok := p.k.prefixes[pre]; !ok || id != x.id.peer.Identity {
			p.entering[pre] = x.id
		}
	}
	if e.places.changed {
		for prefix, x := range e.places.areas {
			if have, ok := p.k.areas[prefix]; x.refs > 0 && (!ok || have.ID != x.num) {
				p.opening[prefix] = x
			}
		}
	}
	p.number()
	if p.restructures() {
		p.split()
	}
	p.swap()
	p.settle()
	if e.pending.served { // a step of its own: its address has to be without the row before
		p.step(model.PolicyStep{BumpEpoch: true})
	}
	e.pending = newPending()
	e.adopt = false
	return p.steps
}

// step adds a step unless it says nothing.
func (p *planner) step(s model.PolicyStep) {
	if len(s.Lists)+len(s.Classes)+len(s.Prefixes)+len(s.Areas)+len(s.EndpointSets)+len(s.DeletePrefixes)+len(s.DeleteAreas)+
		len(s.DeleteClasses)+len(s.DeleteLists) > 0 || s.BumpEpoch {
		p.steps = append(p.steps, s)
	}
}

// restructures says whether sets, prefixes or areas come into being: then classes have to be ready for them first.
func (p *planner) restructures() bool { return len(p.fresh)+len(p.entering)+len(p.opening) > 0 }

// list writes one list into a step and the kernel.
func (p *planner) list(s *model.PolicyStep, key model.PolicyKey, l *model.PolicyList) {
	if s.Lists == nil {
		s.Lists = map[model.PolicyKey]model.PolicyList{}
	}
	s.Lists[key] = *l
	p.k.setList(key, l)
}

func (p *planner) rows(s *model.PolicyStep, set model.SetID, class model.ClassID, row [2]*model.PolicyList) {
	for dir, l := range row {
		if l != nil {
			p.list(s, model.PolicyKey{Set: set, Class: class, Dir: model.Direction(dir)}, l)
		}
	}
}

func (p *planner) class(s *model.PolicyStep, id model.Peer, c model.ClassID) {
	if s.Classes == nil {
		s.Classes = map[model.Peer]model.ClassID{}
	}
	if old, ok := p.k.classes[id]; ok {
		p.lost[old] = true
	}
	s.Classes[id] = c
	p.k.setClass(id, c)
}

func (p *planner) dropClass(s *model.PolicyStep, id model.Peer) {
	if c, ok := p.k.classes[id]; ok {
		p.lost[c] = true
		s.DeleteClasses = append(s.DeleteClasses, id)
		p.k.dropClass(id)
	}
}

func (p *planner) newClass() model.ClassID {
	p.k.lastClass++
	return p.k.lastClass
}

// forget comes first, because an identity that is gone must not see the policy to come.
func (p *planner) forget() {
	var s model.PolicyStep
	gone := maps.Clone(p.e.pending.gone)
	if p.e.adopt {
		for id := range p.k.classes {
			if p.e.index.all[id] == nil {
				gone[id] = true
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(gone), model.ComparePeers) {
		p.dropClass(&s, id)
	}
	p.step(s)
}

// number gives every set its number: the one the kernel has for the same content, or a new one.
func (p *planner) number() {
	var todo []*set
	seen := map[*set]bool{}
	for _, n := range slices.Sorted(maps.Keys(p.e.local)) {
		if s := p.e.local[n].set; s.num == 0 && !seen[s] {
			seen[s] = true
			todo = append(todo, s)
		}
	}
	if p.e.adopt {
		p.adoptSets(todo)
	}
	for _, s := range todo {
		if s.num == 0 {
			p.k.lastSet++
			s.num = p.k.lastSet
			p.fresh = append(p.fresh, s)
		}
	}
	if len(p.e.pending.mutated) > 0 {
		p.renumber()
	}
	for n, sub := range p.e.local {
		if p.moves(n, sub) {
			p.flips[n] = sub.set.num
		}
	}
}

func (p *planner) moves(endpoint uint16, s *subject) bool {
	have, ok := p.k.endpoints[endpoint]
	return !ok || have != s.set.num
}

// renumber makes anew the sets that endpoints come to while identities change: the rows in the kernel still show those
// identities as they were, which is neither the old view of such an endpoint nor its new one.
func (p *planner) renumber() {
	again := map[*set]bool{}
	for n, sub := range p.e.local {
		if p.moves(n, sub) && !slices.Contains(p.fresh, sub.set) {
			again[sub.set] = true
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(again), func(a, b *set) int { return cmp.Compare(a.num, b.num) }) {
		p.e.pending.dead = append(p.e.pending.dead, s.num)
		p.k.lastSet++
		s.num = p.k.lastSet
		p.fresh = append(p.fresh, s)
	}
}

// adoptSets finds sets that the kernel holds already, among those that their endpoints have.
func (p *planner) adoptSets(todo []*set) {
	type pair struct {
		class model.ClassID
		cell  *cell
	}
	pairs := map[pair]bool{}
	for id, c := range p.k.classes {
		pairs[pair{c, p.e.index.all[id].cell}] = true
	}
	candidates := map[*set][]model.SetID{}
	for n, sub := range p.e.local {
		if num, ok := p.k.endpoints[n]; ok {
			candidates[sub.set] = append(candidates[sub.set], num)
		}
	}
	taken := map[model.SetID]bool{}
	for _, s := range todo {
		slices.Sort(candidates[s])
		for _, num := range slices.Compact(candidates[s]) {
			rows := p.k.rows[num]
			same := num != 0 && !taken[num] && rows != nil && equalRow(rows[0], s.anyRow())
			for pr := range pairs {
				same = same && equalRow(rows[pr.class], s.row(pr.cell))
			}
			if same {
				s.num, taken[num] = num, true
				break
			}
		}
	}
}

func equalRow(a, b [2]*model.PolicyList) bool { return equalList(a[0], b[0]) && equalList(a[1], b[1]) }

// classesOf are the classes that identities of a cell have now; after split they are all in that cell.
func (p *planner) classesOf(c *cell) []model.ClassID {
	var out []model.ClassID
	for id := range c.members {
		if class, ok := p.k.classes[id]; ok && !slices.Contains(out, class) {
			out = append(out, class)
		}
	}
	return out
}

// swap writes what the new sets need and flips the endpoints.
func (p *planner) swap() {
	var s model.PolicyStep
	classes := map[*cell][]model.ClassID{}
	for _, set := range p.fresh {
		p.rows(&s, set.num, 0, set.anyRow())
		set.concerns(p.e.cells, func(cl *cell) {
			if _, ok := classes[cl]; !ok {
				classes[cl] = p.classesOf(cl)
			}
			for _, c := range classes[cl] {
				p.rows(&s, set.num, c, set.row(cl))
			}
		})
	}
	for pre, id := range p.entering {
		if s.Prefixes == nil {
			s.Prefixes = map[netip.Prefix]model.IdentityID{}
		}
		s.Prefixes[pre] = id.peer.Identity
		p.k.prefixes[pre] = id.peer.Identity
	}
	p.open(&s)
	if len(p.flips) > 0 {
		s.EndpointSets, s.BumpEpoch = p.flips, true
		maps.Copy(p.k.endpoints, p.flips)
	}
	p.step(s)
}

// area writes the row of an area into a step and the kernel.
func (p *planner) area(s *model.PolicyStep, prefix netip.Prefix, row model.Area) {
	if s.Areas == nil {
		s.Areas = map[netip.Prefix]model.Area{}
	}
	s.Areas[prefix] = row
	p.k.areas[prefix] = row
}

// open writes the areas that come into being, and makes strict those that are to be, before a set denies there. An area inside
// one that is strict is so as well until all who live there are known.
func (p *planner) open(s *model.PolicyStep) {
	if !p.e.places.changed {
		return
	}
	rows := map[netip.Prefix]model.Area{}
	for prefix, x := range p.opening {
		row := p.e.places.wanted(x)
		around, _ := p.k.around(prefix)
		row.Strict = row.Strict || around.Strict
		rows[prefix] = row
	}
	for prefix, have := range p.k.areas {
		if x := p.e.places.areas[prefix]; x != nil && x.num == have.ID && !have.Strict && p.e.places.wanted(x).Strict {
			rows[prefix] = model.Area{ID: have.ID, Strict: true}
		}
	}
	for prefix, row := range rows {
		p.area(s, prefix, row)
	}
}
