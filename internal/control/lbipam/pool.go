package lbipam

import (
	"cmp"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// Pool is addresses for services.
type Pool struct {
	Name     string
	Created  int64 // when, by whatever clock: only the order matters
	Disabled bool  // gives nothing new
	Trim     bool  // the first and the last address of a prefix are not given
	Blocks   []Block
	Invalid  string // what else is wrong with it, "" if nothing is
	// Selects says whether a service may have addresses of the pool; nil: every service.
	Selects func(*Service) bool
}

// Reasons of a pool's conflict.
const (
	ReasonResolved = "resolved"
	ReasonOverlap  = "cidr_overlap"
	ReasonInvalid  = "invalid_block"
)

// PoolState is how a pool fares.
type PoolState struct {
	Name                   string
	Reason, Message        string // of its conflict; ReasonResolved and "": none
	Total, Used, Available *big.Int
}

// Conflict says whether the pool cannot be used.
func (s *PoolState) Conflict() bool { return s.Reason != ReasonResolved }

// pool is a Pool that was read.
type pool struct {
	*Pool
	state     PoolState
	all, give []span
	next      []netip.Addr // for each span of give: all before are in use
}

// read orders the pools, older ones first, and finds those that cannot be used: the younger of two that overlap, and what is not
// understood. What is understood of such a pool is its own still: services keep what they have.
func read(in []Pool) []*pool {
	out := make([]*pool, len(in))
	for i := range in {
		p := &pool{Pool: &in[i], state: PoolState{Name: in[i].Name, Reason: ReasonResolved}}
		if in[i].Invalid != "" {
			p.state.Reason, p.state.Message = ReasonInvalid, in[i].Invalid
		}
		for _, b := range in[i].Blocks {
			all, give, err := b.spans(in[i].Trim)
			if err != nil {
				p.state.Reason, p.state.Message = ReasonInvalid, err.Error()
				continue
			}
			p.all, p.give = append(p.all, all), append(p.give, give)
		}
		p.all, p.give = join(p.all), join(p.give)
		for _, s := range p.give {
			p.next = append(p.next, s.first)
		}
		out[i] = p
	}
	slices.SortFunc(out, func(a, b *pool) int { return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Name, b.Name)) })
	for i, p := range out {
		for _, older := range out[:i] {
			if a, b, ok := overlap(p.all, older.all); ok && !p.state.Conflict() {
				p.state.Reason = ReasonOverlap
				p.state.Message = fmt.Sprintf("%s overlaps %s of the older pool %s", a, b, older.Name)
			}
		}
	}
	return out
}

func overlap(a, b []span) (span, span, bool) {
	for _, s := range a {
		for _, t := range b {
			if s.overlaps(t) {
				return s, t, true
			}
		}
	}
	return span{}, span{}, false
}

func (p *pool) selects(s *Service) bool { return p.Selects == nil || p.Selects(s) }

// usable says whether it gives addresses that nobody has.
func (p *pool) usable() bool { return !p.Disabled && !p.state.Conflict() }

func (p *pool) holds(a netip.Addr) bool {
	return slices.ContainsFunc(p.all, func(s span) bool { return s.contains(a) })
}

func (p *pool) gives(a netip.Addr) bool {
	return slices.ContainsFunc(p.give, func(s span) bool { return s.contains(a) })
}

// free is the lowest address of an IP version that nobody has. While addresses are given none becomes free, so the search goes on
// where the last one ended.
func (p *pool) free(v6 bool, used func(netip.Addr) bool) (netip.Addr, bool) {
	for i, s := range p.give {
		if s.first.Is6() != v6 {
			continue
		}
		for a := p.next[i]; a.IsValid() && s.contains(a); a = a.Next() {
			if p.next[i] = a; !used(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// count says how much of the pool is in use. What is given no more but still in use counts as well.
func (p *pool) count(used map[netip.Addr][]*Service) PoolState {
	total, n := new(big.Int), new(big.Int)
	for _, s := range p.give {
		total.Add(total, s.size())
	}
	one := big.NewInt(1)
	for a := range used {
		if p.gives(a) {
			n.Add(n, one)
		} else if p.holds(a) {
			n.Add(n, one)
			total.Add(total, one)
		}
	}
	p.state.Total, p.state.Used, p.state.Available = total, n, new(big.Int).Sub(total, n)
	return p.state
}
