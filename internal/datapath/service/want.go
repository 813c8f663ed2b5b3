package service

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

const protoUDP = 17

// named refuses a frontend that no row could have.
func named(f model.Frontend) error {
	if !f.Addr.IsValid() || f.Port == 0 || f.Proto == 0 {
		return fmt.Errorf("frontend %v: want an address, a port and a protocol", f)
	}
	return nil
}

// check refuses what the datapath could not do.
func check(f model.Frontend, b *model.Balance) error {
	for _, all := range [][]model.Backend{b.Slots, b.Keep} {
		for _, x := range all {
			if x.Proto != f.Proto || x.Addr.Unmap().Is4() != f.Addr.Unmap().Is4() || x.Port == 0 {
				return fmt.Errorf("backend %v of protocol %d: want the frontend's IP version and protocol, and a port", to(x), x.Proto)
			}
		}
	}
	for _, x := range b.Table {
		if int(x) >= len(b.Slots) {
			return fmt.Errorf("table leads to slot %d of %d", x, len(b.Slots))
		}
	}
	return nil
}

func to(b model.Backend) netip.AddrPort { return netip.AddrPortFrom(b.Addr.Unmap(), b.Port) }

// slotsOf is the set that a balance wants. Only where flows may stay with their backend (clients with affinity, sockets that
// send datagrams one by one) does it say who its members are.
func slotsOf(f model.Frontend, b *model.Balance) maps.SlotSet {
	s := maps.SlotSet{Slots: make([]maps.Slot, len(b.Slots))}
	for i, x := range b.Slots {
		s.Slots[i] = maps.Slot{To: to(x), Proto: x.Proto}
	}
	if len(s.Slots) > 0 {
		s.Table = b.Table
	}
	if b.Affinity > 0 || f.Proto == protoUDP {
		for _, all := range [][]model.Backend{b.Slots, b.Keep} {
			for _, x := range all {
				s.Members = append(s.Members, to(x))
			}
		}
		slices.SortFunc(s.Members, netip.AddrPort.Compare)
		s.Members = slices.Compact(s.Members)
	}
	return s
}

// slotsKey is the content of a set, digested.
func slotsKey(s maps.SlotSet) string {
	if len(s.Slots)+len(s.Members) == 0 {
		return ""
	}
	const each, most = 16 + 2 + 1, 3 // bytes of a slot, and of any number here
	b := make([]byte, 0, each*(len(s.Slots)+len(s.Members))+most*(2+len(s.Table)))
	b = binary.AppendUvarint(b, uint64(len(s.Slots)))
	for _, x := range s.Slots {
		b = append(appendAddrPort(b, x.To), x.Proto)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Members)))
	for _, x := range s.Members {
		b = appendAddrPort(b, x)
	}
	for _, x := range s.Table {
		b = binary.AppendUvarint(b, uint64(x))
	}
	return digest(b)
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	addr := netip.IPv6Unspecified()
	if a.Addr().IsValid() { // else a gap in what was read
		addr = a.Addr()
	}
	raw := addr.As16()
	return binary.BigEndian.AppendUint16(append(b, raw[:]...), a.Port())
}

// rangesOf are the source prefixes that a balance wants, in one order.
func rangesOf(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// rangesKey is the content of a set of prefixes in that order, digested.
func rangesKey(ps []netip.Prefix) string {
	if len(ps) == 0 {
		return ""
	}
	var b []byte
	for _, p := range ps {
		raw := p.Addr().As16()
		b = append(append(b, raw[:]...), uint8(p.Bits()), uint8(p.Addr().BitLen()))
	}
	return digest(b)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// rowOf is the frontend's row that a balance wants, with these sets.
func rowOf(b *model.Balance, slots, ranges uint32) maps.Frontend {
	row := maps.Frontend{Service: b.ID, Type: b.Type, Slots: slots, Count: uint32(len(b.Slots)), Ranges: ranges,
		Affinity:   uint32((b.Affinity + time.Second - 1) / time.Second),
		RangesDeny: ranges != 0 && b.RangesDeny, Local: b.Local}
	if row.Count > 0 {
		row.Table = uint32(len(b.Table))
	}
	return row
}
