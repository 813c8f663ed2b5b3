package maps

import (
	"encoding/binary"
	"fmt"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Epoch reads the policy epoch: verdicts on record from an earlier one are asked again.
func (m *Maps) Epoch() (uint32, error) {
	s, err := m.readState()
	return s.Epoch, err
}

// BumpEpoch starts a new policy epoch.
func (m *Maps) BumpEpoch() error { return m.changeState(func(s *layout.State) { s.Epoch++ }) }

// SetAudit turns audit mode for all endpoints on or off, and starts a new epoch when that changes something.
func (m *Maps) SetAudit(on bool) error {
	return m.changeState(func(s *layout.State) {
		was := s.Flags
		s.Flags &^= layout.StateAudit
		if on {
			s.Flags |= layout.StateAudit
		}
		if s.Flags != was {
			s.Epoch++
		}
	})
}

// Audit says whether audit mode is on for all endpoints.
func (m *Maps) Audit() (bool, error) {
	s, err := m.readState()
	return s.Flags&layout.StateAudit != 0, err
}

func (m *Maps) readState() (layout.State, error) {
	s, ok, err := get[uint32, layout.State](m.state, 0)
	if err == nil && !ok {
		err = fmt.Errorf("read %s: no row", m.state.name)
	}
	return s, err
}

func (m *Maps) changeState(fn func(*layout.State)) error {
	m.stateMu.Lock()
	defer m.stateMu.Unlock()
	s, err := m.readState()
	if err != nil {
		return err
	}
	was := s
	if fn(&s); s == was {
		return nil
	}
	return put(m.state, uint32(0), s)
}

// be16 turns a number into network byte order as it lies in memory, and back.
func be16(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}
