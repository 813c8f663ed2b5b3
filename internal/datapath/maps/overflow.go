package maps

import (
	"errors"
	"fmt"
	"slices"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// A list of more entries than a value holds becomes rows of an LPM trie, where order means nothing and the longest
// prefix of the port wins. So the order is resolved here: for each protocol that the list names, entries of that
// protocol and of any protocol are laid over the ports, first come first served, and each port range that results
// is written as port prefixes. Protocols that the list does not name are left to the first any-protocol entry.
//
// Beside these rows the list itself is stored as it is, one row an entry, under a direction that no lookup asks for
// (dirStored), the entry's place in the port field. So it can be read back exactly.

const dirStored = 2 // bit of policy_overflow_key.dir

type (
	layoutKey   = layout.PolicyKey
	overflowKey = layout.PolicyOverflowKey
)

// span is a range of ports, inclusive.
type span struct{ lo, hi uint32 }

const lastPort = 1<<16 - 1

// overflowRows are the rows that stand for a long list.
func overflowRows(k model.PolicyKey, list []model.PolicyEntry) (map[overflowKey]layout.PolicyEntry, error) {
	if len(list) > lastPort {
		return nil, fmt.Errorf("policy list of %d entries: at most %d", len(list), lastPort)
	}
	rows := map[overflowKey]layout.PolicyEntry{}
	key := func(dir, proto uint8, port uint16, bits uint32) overflowKey {
		return overflowKey{Prefixlen: layout.PolicyOverflowAnyPort + bits, Set: uint32(k.Set), Class: uint32(k.Class),
			Dir: dir, Proto: proto, Port: be16(port)}
	}
	dir := uint8(k.Dir)
	var protos []uint8
	for i, e := range list {
		rows[key(dir|dirStored, 0, uint16(i), 16)] = entryTo(e)
		if !slices.Contains(protos, e.Proto) {
			protos = append(protos, e.Proto)
		}
	}
	for _, proto := range protos {
		if proto == 0 {
			first := slices.IndexFunc(list, func(e model.PolicyEntry) bool { return e.Proto == 0 })
			rows[key(dir, 0, 0, 0)] = entryTo(list[first])
			continue
		}
		free := []span{{0, lastPort}}
		for _, e := range list {
			want := span{uint32(e.PortLo), uint32(e.PortHi)}
			switch e.Proto {
			case proto:
			case 0:
				want = span{0, lastPort}
			default:
				continue
			}
			if want == (span{0, lastPort}) { // all that is left: a shorter prefix than every other row
				rows[key(dir, proto, 0, 0)] = entryTo(e)
				break
			}
			var got []span
			free, got = take(free, want)
			for _, s := range got {
				for _, p := range prefixes(s) {
					rows[key(dir, proto, p.port, p.bits)] = entryTo(e)
				}
			}
		}
	}
	return rows, nil
}

// take splits the free spans into those outside and those inside want.
func take(free []span, want span) (left, got []span) {
	for _, f := range free {
		lo, hi := max(f.lo, want.lo), min(f.hi, want.hi)
		if lo > hi {
			left = append(left, f)
			continue
		}
		got = append(got, span{lo, hi})
		if f.lo < lo {
			left = append(left, span{f.lo, lo - 1})
		}
		if hi < f.hi {
			left = append(left, span{hi + 1, f.hi})
		}
	}
	return left, got
}

type portPrefix struct {
	port uint16
	bits uint32 // leading bits of port that count
}

// prefixes are the fewest prefixes that cover a span and nothing else.
func prefixes(s span) []portPrefix {
	var out []portPrefix
	for lo := s.lo; lo <= s.hi; {
		bits, size := uint32(16), uint32(1)
		for bits > 0 && lo&(2*size-1) == 0 && lo+2*size-1 <= s.hi {
			bits, size = bits-1, 2*size
		}
		out = append(out, portPrefix{uint16(lo), bits})
		lo += size
	}
	return out
}

// indexOverflow reads which rows there are, and removes those that no list points to: a write that was cut short.
func (m *Maps) indexOverflow() error {
	err := each(m.overflow, func(k *overflowKey, _ *layout.PolicyEntry) bool {
		m.index(listOf(k))[*k] = struct{}{}
		return true
	})
	if err != nil {
		return err
	}
	for k := range m.long {
		v, ok, err := get[layoutKey, layout.PolicyValue](m.policy, k)
		if err != nil {
			return err
		}
		if ok && v.Flags&layout.PolicyOverflow != 0 {
			continue
		}
		if err := m.dropOverflow(k, nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *Maps) index(k layoutKey) map[overflowKey]struct{} {
	if m.long[k] == nil {
		m.long[k] = map[overflowKey]struct{}{}
	}
	return m.long[k]
}

func listOf(k *overflowKey) layoutKey {
	return layoutKey{Set: k.Set, Class: k.Class, Dir: uint32(k.Dir &^ dirStored)}
}

// putOverflow writes the rows of a list and then removes what was there before. When that fails, the rows that it
// added are gone again.
func (m *Maps) putOverflow(k layoutKey, rows map[overflowKey]layout.PolicyEntry) error {
	have := m.index(k)
	var added []overflowKey
	for rk, rv := range rows {
		if err := put(m.overflow, rk, rv); err != nil {
			for _, a := range added {
				delete(have, a)
			}
			return errors.Join(err, delAll(m.overflow, added))
		}
		if _, ok := have[rk]; !ok {
			have[rk] = struct{}{}
			added = append(added, rk)
		}
	}
	return m.dropOverflow(k, rows)
}

// dropOverflow removes the rows of a list but those to keep.
func (m *Maps) dropOverflow(k layoutKey, keep map[overflowKey]layout.PolicyEntry) error {
	have := m.long[k]
	var gone []overflowKey
	for rk := range have {
		if _, ok := keep[rk]; !ok {
			gone = append(gone, rk)
		}
	}
	if err := delAll(m.overflow, gone); err != nil {
		return err
	}
	for _, rk := range gone {
		delete(have, rk)
	}
	if len(have) == 0 {
		delete(m.long, k)
	}
	return nil
}

// storedList reads a long list back as it was given.
func (m *Maps) storedList(k layoutKey) ([]model.PolicyEntry, error) {
	byPlace := map[int]model.PolicyEntry{}
	for rk := range m.long[k] {
		if rk.Dir&dirStored == 0 {
			continue
		}
		v, ok, err := get[overflowKey, layout.PolicyEntry](m.overflow, rk)
		if err != nil {
			return nil, err
		}
		if ok {
			byPlace[int(be16(rk.Port))] = entryFrom(&v)
		}
	}
	out := make([]model.PolicyEntry, len(byPlace))
	for i := range out {
		e, ok := byPlace[i]
		if !ok {
			return nil, fmt.Errorf("read %s: list of set %d class %d has a gap at entry %d", m.overflow.name, k.Set, k.Class, i)
		}
		out[i] = e
	}
	return out, nil
}
