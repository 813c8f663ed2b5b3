package table

import (
	"encoding/binary"
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// String encodes a string key.
func String(s string) []byte { return []byte(s) }

// Uint encodes an unsigned number so that byte order is numeric order.
func Uint[N ~uint16 | ~uint32 | ~uint64](n N) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(n))
}

// Addr encodes an address: version, address.
func Addr(a netip.Addr) []byte {
	b := []byte{4}
	if a.Is6() {
		b[0] = 6
	}
	return append(b, a.AsSlice()...)
}

// Prefix encodes a prefix: version, address, length.
func Prefix(p netip.Prefix) []byte { return append(Addr(p.Addr()), byte(p.Bits())) }

// Frontend encodes a frontend: version, address, port, protocol, scope.
func Frontend(f model.Frontend) []byte {
	b := make([]byte, 1, 21)
	b[0] = 4
	if f.Addr.Is6() {
		b[0] = 6
	}
	a := f.Addr.As16()
	b = binary.BigEndian.AppendUint16(append(b, a[:]...), f.Port)
	return append(b, f.Proto, byte(f.Scope))
}
