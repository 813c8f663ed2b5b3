package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Cluster knows the pod ranges of all nodes, and gives nodes the ranges that they lack. What a node has it keeps, wherever it is
// from. Not safe for concurrent use.
type Cluster struct {
	pools []Pool
	nodes map[string][]netip.Prefix
}

// NewCluster makes one in which no node has anything. Of several pools of an IP version the first with room is used.
func NewCluster(pools []Pool) (*Cluster, error) {
	if len(pools) == 0 {
		return nil, errors.New("no pool of pod ranges")
	}
	if err := (Ranges{Pools: pools}).Check(); err != nil {
		return nil, err
	}
	return &Cluster{pools: pools, nodes: map[string][]netip.Prefix{}}, nil
}

// Held are the ranges of a node.
func (c *Cluster) Held(node string) []netip.Prefix { return slices.Clone(c.nodes[node]) }

// Nodes are the names of those that hold ranges, in no order.
func (c *Cluster) Nodes() []string {
	out := make([]string, 0, len(c.nodes))
	for n := range c.nodes {
		out = append(out, n)
	}
	return out
}

// Adopt notes the ranges that a node has, in place of what is noted of the same IP versions. Errors: what is no range.
func (c *Cluster) Adopt(node string, ranges []netip.Prefix) error {
	for _, p := range ranges {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	old := slices.DeleteFunc(c.nodes[node], func(p netip.Prefix) bool {
		return slices.ContainsFunc(ranges, func(q netip.Prefix) bool { return p.Addr().Is6() == q.Addr().Is6() })
	})
	if all := append(old, ranges...); len(all) > 0 {
		slices.SortFunc(all, comparePrefix)
		c.nodes[node] = all
	}
	return nil
}

// Conflicts are the nodes whose ranges overlap others, and with what. Such ranges are given to nobody else.
func (c *Cluster) Conflicts() map[string]error {
	type held struct {
		netip.Prefix
		node string
	}
	var all []held
	for n, ranges := range c.nodes {
		for _, p := range ranges {
			all = append(all, held{p, n})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Or(comparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.node, b.node)) })
	out := map[string]error{}
	tell := func(a, b held) {
		if out[a.node] == nil {
			out[a.node] = fmt.Errorf("pod range %s overlaps %s of node %s: one of the two has to be made anew", a.Prefix, b.Prefix, b.node)
		}
	}
	var around []held // ranges that the one looked at may lie in, each in the one before
	for _, h := range all {
		for len(around) > 0 && !around[len(around)-1].Overlaps(h.Prefix) {
			around = around[:len(around)-1]
		}
		if n := len(around); n > 0 {
			tell(h, around[n-1])
			tell(around[n-1], h)
		}
		around = append(around, h)
	}
	return out
}

// Give lets a node have a range of each IP version that there are pools of and it has none of, and returns all of its ranges. Where
// there is none left, the error says so, and the others are given.
func (c *Cluster) Give(node string) ([]netip.Prefix, error) {
	var errs error
	for _, v6 := range []bool{false, true} {
		if slices.ContainsFunc(c.nodes[node], func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
			continue
		}
		if p, err := c.free(v6); err != nil {
			errs = errors.Join(errs, err)
		} else if p.IsValid() {
			c.nodes[node] = append(c.nodes[node], p)
			slices.SortFunc(c.nodes[node], comparePrefix)
		}
	}
	return c.Held(node), errs
}

// free is a range that nobody has; none, and no error, when there is no pool of the IP version.
func (c *Cluster) free(v6 bool) (netip.Prefix, error) {
	var taken []netip.Prefix
	for _, ranges := range c.nodes {
		taken = append(taken, ranges...)
	}
	slices.SortFunc(taken, comparePrefix)
	var errs error
	for _, pool := range c.pools {
		if pool.Prefix.Addr().Is6() != v6 {
			continue
		}
		p, err := pool.choose(taken, nil)
		if err == nil {
			return p, nil
		}
		errs = errors.Join(errs, err)
	}
	return netip.Prefix{}, errs
}

// Release frees what a node that is gone had.
func (c *Cluster) Release(node string) { delete(c.nodes, node) }
