package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Pool is a range that nodes get equal pieces of.
type Pool struct {
	Prefix netip.Prefix
	Bits   int // prefix length of a node's piece
}

// DefaultPools are the pools a cluster uses unless told otherwise.
func DefaultPools() []Pool {
	return []Pool{
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Bits: 24},
		{Prefix: netip.MustParsePrefix("fd00::/104"), Bits: 120},
	}
}

// Ranges says where a node's pod ranges come from: one piece of each pool; but for IP versions that have a fixed range,
// those instead.
type Ranges struct {
	Pools []Pool
	Fixed []netip.Prefix
}

// Check finds what is wrong with the configuration itself.
func (r Ranges) Check() error {
	for i, p := range r.Fixed {
		if err := checkPrefix(p); err != nil {
			return err
		}
		for _, q := range r.Fixed[:i] {
			if p.Overlaps(q) {
				return fmt.Errorf("pod ranges %s and %s overlap", q, p)
			}
		}
	}
	for i, p := range r.Pools {
		if err := checkPrefix(p.Prefix); err != nil {
			return err
		}
		if p.Bits < p.Prefix.Bits() || p.Bits > p.Prefix.Addr().BitLen() {
			return fmt.Errorf("pool %s: a node's mask of /%d does not fit; want /%d to /%d", p.Prefix, p.Bits, p.Prefix.Bits(), p.Prefix.Addr().BitLen())
		}
		for _, q := range r.Pools[:i] {
			if p.Prefix.Overlaps(q.Prefix) {
				return fmt.Errorf("pools %s and %s overlap", q.Prefix, p.Prefix)
			}
		}
	}
	return nil
}

// Choose picks node's pod ranges, in the order of Fixed, then Pools. taken are all ranges in use with their nodes. A
// piece of the pool that the node has it keeps; then it takes a free one of prefer, then the lowest free one.
func (r Ranges) Choose(node string, taken map[netip.Prefix]string, prefer []netip.Prefix) ([]netip.Prefix, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	var others, own []netip.Prefix
	for p, owner := range taken {
		if owner == node {
			own = append(own, p)
		} else {
			others = append(others, p)
		}
	}
	slices.SortFunc(own, comparePrefix)
	slices.SortFunc(others, comparePrefix)
	var out []netip.Prefix
	fixed := map[bool]bool{}
	for _, p := range r.Fixed {
		if q, ok := overlap(p, others); ok {
			return nil, fmt.Errorf("pod range %s overlaps %s of node %s", p, q, taken[q])
		}
		fixed[p.Addr().Is6()] = true
		out = append(out, p)
	}
	for _, pool := range r.Pools {
		if fixed[pool.Prefix.Addr().Is6()] {
			continue
		}
		p, err := pool.choose(others, append(slices.Clone(own), prefer...))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errors.New("neither pools nor pod ranges are configured")
	}
	return out, nil
}

// choose picks a piece of the pool that overlaps none of others, which are sorted; one of prefer if possible.
func (p Pool) choose(others, prefer []netip.Prefix) (netip.Prefix, error) {
	for _, c := range prefer {
		if c.Bits() == p.Bits && p.Prefix.Contains(c.Addr()) && c == c.Masked() {
			if _, ok := overlap(c, others); !ok {
				return c, nil
			}
		}
	}
	piece := netip.PrefixFrom(p.Prefix.Addr(), p.Bits)
	for _, o := range others {
		if !o.Overlaps(piece) {
			if o.Addr().BitLen() == piece.Addr().BitLen() && piece.Addr().Less(o.Addr()) {
				break // sorted: nothing overlaps from here on
			}
			continue
		}
		// Behind o, at the next boundary of pieces.
		end := lastAddr(o)
		if e := lastAddr(piece); end.Less(e) {
			end = e
		}
		next := end.Next()
		if !next.IsValid() || !p.Prefix.Contains(next) {
			return netip.Prefix{}, fmt.Errorf("pool %s has no free /%d left: %d ranges are in use; release those of nodes that are gone or use a larger pool", p.Prefix, p.Bits, len(others))
		}
		piece = netip.PrefixFrom(next, p.Bits)
	}
	return piece, nil
}

func overlap(p netip.Prefix, with []netip.Prefix) (netip.Prefix, bool) {
	for _, q := range with {
		if p.Overlaps(q) {
			return q, true
		}
	}
	return netip.Prefix{}, false
}

// comparePrefix orders by address, wider ones first.
func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
