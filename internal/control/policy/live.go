package policy

import (
	"cmp"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// liveSel is a union of peers that some set in use tells apart from other peers.
type liveSel struct {
	id    uint32
	peers *peers
	refs  int
	cells map[*cell]bool // of which the identities match
	sets  map[*set]bool  // that use it
}

// live holds the selectors and port names of the sets in use, and finds those that concern an identity.
type live struct {
	byKey  map[string]*liveSel
	labels reqIndex[*liveSel] // label and node terms
	addrs  map[*liveSel]int   // CIDR and world terms: only outside identities can match
	whole  map[*liveSel]int   // cluster terms
	names  map[string]int     // port names that egress rules use
	next   uint32
}

func newLive() *live {
	return &live{byKey: map[string]*liveSel{}, labels: newReqIndex[*liveSel](), addrs: map[*liveSel]int{},
		whole: map[*liveSel]int{}, names: map[string]int{}}
}

// acquire is the selector of these peers; fresh says that it was not in use before.
func (l *live) acquire(p *peers) (s *liveSel, fresh bool) {
	s, ok := l.byKey[p.key]
	if ok {
		s.refs++
		return s, false
	}
	l.next++
	s = &liveSel{id: l.next, peers: p, refs: 1, cells: map[*cell]bool{}, sets: map[*set]bool{}}
	l.byKey[p.key] = s
	for i := range p.terms {
		switch t := &p.terms[i]; t.kind {
		case termCIDR, termWorld4, termWorld6:
			l.addrs[s]++
		case termCluster:
			l.whole[s]++
		default:
			l.labels.add(t.reqs, s)
		}
	}
	return s, true
}

// release says whether that was the last use.
func (l *live) release(s *liveSel) bool {
	if s.refs--; s.refs > 0 {
		return false
	}
	delete(l.byKey, s.peers.key)
	delete(l.addrs, s)
	delete(l.whole, s)
	for i := range s.peers.terms {
		if t := &s.peers.terms[i]; t.kind == termLabels || t.kind == termNode {
			l.labels.remove(t.reqs, s)
		}
	}
	return true
}

// of are the selectors that an identity matches, by id.
func (l *live) of(id *identity) []*liveSel {
	var out []*liveSel
	try := func(s *liveSel) {
		if s.peers.matches(id) {
			out = append(out, s)
		}
	}
	l.labels.candidates(id.labels, try)
	for s := range l.whole {
		try(s)
	}
	if id.prefix.IsValid() || id.world4 || id.world6 {
		for s := range l.addrs {
			try(s)
		}
	}
	slices.SortFunc(out, func(a, b *liveSel) int { return cmp.Compare(a.id, b.id) })
	return slices.Compact(out)
}

// named are the ports of an identity whose names egress rules use.
func (l *live) named(id *identity) []model.NamedPort {
	var out []model.NamedPort
	for _, p := range id.ports {
		if l.names[lower(p.Name)] > 0 {
			out = append(out, p)
		}
	}
	return out
}
