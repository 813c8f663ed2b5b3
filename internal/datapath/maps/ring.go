package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// openRings adopts the event ring of every possible CPU from the outer map, or makes it. A ring of another size than
// wanted is replaced; what it still holds is not read any more.
func (m *Maps) openRings(spec *ebpf.MapSpec) error {
	for cpu := range m.events.MaxEntries() {
		ring, err := m.openRing(cpu, spec)
		if err != nil {
			return fmt.Errorf("open event ring of CPU %d: %w", cpu, err)
		}
		m.rings = append(m.rings, ring)
	}
	return nil
}

func (m *Maps) openRing(cpu uint32, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	var id ebpf.MapID
	err := m.events.Lookup(&cpu, &id)
	if err == nil {
		ring, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		if ring.MaxEntries() == spec.MaxEntries {
			return ring, nil
		}
		if err := ring.Close(); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, err
	}
	ring, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	if err := m.events.Update(&cpu, ring, ebpf.UpdateAny); err != nil {
		return nil, errors.Join(err, ring.Close())
	}
	return ring, nil
}

// Rings are the event rings by CPU. They stay m's.
func (m *Maps) Rings() []*ebpf.Map { return m.rings }
