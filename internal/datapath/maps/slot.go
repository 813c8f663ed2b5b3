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
	if err := m.PutSlotSets([]uint32{id}, []SlotSet{s}); err != nil {
		return errors.Join(err, m.DeleteSlots(id, s))
	}
	return nil
}

// PutSlotSets is PutSlots for many sets at once, their numbers in the same order. When it fails, what it has written of them stays.
func (m *Maps) PutSlotSets(ids []uint32, sets []SlotSet) error {
	var slots, pieces, members int
	for _, s := range sets {
		slots, pieces, members = slots+len(s.Slots), pieces+pieceCount(s.Table), members+len(s.Members)
	}
	slot := newBatch[layout.LBSlotKey, layout.LBBackend](slots)
	maglev := newBatch[layout.LBMaglevKey, layout.LBMaglev](pieces)
	member := newBatch[layout.LBMember, uint8](members)
	for n, s := range sets {
		id := ids[n]
		for i, x := range s.Slots {
			slot.add(slotKey(id, i), layout.LBBackend{Addr: layout.AddrFrom(x.To.Addr()), Port: be16(x.To.Port()), Proto: x.Proto})
		}
		for i, x := range s.Table {
			if int(x) >= len(s.Slots) {
				return m.lbMaglev.failed("write", fmt.Errorf("entry %d of a table leads to slot %d of %d", i, x, len(s.Slots)))
			}
		}
		for i := range pieceCount(s.Table) {
			var piece layout.LBMaglev
			copy(piece.Index[:], s.Table[i*layout.LBPiece:])
			maglev.add(maglevKey(id, i), piece)
		}
		for _, x := range s.Members {
			member.add(memberKey(id, x), 0)
		}
	}
	err := slot.put(m.lbSlot)
	if err == nil {
		err = maglev.put(m.lbMaglev)
	}
	if err == nil {
		err = member.put(m.lbMember)
	}
	return err
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

func slotKey(id uint32, i int) layout.LBSlotKey {
	return layout.LBSlotKey{Slots: id, Index: uint32(i)}
}

func slotKeys(id uint32, s SlotSet) []layout.LBSlotKey {
	ks := make([]layout.LBSlotKey, len(s.Slots))
	for i := range ks {
		ks[i] = slotKey(id, i)
	}
	return ks
}

func pieceCount(table []uint16) int { return (len(table) + layout.LBPiece - 1) / layout.LBPiece }

func maglevKey(id uint32, i int) layout.LBMaglevKey {
	return layout.LBMaglevKey{Slots: id, Piece: uint32(i)}
}

func maglevKeys(id uint32, s SlotSet) []layout.LBMaglevKey {
	ks := make([]layout.LBMaglevKey, pieceCount(s.Table))
	for i := range ks {
		ks[i] = maglevKey(id, i)
	}
	return ks
}

func memberKey(id uint32, x netip.AddrPort) layout.LBMember {
	return layout.LBMember{Addr: layout.AddrFrom(x.Addr()), Slots: id, Port: be16(x.Port())}
}

func memberKeys(id uint32, s SlotSet) []layout.LBMember {
	ks := make([]layout.LBMember, len(s.Members))
	for i, x := range s.Members {
		ks[i] = memberKey(id, x)
	}
	return ks
}

// cookie reads a cookie in the low half of an address.
func cookie(a *layout.Addr) string { return num(binary.NativeEndian.Uint64(a.B[8:])) }
