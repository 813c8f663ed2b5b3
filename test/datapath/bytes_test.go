package datapath_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

func same(want, got []byte) error {
	if bytes.Equal(want, got) {
		return nil
	}
	for i := range want {
		if i >= len(got) || want[i] != got[i] {
			return fmt.Errorf("byte %d differs\nwant % x\ngot  % x", i, want, got)
		}
	}
	return fmt.Errorf("%d bytes, want %d", len(got), len(want))
}

// sums are the places of a packet's checksums, and what their bytes add up to.
type sums struct {
	at     []int
	totals []uint16
	none   bool // UDP without one
}

func sumsOf(frame []byte) (s sums) {
	p, why := read(frame)
	if why != 0 {
		return s
	}
	if p.complaint && p.unquote() == 0 && p.v == 0 {
		s.at = append(s.at, p.quote+10)
		s.totals = append(s.totals, total(frame[p.quote:p.quote+20]))
	}
	pseudo := []byte{0, 0, byte(p.n >> 8), byte(p.n), 0, 0, 0, p.proto}
	if p.v == 0 {
		s.at = append(s.at, ether+10)
		s.totals = append(s.totals, total(frame[ether:p.l4]))
		pseudo = append(pseudo, frame[ether+12:ether+20]...)
	} else {
		pseudo = append(pseudo, frame[ether+8:ether+40]...)
	}
	at, ok := map[uint8]int{tcp: 16, udp: 6, icmp4: 2, icmp6: 2}[p.proto]
	if !ok || !p.known {
		return s
	}
	if p.proto == icmp4 {
		pseudo = nil
	}
	at += p.l4
	s.none = p.proto == udp && be16(frame[at:]) == 0
	if !s.none {
		s.at = append(s.at, at)
		s.totals = append(s.totals, total(pseudo, frame[p.l4:p.l4+p.n]))
	}
	return s
}

// rewritten compares a packet that goes on with what it must be, and its checksums with those it came with: as right, or
// as wrong, as they were.
func rewritten(in, want, got []byte) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d bytes, want %d", len(got), len(want))
	}
	before, after := sumsOf(in), sumsOf(got)
	if !slices.Equal(before.at, after.at) {
		return errors.Join(errors.New("checksums are elsewhere"), same(want, got))
	}
	w, g := slices.Clone(want), slices.Clone(got)
	for i, at := range before.at {
		if before.totals[i]%0xffff != after.totals[i]%0xffff {
			return fmt.Errorf("the checksum at %d was off by %#x, now by %#x\nin  % x\nout % x", at, before.totals[i], after.totals[i], in, got)
		}
		w[at], w[at+1], g[at], g[at+1] = 0, 0, 0, 0
	}
	return same(w, g)
}

// wipe empties a map.
func wipe[K, V any](m *ebpf.Map) error {
	var keys []K
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		keys = append(keys, k)
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
