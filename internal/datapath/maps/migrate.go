package maps

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// migrate replaces the pinned map `have` by one of the wanted size that holds the same rows. The pin moves over by
// rename, so at every moment it leads to a map with all rows. Programs in force keep using `have`.
func (m *Maps) migrate(h *handle, have *ebpf.Map, spec *ebpf.MapSpec) (err error) {
	if have.Type() != spec.Type || have.KeySize() != spec.KeySize || have.ValueSize() != spec.ValueSize {
		return fmt.Errorf("pinned map %s has another layout (%s, key %d, value %d; want %s, %d, %d): "+
			"it was made by another version; stop the agent and run `hypha cleanup` on this node",
			h.pin, have.Type(), have.KeySize(), have.ValueSize(), spec.Type, spec.KeySize, spec.ValueSize)
	}
	next, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("create map %s: %w", spec.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, next.Close())
		}
	}()
	n, err := copyRows(spec.Name, next, have, ebpf.UpdateAny)
	if err != nil {
		if errors.Is(err, unix.E2BIG) {
			err = fmt.Errorf("it holds more rows than the %d now wanted (raise the size): %w", spec.MaxEntries, err)
		}
		return fmt.Errorf("resize map %s from %d to %d rows: %w", spec.Name, have.MaxEntries(), spec.MaxEntries, err)
	}
	tmp := h.pin + "_new" // bpffs allows no dot
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove left-over pin: %w", err)
	}
	if err := next.Pin(tmp); err != nil {
		return fmt.Errorf("pin map %s: %w", spec.Name, err)
	}
	if err := os.Rename(tmp, h.pin); err != nil {
		return errors.Join(fmt.Errorf("replace pin of map %s: %w", spec.Name, err), os.Remove(tmp))
	}
	m.log.Info("Resized a map", "map", spec.Name, "from", have.MaxEntries(), "to", spec.MaxEntries, "rows", n)
	h.Map, h.old = next, have
	return nil
}

// Settle ends migrations once no program uses the old maps any more: rows that the datapath wrote to them meanwhile
// are copied, where the new map has none.
func (m *Maps) Settle() error {
	var failed error
	for _, h := range m.byName {
		if h.old == nil {
			continue
		}
		if h.old.Type() == ebpf.LRUHash {
			if _, err := copyRows(h.name, h.Map, h.old, ebpf.UpdateNoExist); err != nil {
				failed = errors.Join(failed, h.failed("settle", err))
			}
		}
		failed = errors.Join(failed, h.old.Close())
		h.old = nil
	}
	return failed
}

// copyRows copies all rows; with UpdateNoExist those that are there already stay. Maps of maps hold the id of the
// inner map when read and take its descriptor when written; they are not copied here.
func copyRows(name string, to, from *ebpf.Map, flag ebpf.MapUpdateFlags) (int, error) {
	switch from.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.Array:
	default:
		return 0, nil
	}
	n := 0
	k, v := make([]byte, from.KeySize()), make([]byte, from.ValueSize())
	it := from.Iterate()
	for it.Next(&k, &v) {
		err := to.Update(k, v, flag)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return n, err
		}
		n++
	}
	// An LRU table that changes under the walk can make it start over for ever: the walk gives up, and what it did
	// not see are rows that were new while it ran.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return n, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}
