// Package garbage decides which objects of the cluster nobody needs any more. It is pure: the time is told, and only differences of
// times count. When in doubt an object stays.
package garbage

import (
	"slices"
	"time"
)

// Identities watches which identities are in use.
type Identities struct {
	timeout time.Duration
	unused  map[string]time.Time // since when they were seen unused
}

// Identity is one as it is kept.
type Identity struct {
	Name   string
	Marked bool // as one that goes
}

// Sweep is what to do with identities, by name, in order.
type Sweep struct {
	Mark   []string // they go the next time, if they are not in use then
	Unmark []string // in use after all
	Delete []string // marked before, and unused still
}

// NewIdentities makes a watch in which an identity may be unused for timeout before it goes.
func NewIdentities(timeout time.Duration) *Identities {
	return &Identities{timeout: timeout, unused: map[string]time.Time{}}
}

// Look takes in which identities there are and which are in use. One goes in two steps: unused for the timeout it is marked, and if it
// is marked and unused at a later look, it is deleted. A mark of somebody else counts for nothing before the timeout.
func (g *Identities) Look(now time.Time, all []Identity, used map[string]bool) (out Sweep) {
	there := make(map[string]bool, len(all))
	for _, d := range all {
		there[d.Name] = true
		since, seen := g.unused[d.Name]
		switch {
		case used[d.Name]:
			delete(g.unused, d.Name)
			if d.Marked {
				out.Unmark = append(out.Unmark, d.Name)
			}
		case !seen:
			g.unused[d.Name] = now
		case now.Sub(since) < g.timeout:
		case d.Marked:
			out.Delete = append(out.Delete, d.Name)
		default:
			out.Mark = append(out.Mark, d.Name)
		}
	}
	for name := range g.unused {
		if !there[name] {
			delete(g.unused, name)
		}
	}
	for _, l := range [][]string{out.Mark, out.Unmark, out.Delete} {
		slices.Sort(l)
	}
	return out
}
