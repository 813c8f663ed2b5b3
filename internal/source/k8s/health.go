package k8s

import (
	"fmt"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/fault"
)

// Status says how the API server is, for `hypha status`.
type Status struct {
	Server    string    `json:"server"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of the last change of Connected
	Complete  bool      `json:"complete"`
	Pending   int       `json:"pending"`           // objects still to be written or removed
	Awaited   int       `json:"awaited,omitempty"` // endpoints of other nodes that are in no slice yet, for which it waits to be complete
	Err       string    `json:"error,omitempty"`
}

// health remembers how the last requests of each watch went.
type health struct {
	away *fault.Fault

	mu    sync.Mutex
	asked bool
	bad   map[string]error // by resource
	since time.Time
}

func newHealth(s *Store) *health {
	return &health{away: fault.New(s.log, "the API server does not answer, carrying on with what is known", "the API server answers again"),
		bad: map[string]error{}, since: time.Now()}
}

// note tells how a request went.
func (h *health) note(resource string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := len(h.bad) == 0
	if err != nil {
		h.bad[resource] = fmt.Errorf("%s: %w", resource, err)
	} else {
		delete(h.bad, resource)
	}
	if now := len(h.bad) == 0; !h.asked || now != was {
		h.since = time.Now()
	}
	h.asked = true
	h.away.Note(h.err())
}

// err is one of what is wrong; mu is held.
func (h *health) err() (err error) {
	for _, e := range h.bad {
		if err == nil || e.Error() < err.Error() {
			err = e
		}
	}
	return err
}

// Status tells how the API server is, from what is known: it asks nothing.
func (s *Store) Status() Status {
	st := Status{Server: s.server, Complete: s.complete(), Pending: s.nodes.writer.pending() + s.endpoints.writer.pending()}
	if k := s.endpoints.sliced; k != nil {
		st.Awaited = int(k.awaited.Load())
	}
	h := s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Connected, st.Since = h.asked && len(h.bad) == 0, h.since
	if err := h.err(); err != nil {
		st.Err = err.Error()
	} else if err := s.nodes.writer.fault.Err(); err != nil {
		st.Err = err.Error()
	} else if err := s.endpoints.writer.fault.Err(); err != nil {
		st.Err = err.Error()
	}
	return st
}
