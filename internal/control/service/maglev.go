package service

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// TableSizes are the published sizes of Maglev tables, primes all. The table should be a hundred times as long as there are
// backends of one service.
var TableSizes = []uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071}

// DefaultTableSize is the length where nothing else is configured.
const DefaultTableSize = 16381

// Seed makes tables of one cluster differ from another's; nodes of one cluster need the same.
type Seed [12]byte

// turn is one backend on its walk through its own permutation of the table.
type turn struct {
	next, skip     uint32
	weight, credit uint64
}

// Maglev fills a table of a prime length m with indexes of backends: each backend gets places as its weight says, in an order of
// its own, so that a change of some backends moves few places of the others (Eisenbud and others, "Maglev", section 3.4). The
// backends must be in the order that Balance gives them, and MaxBackends at most. With more backends than places, some get none.
func Maglev(backends []model.Backend, m uint32, seed Seed) []uint16 {
	if len(backends) == 0 {
		return nil
	}
	turns := make([]turn, len(backends))
	var heaviest uint64
	for i := range backends {
		b := &backends[i]
		h1, h2 := hash(b, seed)
		turns[i] = turn{next: uint32(h1 % uint64(m)), skip: uint32(h2%uint64(m-1)) + 1, weight: weight(b)}
		heaviest = max(heaviest, turns[i].weight)
	}
	const free = ^uint16(0) // more than MaxBackends
	table := slices.Repeat([]uint16{free}, int(m))
	for left := m; ; {
		for i := range turns {
			t := &turns[i]
			if t.credit += t.weight; t.credit < heaviest {
				continue
			}
			t.credit -= heaviest
			for table[t.next] != free {
				t.step(m)
			}
			table[t.next] = uint16(i)
			t.step(m)
			if left--; left == 0 {
				return table
			}
		}
	}
}

func (t *turn) step(m uint32) {
	if t.next += t.skip; t.next >= m {
		t.next -= m
	}
}

func weight(b *model.Backend) uint64 { return max(1, uint64(b.Weight)) }

// hash is where a backend begins and how far it steps, from its address alone: the same on every node.
func hash(b *model.Backend, seed Seed) (h1, h2 uint64) {
	var buf [len(seed) + 16 + 3]byte
	n := copy(buf[:], seed[:])
	a := b.Addr.As16()
	n += copy(buf[n:], a[:])
	binary.BigEndian.PutUint16(buf[n:], b.Port)
	buf[n+2] = b.Proto
	sum := sha256.Sum256(buf[:])
	return binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])
}
