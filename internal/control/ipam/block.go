package ipam

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// Block is a range that a node has of a pool.
type Block struct {
	Pool   string
	Prefix netip.Prefix
	Used   int // addresses of it that are in use
}

// Size is how many addresses of a range workloads can have; math.MaxInt32 where there are more.
func Size(p netip.Prefix) int {
	host := p.Addr().BitLen() - p.Bits()
	if host >= 31 {
		return math.MaxInt32
	}
	switch n := 1 << host; {
	case host < 2:
		return n
	case p.Addr().Is4():
		return n - 2
	default:
		return n - 1
	}
}

// Add has the allocator give out the addresses of a range of a pool. Those in use already that lie in it stay so.
func (a *Allocator) Add(pool string, p netip.Prefix) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.add(pool, p)
	slices.SortFunc(a.ranges, func(x, y *span) int { return comparePrefix(x.prefix, y.prefix) })
	return err
}

// Remove has it give out addresses of a range no more: ErrInUse while one of them is in use, ErrOutside for one that it has not.
func (a *Allocator) Remove(p netip.Prefix) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.ranges, func(s *span) bool { return s.prefix == p })
	if i < 0 {
		return fmt.Errorf("remove range %s: %w %v", p, ErrOutside, a.prefixes())
	}
	for ip, owner := range a.owners {
		if p.Contains(ip) {
			return fmt.Errorf("remove range %s: %s: %w by %s", p, ip, ErrInUse, owner)
		}
	}
	a.ranges = slices.Delete(a.ranges, i, i+1)
	return nil
}

// Hold notes that an address is in use, wherever it is from: by a workload that was there before its range is known again. ErrInUse.
func (a *Allocator) Hold(ip netip.Addr, owner string) error {
	err := a.AllocateIP(ip, owner)
	if !errors.Is(err, ErrOutside) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ip = ip.Unmap()
	if old, used := a.owners[ip]; used && old != owner {
		return fmt.Errorf("allocate %s: %w by %s", ip, ErrInUse, old)
	}
	a.owners[ip] = owner
	return nil
}

// Blocks are the ranges, by prefix.
func (a *Allocator) Blocks() []Block {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Block, len(a.ranges))
	for i, s := range a.ranges {
		out[i] = Block{Pool: s.pool, Prefix: s.prefix}
		for ip := range a.owners {
			if s.prefix.Contains(ip) {
				out[i].Used++
			}
		}
	}
	slices.SortFunc(out, func(x, y Block) int { return comparePrefix(x.Prefix, y.Prefix) })
	return out
}

// Needed is how many addresses of a pool a node asks for that uses so many: with ahead, that many more than it uses at least, in
// multiples of it, so that not every workload changes what is asked for.
func Needed(used, ahead int) int {
	if ahead <= 0 {
		return used
	}
	return ((used+ahead-1)/ahead + 1) * ahead
}

// Surplus are the blocks, of one pool and IP version, that nobody uses and that are not needed: the last ones.
func Surplus(blocks []Block, needed int) []netip.Prefix {
	have := 0
	for _, b := range blocks {
		have = min(have+Size(b.Prefix), math.MaxInt32)
	}
	blocks = slices.Clone(blocks)
	slices.SortFunc(blocks, func(x, y Block) int { return comparePrefix(y.Prefix, x.Prefix) })
	var out []netip.Prefix
	for _, b := range blocks {
		if size := Size(b.Prefix); b.Used == 0 && have-size >= needed {
			have -= size
			out = append(out, b.Prefix)
		}
	}
	slices.SortFunc(out, comparePrefix)
	return out
}
