package lbipam

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// span is the addresses from first to last, all of one IP version.
type span struct{ first, last netip.Addr }

func (s span) contains(a netip.Addr) bool {
	return s.first.Is6() == a.Is6() && !a.Less(s.first) && !s.last.Less(a)
}

func (s span) overlaps(o span) bool {
	return s.first.Is6() == o.first.Is6() && !o.last.Less(s.first) && !s.last.Less(o.first)
}

func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	return s.first.String() + "-" + s.last.String()
}

// size is how many addresses there are, which may be 2^128.
func (s span) size() *big.Int {
	lo, hi := new(big.Int).SetBytes(s.first.AsSlice()), new(big.Int).SetBytes(s.last.AsSlice())
	return hi.Add(hi.Sub(hi, lo), big.NewInt(1))
}

// Block is a part of a pool as it is written: a prefix, or a first address and perhaps a last one.
type Block struct{ CIDR, Start, Stop string }

// spans reads a block: all of its addresses, and those that may be given. With trim the first and the last address of a prefix are
// not given (but of one that has no others).
func (b Block) spans(trim bool) (all, give span, err error) {
	if b.CIDR != "" {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil || p.Addr().Is4In6() {
			return all, give, fmt.Errorf("%q is no prefix", b.CIDR)
		}
		all = span{p.Masked().Addr(), last(p)}
		give = all
		if trim && p.Addr().BitLen()-p.Bits() >= 2 {
			give = span{all.first.Next(), all.last.Prev()}
		}
		return all, give, nil
	}
	if all.first, err = address(b.Start); err != nil {
		return all, give, err
	}
	all.last = all.first
	if b.Stop != "" {
		if all.last, err = address(b.Stop); err != nil {
			return all, give, err
		}
	}
	if all.first.Is6() != all.last.Is6() || all.last.Less(all.first) {
		return all, give, fmt.Errorf("%s-%s: want a first and a last address of one IP version", b.Start, b.Stop)
	}
	return all, all, nil
}

func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%q is no address", s)
	}
	if a.Zone() != "" || a.Is4In6() {
		return a, errors.New(s + ": no zones, and IPv4 is written as IPv4")
	}
	return a, nil
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// join sorts spans and makes those one that overlap, so that each address is counted once.
func join(in []span) (out []span) {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b span) int { return a.first.Compare(b.first) })
	for _, s := range in {
		if n := len(out); n > 0 && out[n-1].overlaps(s) {
			if out[n-1].last.Less(s.last) {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}
