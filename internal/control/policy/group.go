package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// regroup gives every touched workload its set, and takes selectors, names and prefixes in and out of use.
func (e *Engine) regroup() {
	touched := make([]uint16, 0, len(e.pending.local))
	for n := range e.pending.local {
		touched = append(touched, n)
	}
	slices.Sort(touched)
	made := map[string]*set{} // by what makes them, so that alike workloads are compiled once
	for _, n := range touched {
		s := e.pending.local[n]
		what := fmt.Sprintf("%s|%s|%t", s.labels.Key(), portsKey(sortedPorts(s.NamedPorts)), s.Audit)
		want := made[what]
		if want == nil {
			want = e.newSet(subjectOf{labels: s.labels, ports: s.NamedPorts, audit: s.Audit})
			if have := e.sets[want.key]; have != nil {
				e.releaseRules(want)
				want = have
			} else {
				e.attach(want)
			}
			made[what] = want
		}
		if want != s.set {
			e.leave(s)
			want.refs++
			s.set = want
		}
	}
	clear(e.pending.local)
	dying := e.pending.dying
	e.pending.dying = nil
	for _, s := range dying {
		if s.refs == 0 && e.sets[s.key] == s {
			e.detach(s)
		}
	}
}

// attach takes a set's selectors, names and prefixes into use.
func (e *Engine) attach(s *set) {
	e.sets[s.key] = s
	for _, sd := range s.sides {
		sd.bySel = map[*liveSel][]int{}
		for i, en := range sd.entries {
			if sd.dir == model.Egress {
				for _, p := range en.ports {
					if p.name != "" {
						s.names = append(s.names, p.name)
					}
				}
			}
			if en.peers == nil {
				continue
			}
			e.usePrefixes(en.peers, 1) // first, so that a fresh selector finds their identities
			sel, fresh := e.live.acquire(en.peers)
			u := use{sel, en.deny || en.pass}
			e.useAreas(en.peers, 1, u.denies)
			s.sels = append(s.sels, u)
			sel.sets[s] = true
			sd.bySel[sel] = append(sd.bySel[sel], i)
			if fresh {
				e.index.matching(en.peers, func(id *identity) { e.pending.ids[id.peer] = id })
			}
		}
	}
	for _, n := range s.names {
		if e.live.names[n]++; e.live.names[n] == 1 {
			e.touchNamed(n)
		}
	}
}

func (e *Engine) detach(s *set) {
	delete(e.sets, s.key)
	e.pending.dead = append(e.pending.dead, s.num)
	e.releaseRules(s)
	for _, sel := range s.sels {
		e.usePrefixes(sel.peers, -1)
		e.useAreas(sel.peers, -1, sel.denies)
		delete(sel.sets, s)
		if e.live.release(sel.liveSel) {
			e.index.matching(sel.peers, func(id *identity) { e.pending.ids[id.peer] = id })
		}
	}
	for _, n := range s.names {
		if e.live.names[n]--; e.live.names[n] == 0 {
			delete(e.live.names, n)
			e.touchNamed(n)
		}
	}
}

func (e *Engine) touchNamed(name string) {
	for n, id := range e.index.all {
		if slices.ContainsFunc(id.ports, func(p model.NamedPort) bool { return lower(p.Name) == name }) {
			e.pending.ids[n] = id
		}
	}
}

// usePrefixes counts the users of the prefixes that peers name. The whole world is no prefix of its own, the datapath has
// rows for it already; and an IP version that is off has no addresses.
func (e *Engine) usePrefixes(p *peers, by int) {
	for i := range p.terms {
		t := &p.terms[i]
		if t.kind != termCIDR {
			continue
		}
		for _, pre := range append([]netip.Prefix{t.prefix}, t.except...) {
			if pre.Bits() == 0 || !e.serves(pre) {
				continue
			}
			x := e.prefixes[pre]
			if x == nil {
				x = e.addPrefix(pre, e.freeID())
			}
			x.refs += by
			e.pending.prefixes[pre] = true
		}
	}
}

// freeID is a number that no prefix holds, in rising order so that one is not used again soon.
func (e *Engine) freeID() model.IdentityID {
	for {
		if e.nextID&model.IdentityScopeMask != model.IdentityScopeLocal {
			e.nextID = model.IdentityScopeLocal + 1
		}
		id := e.nextID
		e.nextID++
		if e.index.all[model.Peer{Identity: id}] == nil {
			return id
		}
	}
}
