package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// ErrNoPool says that there is no pool of a name.
var ErrNoPool = errors.New("there is no such pool")

// Held are ranges by pool, those of each in order.
type Held map[string][]netip.Prefix

// All are the ranges of all pools.
func (h Held) All() []netip.Prefix {
	var out []netip.Prefix
	for _, ranges := range h {
		out = append(out, ranges...)
	}
	slices.SortFunc(out, comparePrefix)
	return out
}

// Clone is one that shares nothing with it.
func (h Held) Clone() Held {
	out := make(Held, len(h))
	for pool, ranges := range h {
		out[pool] = slices.Clone(ranges)
	}
	return out
}

// Add puts a range into a pool; one that is there already stays.
func (h Held) Add(pool string, p netip.Prefix) {
	if !slices.Contains(h[pool], p) {
		h[pool] = append(h[pool], p)
		slices.SortFunc(h[pool], comparePrefix)
	}
}

// Remove takes a range out of a pool, and a pool without ranges away.
func (h Held) Remove(pool string, p netip.Prefix) {
	h[pool] = slices.DeleteFunc(h[pool], func(q netip.Prefix) bool { return q == p })
	if len(h[pool]) == 0 {
		delete(h, pool)
	}
}

// Book knows which ranges of which pools all nodes have, and gives nodes what they ask for. A range that a node has stays its own until
// it is given back, also when its pool changes or goes. No range is given that overlaps another one, of whatever pool. Not safe for
// concurrent use.
type Book struct {
	pools map[string][]Pool
	nodes map[string]Held
}

// NewBook makes one in which nobody has anything.
func NewBook() *Book { return &Book{pools: map[string][]Pool{}, nodes: map[string]Held{}} }

// SetPools says what is given out from now on. Errors, by pool: what is wrong with one, of which nothing is given then.
func (b *Book) SetPools(pools map[string][]Pool) map[string]error {
	b.pools = map[string][]Pool{}
	bad := map[string]error{}
	for name, of := range pools {
		if err := (Ranges{Pools: of}).Check(); err != nil {
			bad[name] = err
			of = nil
		}
		b.pools[name] = of
	}
	return bad
}

// Held are the ranges of a node.
func (b *Book) Held(node string) Held { return b.nodes[node].Clone() }

// Nodes are the names of those that hold ranges, in no order.
func (b *Book) Nodes() []string { return slices.Collect(maps.Keys(b.nodes)) }

// Adopt notes ranges that a node has, besides those that are noted. Errors: what is no range; then nothing is noted.
func (b *Book) Adopt(node string, held Held) error {
	for _, p := range held.All() {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	for pool, ranges := range held {
		for _, p := range ranges {
			b.note(node, pool, p)
		}
	}
	return nil
}

func (b *Book) note(node, pool string, p netip.Prefix) {
	if b.nodes[node] == nil {
		b.nodes[node] = Held{}
	}
	b.nodes[node].Add(pool, p)
}

// Give lets a node have ranges of a pool until their addresses of the IP version are as many as it needs, and returns the new ones.
// Where there are not enough, the error says so, and those that there were are given.
func (b *Book) Give(node, pool string, v6 bool, needed int) (given []netip.Prefix, err error) {
	have := 0
	for _, p := range b.nodes[node][pool] {
		if p.Addr().Is6() == v6 {
			have += Size(p)
		}
	}
	for have < needed {
		p, err := b.free(pool, v6)
		if err != nil {
			return given, err
		}
		b.note(node, pool, p)
		given = append(given, p)
		have += Size(p)
	}
	return given, nil
}

func (b *Book) free(name string, v6 bool) (netip.Prefix, error) {
	pool, ok := b.pools[name]
	if !ok {
		return netip.Prefix{}, fmt.Errorf("pool %q: %w", name, ErrNoPool)
	}
	var taken []netip.Prefix
	for _, held := range b.nodes {
		taken = append(taken, held.All()...)
	}
	slices.SortFunc(taken, comparePrefix)
	var errs error
	for _, part := range pool {
		if part.Prefix.Addr().Is6() != v6 {
			continue
		}
		p, err := part.choose(slices.DeleteFunc(slices.Clone(taken), func(q netip.Prefix) bool { return !q.Overlaps(part.Prefix) }), nil)
		if err == nil {
			return p, nil
		}
		errs = errors.Join(errs, fmt.Errorf("pool %q: %w", name, err))
	}
	if errs == nil {
		errs = fmt.Errorf("pool %q has no IPv%d addresses", name, version(v6))
	}
	return netip.Prefix{}, errs
}

// Free takes a range back that a node has given up.
func (b *Book) Free(node, pool string, p netip.Prefix) {
	b.nodes[node].Remove(pool, p)
	if len(b.nodes[node]) == 0 {
		delete(b.nodes, node)
	}
}

// Release takes back all that a node had which is gone.
func (b *Book) Release(node string) { delete(b.nodes, node) }

// Conflicts are the nodes whose ranges overlap others, and with what.
func (b *Book) Conflicts() map[string]error {
	all := Cluster{nodes: map[string][]netip.Prefix{}}
	for node, held := range b.nodes {
		all.nodes[node] = held.All()
	}
	return all.Conflicts()
}
