// Package ipam decides who gets which address: pod ranges for nodes out of the cluster's pools (Ranges, Cluster, and where there are
// pools by name, Book), and addresses for workloads out of the node's pod ranges (Allocator). It is pure bookkeeping; what must outlive the agent, its caller
// keeps and gives back with AllocateIP. Nothing waits, and nothing depends on time or chance.
package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Errors of Allocate and AllocateIP.
var (
	ErrExhausted = errors.New("no free address")
	ErrInUse     = errors.New("address is in use")
	ErrOutside   = errors.New("address is outside the node's pod ranges")
	ErrReserved  = errors.New("address is reserved")
	ErrNoFamily  = errors.New("the node has no pod range of this IP version")
)

// Allocation is an address and whose it is.
type Allocation struct {
	IP    netip.Addr `json:"ip"`
	Owner string     `json:"owner"`
}

// Allocator gives out the addresses of a node's pod ranges. Safe for concurrent use.
//
// Not given out: of IPv4 ranges the network and the broadcast address (RFC 3021: not of a /31 or /32), of IPv6 ranges
// the subnet-router anycast address (RFC 6164: not of a /127 or /128); and per IP version one router address, the first
// usable one of the first range that has more than one.
//
// Ranges may belong to pools that have names, and then come and go as the node needs them (Add, Remove, Needed, Surplus).
//
// Addresses are given out in rising order, starting behind the one given out last, so a released one rests as long as
// the range allows.
type Allocator struct {
	mu      sync.Mutex
	ranges  []*span
	routers []netip.Addr
	owners  map[netip.Addr]string
}

// span is one range. first and last are usable; next is where the search starts.
type span struct {
	pool        string
	prefix      netip.Prefix
	first, last netip.Addr
	router      netip.Addr
	next        netip.Addr
}

// New makes an allocator with all addresses free, of ranges that belong to no pool by name. The prefixes must be masked and must not
// overlap.
func New(prefixes []netip.Prefix) (*Allocator, error) {
	a := &Allocator{owners: map[netip.Addr]string{}}
	routed := map[bool]bool{}
	for _, p := range prefixes {
		s, err := a.add("", p)
		if err != nil {
			return nil, err
		}
		if v6 := p.Addr().Is6(); !routed[v6] && s.first != s.last {
			routed[v6] = true
			s.router = s.first
			s.first = s.first.Next()
			a.routers = append(a.routers, s.router)
			s.next = s.first
		}
	}
	return a, nil
}

func (a *Allocator) add(pool string, p netip.Prefix) (*span, error) {
	if err := checkPrefix(p); err != nil {
		return nil, err
	}
	for _, s := range a.ranges {
		if p.Overlaps(s.prefix) {
			return nil, fmt.Errorf("pod ranges %s and %s overlap", s.prefix, p)
		}
	}
	s := newSpan(p)
	s.pool, s.next = pool, s.first
	a.ranges = append(a.ranges, s)
	return s, nil
}

func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid() || p != p.Masked():
		return fmt.Errorf("pod range %s: host bits are set; want %s", p, p.Masked())
	case p.Addr().Is4In6() || p.Addr().Zone() != "":
		return fmt.Errorf("pod range %s: want plain IPv4 or IPv6", p)
	}
	return nil
}

func newSpan(p netip.Prefix) *span {
	s := &span{prefix: p, first: p.Addr(), last: lastAddr(p)}
	host := p.Addr().BitLen() - p.Bits()
	if host >= 2 {
		s.first = s.first.Next()
		if p.Addr().Is4() {
			s.last = s.last.Prev()
		}
	}
	return s
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// Routers are the node's own addresses inside its pod ranges, one per IP version at most, in the order of the ranges.
func (a *Allocator) Routers() []netip.Addr { return slices.Clone(a.routers) }

// Prefixes are the pod ranges.
func (a *Allocator) Prefixes() []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.prefixes()
}

func (a *Allocator) prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(a.ranges))
	for i, s := range a.ranges {
		out[i] = s.prefix
	}
	return out
}

// Allocate gives owner the next free address of a pool and IP version: ErrExhausted, ErrNoFamily.
func (a *Allocator) Allocate(owner, pool string, v6 bool) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var full []netip.Prefix
	for _, s := range a.ranges {
		if s.pool != pool || s.prefix.Addr().Is6() != v6 {
			continue
		}
		if ip, ok := a.search(s); ok {
			a.owners[ip] = owner
			s.advance(ip)
			return ip, nil
		}
		full = append(full, s.prefix)
	}
	if full == nil {
		return netip.Addr{}, fmt.Errorf("allocate IPv%d address: %w", version(v6), ErrNoFamily)
	}
	return netip.Addr{}, fmt.Errorf("allocate IPv%d address: %w in %v: release unused endpoints or give the node a larger range", version(v6), ErrExhausted, full)
}

func version(v6 bool) int {
	if v6 {
		return 6
	}
	return 4
}

// search finds the next free address; it looks at no more addresses than are in use, plus one.
func (a *Allocator) search(s *span) (netip.Addr, bool) {
	ip := s.next
	for range len(a.owners) + 1 {
		if _, used := a.owners[ip]; !used {
			return ip, true
		}
		if ip = s.after(ip); ip == s.next {
			return netip.Addr{}, false
		}
	}
	return netip.Addr{}, false
}

// after is the usable address behind ip, round the end.
func (s *span) after(ip netip.Addr) netip.Addr {
	if ip == s.last {
		return s.first
	}
	return ip.Next()
}

func (s *span) advance(ip netip.Addr) { s.next = s.after(ip) }

// AllocateIP gives owner this very address: for restored endpoints and static addresses. What the owner has already it
// may have again. Errors: ErrInUse, ErrOutside, ErrReserved.
func (a *Allocator) AllocateIP(ip netip.Addr, owner string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ip = ip.Unmap()
	for _, s := range a.ranges {
		if !s.prefix.Contains(ip) {
			continue
		}
		if ip.Less(s.first) || s.last.Less(ip) {
			return fmt.Errorf("allocate %s: %w (of %s)", ip, ErrReserved, s.prefix)
		}
		if old, used := a.owners[ip]; used && old != owner {
			return fmt.Errorf("allocate %s: %w by %s", ip, ErrInUse, old)
		}
		a.owners[ip] = owner
		if !ip.Less(s.next) {
			s.advance(ip)
		}
		return nil
	}
	return fmt.Errorf("allocate %s: %w %v", ip, ErrOutside, a.prefixes())
}

// Release frees an address and returns whose it was. Freeing a free one does nothing.
func (a *Allocator) Release(ip netip.Addr) (owner string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ip = ip.Unmap()
	owner, ok = a.owners[ip]
	delete(a.owners, ip)
	return owner, ok
}

// ReleaseOwner frees all addresses of an owner and returns them in order.
func (a *Allocator) ReleaseOwner(owner string) []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []netip.Addr
	for ip, o := range a.owners {
		if o == owner {
			out = append(out, ip)
		}
	}
	for _, ip := range out {
		delete(a.owners, ip)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Dump lists all addresses in use, in order.
func (a *Allocator) Dump() []Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Allocation, 0, len(a.owners))
	for ip, owner := range a.owners {
		out = append(out, Allocation{ip, owner})
	}
	slices.SortFunc(out, func(x, y Allocation) int { return cmp.Or(x.IP.Compare(y.IP), cmp.Compare(x.Owner, y.Owner)) })
	return out
}
