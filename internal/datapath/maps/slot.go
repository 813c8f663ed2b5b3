package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Slot is a backend in a slot set.
type Slot struct {
	To    netip.AddrPort
	Proto uint8
}

// SlotSet is what a frontend chooses from. A set is never changed once a frontend refers to it.
type SlotSet struct {
	Slots   []Slot
	Table   []uint16         // Maglev table, indexes of Slots; nil: random selection
	Members []netip.AddrPort // with whom clients may stay: sorted, each once; nil: clients do not stay with anybody
}

// PutSlots writes a slot set, complete or not at all. No frontend may refer to its number yet.
func (m *Maps) PutSlots(id uint32, s SlotSet) error {
	slots := make([]layout.LBBackend, len(s.Slots))
	for i, x := range s.Slots {
		slots[i] = layout.LBBackend{Addr: layout.AddrFrom(x.To.Addr()), Port: be16(x.To.Port()), Proto: x.Proto}
	}
	pieces := make([]layout.LBMaglev, pieceCount(s.Table))
	for i, x := range s.Table {
		if int(x) >= len(s.Slots) {
			return m.lbMaglev.failed("write", fmt.Errorf("entry %d of a table leads to slot %d of %d", i, x, len(s.Slots)))
		}
		pieces[i/layout.LBPiece].Index[i%layout.LBPiece] = x
	}
	members := make([]uint8, len(s.Members))
	err := putAll(m.lbSlot, slotKeys(id, s), slots)
	if err == nil {
		err = putAll(m.lbMaglev, maglevKeys(id, s), pieces)
	}
	if err == nil {
		err = putAll(m.lbMember, memberKeys(id, s), members)
	}
	if err != nil {
		return errors.Join(err, m.DeleteSlots(id, s))
	}
	return nil
}

// DeleteSlots removes a slot set. Rows that are not there are no error.
func (m *Maps) DeleteSlots(id uint32, s SlotSet) error {
	return errors.Join(delAll(m.lbSlot, slotKeys(id, s)), delAll(m.lbMaglev, maglevKeys(id, s)), delAll(m.lbMember, memberKeys(id, s)))
}

// SlotSets reads all sets. One whose rows have a gap, of a write that was cut short, has zero values there.
func (m *Maps) SlotSets() (map[uint32]SlotSet, error) {
	out := map[uint32]SlotSet{}
	err := each(m.lbSlot, func(k *layout.LBSlotKey, v *layout.LBBackend) bool {
		s := out[k.Slots]
		s.Slots = grow(s.Slots, int(k.Index)+1)
		s.Slots[k.Index] = slotFrom(v)
		out[k.Slots] = s
		return true
	})
	if err != nil {
		return nil, err
	}
	err = each(m.lbMaglev, func(k *layout.LBMaglevKey, v *layout.LBMaglev) bool {
		s := out[k.Slots]
		at := int(k.Piece) * layout.LBPiece
		s.Table = grow(s.Table, at+layout.LBPiece)
		copy(s.Table[at:], v.Index[:])
		out[k.Slots] = s
		return true
	})
	if err != nil {
		return nil, err
	}
	err = each(m.lbMember, func(k *layout.LBMember, _ *uint8) bool {
		s := out[k.Slots]
		s.Members = append(s.Members, memberFrom(k))
		out[k.Slots] = s
		return true
	})
	for _, s := range out {
		slices.SortFunc(s.Members, netip.AddrPort.Compare)
	}
	return out, err
}

// grow makes a slice at least n long.
func grow[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	return append(s, make([]T, n-len(s))...)
}

func slotFrom(v *layout.LBBackend) Slot {
	return Slot{To: netip.AddrPortFrom(v.Addr.Netip(), be16(v.Port)), Proto: v.Proto}
}

func memberFrom(k *layout.LBMember) netip.AddrPort {
	return netip.AddrPortFrom(k.Addr.Netip(), be16(k.Port))
}

func slotKeys(id uint32, s SlotSet) []layout.LBSlotKey {
	ks := make([]layout.LBSlotKey, len(s.Slots))
	for i := range ks {
		ks[i] = layout.LBSlotKey{Slots: id, Index: uint32(i)}
	}
	return ks
}

func pieceCount(table []uint16) int { return (len(table) + layout.LBPiece - 1) / layout.LBPiece }

func maglevKeys(id uint32, s SlotSet) []layout.LBMaglevKey {
	ks := make([]layout.LBMaglevKey, pieceCount(s.Table))
	for i := range ks {
		ks[i] = layout.LBMaglevKey{Slots: id, Piece: uint32(i)}
	}
	return ks
}

func memberKeys(id uint32, s SlotSet) []layout.LBMember {
	ks := make([]layout.LBMember, len(s.Members))
	for i, x := range s.Members {
		ks[i] = layout.LBMember{Addr: layout.AddrFrom(x.Addr()), Slots: id, Port: be16(x.Port())}
	}
	return ks
}

// cookie reads a cookie in the low half of an address.
func cookie(a *layout.Addr) string { return num(binary.NativeEndian.Uint64(a.B[8:])) }
