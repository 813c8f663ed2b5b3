package observe

import (
	"cmp"
	"slices"
	"time"
)

// Namespace of a cluster.
type Namespace struct{ Cluster, Name string }

const (
	namespaceTTL = time.Hour
	namespaceMax = 65536 // more are not remembered
)

// namespaces remembers when each was last seen.
type namespaces map[Namespace]time.Time

func (n namespaces) see(t time.Time, k Namespace) {
	if k.Name == "" {
		return
	}
	if last, ok := n[k]; ok && t.Sub(last) < time.Second || !ok && len(n) >= namespaceMax {
		return
	}
	n[k] = t
}

func (n namespaces) list(now time.Time) []Namespace {
	var out []Namespace
	for k, t := range n {
		if now.Sub(t) > namespaceTTL {
			delete(n, k)
			continue
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Namespace) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// rate counts events in seconds of the last minute.
type rate struct {
	count  [60]uint64
	second [60]int64
}

func (r *rate) add(now time.Time) {
	s := now.Unix()
	i := uint64(s) % uint64(len(r.count))
	if r.second[i] != s {
		r.second[i], r.count[i] = s, 0
	}
	r.count[i]++
}

// perSecond averages over the last minute, or since the start if that is less.
func (r *rate) perSecond(now, started time.Time) float64 {
	var sum uint64
	for i, s := range r.second {
		if age := now.Unix() - s; age >= 0 && age < int64(len(r.count)) {
			sum += r.count[i]
		}
	}
	window := min(max(now.Sub(started), time.Second), time.Duration(len(r.count))*time.Second)
	return float64(sum) / window.Seconds()
}
