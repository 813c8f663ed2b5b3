package service

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

// crowd is n backends, from number first on.
func crowd(first, n int) []model.Backend {
	out := make([]model.Backend, n)
	for i := range out {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24+uint32(first+i))
		out[i] = model.Backend{Addr: netip.AddrFrom4(a), Port: 8080, Proto: model.ProtoTCP}
	}
	return out
}

func TestTableSizesArePrime(t *testing.T) {
	for _, m := range TableSizes {
		for d := uint32(2); d*d <= m; d++ {
			if m%d == 0 {
				t.Errorf("%d = %d * %d", m, d, m/d)
			}
		}
	}
}

// Two nodes that know the same backends in any order choose the same one for each place; with another seed they do not.
func TestMaglevAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := model.Service{Backends: crowd(0, rapid.IntRange(2, 60).Draw(t, "n")), Select: model.SelectMaglev}
		for i := range s.Backends {
			s.Backends[i].Weight = rapid.Uint16Range(0, 5).Draw(t, "weight")
		}
		s.Frontend = model.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: model.ProtoTCP}
		other := s
		other.Backends = rapid.Permutation(s.Backends).Draw(t, "order")
		b := Balancer{Size: 251}
		x, y := b.Balance(&s, nil)[0], b.Balance(&other, nil)[0]
		if len(x.Table) != 251 {
			t.Fatalf("%d places", len(x.Table))
		}
		for i := range x.Table {
			if int(x.Table[i]) >= len(x.Slots) || x.Slots[x.Table[i]] != y.Slots[y.Table[i]] {
				t.Fatalf("place %d: %v here, %v there", i, x.Table[i], y.Table[i])
			}
		}
	})
	backends := crowd(0, 100)
	if slices.Equal(Maglev(backends, 16381, Seed{}), Maglev(backends, 16381, Seed{1})) {
		t.Error("the seed changes nothing")
	}
	if Maglev(nil, 251, Seed{}) != nil {
		t.Error("a table of nobody")
	}
}

// Places are shared as the weights say: among equals nobody has one more than another, whatever the size.
func TestMaglevDistribution(t *testing.T) {
	for _, m := range TableSizes {
		for _, n := range []int{1, 2, 3, 10, 100} {
			backends := crowd(0, n)
			count := make([]int, n)
			for _, i := range Maglev(backends, m, Seed{}) {
				count[i]++
			}
			if slices.Max(count)-slices.Min(count) > 1 {
				t.Errorf("%d places for %d: %d to %d each", m, n, slices.Min(count), slices.Max(count))
			}
		}
	}
	backends := crowd(0, 3)
	for i, w := range []uint16{0, 2, 7} { // 0 counts as 1
		backends[i].Weight = w
	}
	count := make([]int, 3)
	for _, i := range Maglev(backends, 16381, Seed{}) {
		count[i]++
	}
	for i, want := range []int{1638, 3276, 11467} {
		if d := count[i] - want; d < -2 || d > 2 {
			t.Errorf("backend %d has %d places, want about %d", i, count[i], want)
		}
	}
}

// When one of n backends goes, the places it had move; of the others' few do: below 2 % at a hundred places each.
func TestMaglevDisruption(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const m, n = 16381, 160
	all := crowd(0, n)
	before := Maglev(all, m, Seed{})
	for range 10 {
		gone := r.IntN(n)
		left := slices.Delete(slices.Clone(all), gone, gone+1)
		moved := 0
		for i, b := range Maglev(left, m, Seed{}) {
			if old := before[i]; int(old) != gone && all[old] != left[b] {
				moved++
			}
		}
		if limit := m * 2 / 100; moved > limit {
			t.Errorf("without backend %d, %d of %d places of others have moved; want at most %d", gone, moved, m, limit)
		}
	}
}

// More backends than places: the table is full, and names only those there are.
func TestMaglevCrowded(t *testing.T) {
	table := Maglev(crowd(0, 1000), 251, Seed{})
	slices.Sort(table)
	if n := len(slices.Compact(table)); n != 251 || table[250] >= 1000 {
		t.Errorf("%d backends in 251 places", n)
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("backends=%d/M=16381", n), func(b *testing.B) {
			backends := crowd(0, n)
			for b.Loop() {
				Maglev(backends, DefaultTableSize, Seed{})
			}
		})
	}
}
