package policy

import (
	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// labelKey is one thing that can be said of a label set: a label with this value, or with this key at all.
type labelKey struct {
	source, key, value string
	exists             bool
}

// labelKeys are all that holds for a label.
func labelKeys(l model.Label) [4]labelKey {
	return [4]labelKey{
		{l.Source, l.Key, l.Value, false}, {model.SourceAny, l.Key, l.Value, false},
		{l.Source, l.Key, "", true}, {model.SourceAny, l.Key, "", true},
	}
}

// indexKeys are keys of which a matching label set has at least one; none when there are no such keys.
func indexKeys(rs []requirement) []labelKey {
	var best []labelKey
	weight := 0
	for _, r := range rs {
		var keys []labelKey
		w := 0
		switch {
		case r.op == v2.OpIn:
			for _, v := range r.values {
				keys = append(keys, labelKey{r.source, r.key, v, false})
			}
			if w = 3; r.key == model.KeyNamespace {
				w = 2 // many share it
			}
		case r.op == v2.OpExists:
			keys, w = []labelKey{{r.source, r.key, "", true}}, 1
		default:
			continue
		}
		if w > weight || w == weight && len(keys) < len(best) {
			best, weight = keys, w
		}
	}
	return best
}

// reqIndex finds the things whose requirements a label set may fulfil.
type reqIndex[T comparable] struct {
	byKey map[labelKey]map[T]int
	rest  map[T]int // those without index keys
}

func newReqIndex[T comparable]() reqIndex[T] {
	return reqIndex[T]{byKey: map[labelKey]map[T]int{}, rest: map[T]int{}}
}

func (x *reqIndex[T]) add(rs []requirement, t T) {
	keys := indexKeys(rs)
	if len(keys) == 0 {
		x.rest[t]++
	}
	for _, k := range keys {
		if x.byKey[k] == nil {
			x.byKey[k] = map[T]int{}
		}
		x.byKey[k][t]++
	}
}

func (x *reqIndex[T]) remove(rs []requirement, t T) {
	drop := func(m map[T]int) {
		if m[t]--; m[t] <= 0 {
			delete(m, t)
		}
	}
	keys := indexKeys(rs)
	if len(keys) == 0 {
		drop(x.rest)
	}
	for _, k := range keys {
		if drop(x.byKey[k]); len(x.byKey[k]) == 0 {
			delete(x.byKey, k)
		}
	}
}

// candidates calls f, perhaps more than once for the same thing, in no order.
func (x *reqIndex[T]) candidates(ls model.Labels, f func(T)) {
	for t := range x.rest {
		f(t)
	}
	for _, l := range ls {
		for _, k := range labelKeys(l) {
			for t := range x.byKey[k] {
				f(t)
			}
		}
	}
}

// idIndex finds the identities that may match a term.
type idIndex struct {
	all     map[model.Peer]*identity
	byLabel map[labelKey]map[model.Peer]*identity
	placed  map[model.Peer]*identity // with a prefix, or of the world
}

func newIDIndex() idIndex {
	return idIndex{all: map[model.Peer]*identity{}, byLabel: map[labelKey]map[model.Peer]*identity{},
		placed: map[model.Peer]*identity{}}
}

func (x *idIndex) add(id *identity) {
	x.all[id.peer] = id
	for _, l := range id.labels {
		for _, k := range labelKeys(l) {
			if x.byLabel[k] == nil {
				x.byLabel[k] = map[model.Peer]*identity{}
			}
			x.byLabel[k][id.peer] = id
		}
	}
	if id.prefix.IsValid() || id.world4 || id.world6 {
		x.placed[id.peer] = id
	}
}

func (x *idIndex) remove(id *identity) {
	delete(x.all, id.peer)
	delete(x.placed, id.peer)
	for _, l := range id.labels {
		for _, k := range labelKeys(l) {
			if delete(x.byLabel[k], id.peer); len(x.byLabel[k]) == 0 {
				delete(x.byLabel, k)
			}
		}
	}
}

// matching calls f for every identity that matches, perhaps more than once, in no order.
func (x *idIndex) matching(p *peers, f func(*identity)) {
	for i := range p.terms {
		t := &p.terms[i]
		try := func(m map[model.Peer]*identity) {
			for _, id := range m {
				if t.matches(id) {
					f(id)
				}
			}
		}
		switch t.kind {
		case termCIDR, termWorld4, termWorld6:
			try(x.placed)
			continue
		case termCluster:
			try(x.all)
			continue
		}
		keys := indexKeys(t.reqs)
		if len(keys) == 0 {
			try(x.all)
		}
		for _, k := range keys {
			try(x.byLabel[k])
		}
	}
}
