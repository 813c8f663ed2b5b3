package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// ParseCIDR reads a CIDR, or an address, which is one of its own, and takes the bits behind the prefix away. An IPv4 range in
// the form of IPv6 is refused: one and the same range has one spelling.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR: want 192.0.2.0/24, 2001:db8::/32 or an address", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 range in the form of IPv6: write it as IPv4", s)
	}
	return p.Masked(), nil
}

// CompareCIDRs orders prefixes by address, the wider one first.
func CompareCIDRs(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// SortCIDRs puts prefixes in order, each once. It uses the slice that it gets.
func SortCIDRs(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, CompareCIDRs)
	return slices.Compact(ps)
}

// DiffCIDRs says which prefixes of two sorted lists only the first has, and which only the second.
func DiffCIDRs(a, b []netip.Prefix) (onlyA, onlyB []netip.Prefix) {
	for len(a) > 0 && len(b) > 0 {
		switch c := CompareCIDRs(a[0], b[0]); {
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case c > 0:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}
