// Package monitor is the raw view of the datapath: every event as it comes, undressed, as `hypha monitor` prints it. A
// listener that does not keep up loses events, learns how many, and holds up nobody.
package monitor

import (
	"sync"

	"github.com/hypha-net/hypha/internal/model"
)

const queue = 4096 // events a listener may lag behind

// Hub hands events to listeners. The zero value is ready.
type Hub struct {
	mu        sync.RWMutex
	listeners map[*Listener]struct{}
}

// Listener receives events in order.
type Listener struct {
	hub    *Hub
	match  func(*model.Event) bool
	events chan model.Event
	lostMu sync.Mutex
	lost   uint64
}

// Listen starts a listener for the events that match. Close it.
func (h *Hub) Listen(match func(*model.Event) bool) *Listener {
	l := &Listener{hub: h, match: match, events: make(chan model.Event, queue)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners == nil {
		h.listeners = map[*Listener]struct{}{}
	}
	h.listeners[l] = struct{}{}
	return l
}

// Send hands ev to whoever wants it. It never blocks.
func (h *Hub) Send(ev *model.Event) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for l := range h.listeners {
		if !l.match(ev) {
			continue
		}
		select {
		case l.events <- *ev:
		default:
			l.lose(1)
		}
	}
}

// Lost tells every listener that the kernel's ring had no room for n events.
func (h *Hub) Lost(n uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for l := range h.listeners {
		l.lose(n)
	}
}

// Events is the listener's queue.
func (l *Listener) Events() <-chan model.Event { return l.events }

// TakeLost returns how many events were lost since the last call.
func (l *Listener) TakeLost() uint64 {
	l.lostMu.Lock()
	defer l.lostMu.Unlock()
	n := l.lost
	l.lost = 0
	return n
}

// Close ends the listener; its channel stays open, so that Send need not be told.
func (l *Listener) Close() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	delete(l.hub.listeners, l)
}

func (l *Listener) lose(n uint64) {
	l.lostMu.Lock()
	defer l.lostMu.Unlock()
	l.lost += n
}
