package maps

import (
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// Status describes one map.
type Status struct {
	Name, Type, Pin    string
	Entries            uint32 // rows in use; of an array, all
	MaxEntries         uint32
	KeySize, ValueSize uint32
	Writes             uint64 // rows written or deleted since Open
	Errors             uint64 // writes that failed since Open
	LastErr            error
}

// List describes all maps, by name. It counts rows, so it costs a walk of each map.
func (m *Maps) List() ([]Status, error) {
	var out []Status
	for _, name := range slices.Sorted(maps.Keys(m.byName)) {
		h := m.byName[name]
		s := Status{Name: name, Type: h.Type().String(), Pin: h.pin, MaxEntries: h.MaxEntries(), KeySize: h.KeySize(),
			ValueSize: h.ValueSize()}
		n, err := m.count(h)
		if err != nil {
			return nil, err
		}
		s.Entries, s.Writes = n, h.writes.Load()
		h.mu.Lock()
		s.Errors, s.LastErr = h.errors, h.lastErr
		h.mu.Unlock()
		out = append(out, s)
	}
	return out, nil
}

// count counts the rows of a hash or trie; an array always has all of them.
func (m *Maps) count(h *handle) (uint32, error) {
	switch h.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.DevMapHash:
	default:
		return h.MaxEntries(), nil
	}
	var n uint32
	err := m.dump(h.name, nil, func() bool { n++; return true })
	return n, err
}
