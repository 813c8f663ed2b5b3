package table

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Orders of keys.

// String is the order of bytes.
func String(a, b string) int { return strings.Compare(a, b) }

// Uint is the order of numbers.
func Uint[N ~uint16 | ~uint32 | ~uint64](a, b N) int { return cmp.Compare(a, b) }

// Addr is the order of addresses: IPv4 first.
func Addr(a, b netip.Addr) int { return a.Compare(b) }

// Prefix is the order of prefixes: by address, wider ones first.
func Prefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Frontend is the order of frontends: by address, port, protocol, scope.
func Frontend(a, b model.Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Scope, b.Scope))
}
