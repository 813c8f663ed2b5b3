package endpoint

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

// LogEntry is something that happened to an endpoint.
type LogEntry struct {
	Time    time.Time
	State   model.EndpointState // that it was in then
	Failed  bool
	Message string
}

const journalLen = 64 // entries kept per endpoint

// journal remembers what happened to each endpoint that exists.
type journal struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[uint16][]LogEntry
}

func (j *journal) note(id uint16, s model.EndpointState, format string, args ...any) {
	j.add(id, LogEntry{State: s, Message: fmt.Sprintf(format, args...)})
}

func (j *journal) fail(id uint16, s model.EndpointState, err error) {
	j.add(id, LogEntry{State: s, Failed: true, Message: err.Error()})
}

func (j *journal) add(id uint16, e LogEntry) {
	e.Time = j.now()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.m == nil {
		j.m = map[uint16][]LogEntry{}
	}
	l := append(j.m[id], e)
	if len(l) > journalLen {
		l = slices.Delete(l, 0, len(l)-journalLen)
	}
	j.m[id] = l
}

func (j *journal) forget(id uint16) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.m, id)
}

// Log is what happened to an endpoint, oldest first, as far back as it is remembered.
func (m *Manager) Log(id uint16) ([]LogEntry, error) {
	if _, ok := m.tab.Get(id); !ok {
		return nil, fmt.Errorf("endpoint %d: %w", id, ErrNotFound)
	}
	m.journal.mu.Lock()
	defer m.journal.mu.Unlock()
	return slices.Clone(m.journal.m[id]), nil
}
