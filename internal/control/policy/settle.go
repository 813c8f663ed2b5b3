package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// settle gives every touched cell one class, moves its identities there, and deletes what nothing refers to. A class is
// joined only if its rows are right in every set, so the move of an identity is one write and shows nothing between.
func (p *planner) settle() {
	var s model.PolicyStep
	touched := map[*cell]bool{}
	for id := range p.e.pending.ids {
		if !p.retiring[id] {
			touched[p.e.index.all[id].cell] = true
		}
	}
	cells := slices.SortedFunc(maps.Keys(touched), func(a, b *cell) int { return cmp.Compare(a.sig, b.sig) })
	if p.restructures() {
		for _, c := range cells {
			p.confirm(c)
		}
	}
	for _, c := range cells {
		if c.class == 0 {
			p.choose(&s, c)
			for _, id := range slices.SortedFunc(maps.Keys(c.members), model.ComparePeers) {
				p.join(&s, id, c.class)
			}
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(p.e.pending.ids), model.ComparePeers) {
		p.join(&s, n, p.e.index.all[n].cell.class)
	}
	p.retire(&s)
	p.close(&s)
	p.sweep(&s)
	p.step(s)
}

// confirm keeps a cell's class only if the class is really what the new sets were written for.
func (p *planner) confirm(c *cell) {
	if c.class == 0 {
		return
	}
	for id := range p.k.members[c.class] {
		if p.e.index.all[id].cell == c {
			return
		}
		break
	}
	delete(p.e.owners, c.class)
	c.class = 0
}

// choose picks the class with the most members among those that are all in the cell and have the right rows, else makes
// one.
func (p *planner) choose(s *model.PolicyStep, c *cell) {
	count := map[model.ClassID]int{}
	for id := range c.members {
		if class, ok := p.k.classes[id]; ok {
			count[class]++
		}
	}
	best := model.ClassID(0)
	for class, n := range count {
		if n == len(p.k.members[class]) && class != 0 && (best == 0 || n > count[best] || n == count[best] && class < best) &&
			p.unowned(class) && p.right(class, c) {
			best = class
		}
	}
	if best == 0 {
		best = p.newClass()
		for set := range p.concerned(c) {
			p.rows(s, set.num, best, set.row(c))
		}
	}
	c.class = best
	p.e.owners[best] = c
}

// concerned are the sets that may have a row of their own for a cell.
func (p *planner) concerned(c *cell) map[*set]bool {
	out := map[*set]bool{}
	for _, sel := range c.sels {
		maps.Copy(out, sel.sets)
	}
	if len(c.named) > 0 {
		for _, set := range p.e.sets {
			if len(set.names) > 0 {
				out[set] = true
			}
		}
	}
	return out
}

func (p *planner) unowned(class model.ClassID) bool {
	o := p.e.owners[class]
	return o == nil || o.class != class || p.e.cells[o.sig] != o
}

// right says whether the rows of a class are what a cell wants. They are, unless labels or ports changed under all its
// members, or the kernel's content is yet to be trusted.
func (p *planner) right(class model.ClassID, c *cell) bool {
	if !p.e.adopt {
		for id := range p.k.members[class] {
			if !p.e.pending.mutated[id] {
				return true
			}
		}
	}
	for _, set := range p.e.sets {
		if !equalRow(p.k.rows[set.num][class], set.row(c)) {
			return false
		}
	}
	return true
}

func (p *planner) join(s *model.PolicyStep, id model.Peer, class model.ClassID) {
	have, ok := p.k.classes[id]
	if p.retiring[id] || ok && have == class {
		return
	}
	if ok && (p.e.pending.mutated[id] || p.e.adopt) {
		s.BumpEpoch = true
	}
	p.class(s, id, class)
}

// retire deletes prefixes that no set names; their addresses fall to what covers them, which no set tells apart.
func (p *planner) retire(s *model.PolicyStep) {
	for pre := range p.e.pending.prefixes {
		x := p.e.prefixes[pre]
		if x == nil || x.refs > 0 {
			continue
		}
		p.e.unplace(x.id)
		p.e.index.remove(x.id)
		delete(p.e.prefixes, pre)
		p.dropClass(s, x.id.peer)
		if _, ok := p.k.prefixes[pre]; ok {
			s.DeletePrefixes = append(s.DeletePrefixes, pre)
			delete(p.k.prefixes, pre)
		}
	}
	if p.e.adopt {
		for pre := range p.k.prefixes {
			if p.e.prefixes[pre] == nil {
				s.DeletePrefixes = append(s.DeletePrefixes, pre)
				delete(p.k.prefixes, pre)
			}
		}
	}
	slices.SortFunc(s.DeletePrefixes, model.CompareCIDRs)
}

// close takes the areas that no set names out of use, lets strict ones go that need not be any more, and sees off those who
// left: last of all, since whoever lives in an area that closes is of the one around it by now.
func (p *planner) close(s *model.PolicyStep) {
	if p.e.places.changed {
		p.closeAreas(s)
		p.e.places.changed = false
	}
	for peer := range p.e.pending.leaving {
		id := p.e.index.all[peer]
		p.e.unplace(id)
		p.e.index.remove(id)
		p.dropClass(s, peer)
	}
	slices.SortFunc(s.DeleteClasses, model.ComparePeers)
}

func (p *planner) closeAreas(s *model.PolicyStep) {
	for _, x := range p.e.places.areas {
		if x.refs == 0 {
			p.e.places.drop(x)
		}
	}
	for prefix, have := range p.k.areas {
		x := p.e.places.areas[prefix]
		if x == nil {
			s.DeleteAreas = append(s.DeleteAreas, prefix)
			delete(p.k.areas, prefix)
		} else if row := p.e.places.wanted(x); row != have {
			p.area(s, prefix, row)
		}
	}
	// The wider ones first: who lives in one inside is not to be found in them.
	slices.SortFunc(s.DeleteAreas, func(a, b netip.Prefix) int { return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), model.CompareCIDRs(a, b)) })
}

// sweep deletes the lists of sets without endpoints and of classes without members.
func (p *planner) sweep(s *model.PolicyStep) {
	dead := p.lost
	if p.e.adopt {
		dead = p.strangers()
	}
	for _, set := range p.e.pending.dead {
		for class := range p.k.rows[set] {
			p.dropRow(s, set, class)
		}
		delete(p.k.rows, set)
	}
	for class := range dead {
		if class == 0 || p.k.members[class] != nil {
			continue
		}
		delete(p.e.owners, class)
		for set := range p.k.rows {
			p.dropRow(s, set, class)
		}
	}
	slices.SortFunc(s.DeleteLists, func(a, b model.PolicyKey) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Dir, b.Dir))
	})
}

// strangers notes the sets of the kernel that are not wanted, and answers with all classes that have rows.
func (p *planner) strangers() map[model.ClassID]bool {
	wanted := map[model.SetID]bool{}
	for _, set := range p.e.sets {
		wanted[set.num] = true
	}
	classes := map[model.ClassID]bool{}
	for set, rows := range p.k.rows {
		if !wanted[set] {
			p.e.pending.dead = append(p.e.pending.dead, set)
		}
		for class := range rows {
			classes[class] = true
		}
	}
	return classes
}

func (p *planner) dropRow(s *model.PolicyStep, set model.SetID, class model.ClassID) {
	row, ok := p.k.rows[set][class]
	if !ok {
		return
	}
	for dir, l := range row {
		if l != nil {
			s.DeleteLists = append(s.DeleteLists, model.PolicyKey{Set: set, Class: class, Dir: model.Direction(dir)})
		}
	}
	delete(p.k.rows[set], class)
}
