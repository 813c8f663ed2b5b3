// Package ring keeps the newest events in a fixed number of slots. One writer at a time never waits for a reader; readers
// take no lock, each at its own pace, and learn exactly how many events were overwritten before they came to them.
package ring

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Ring holds the last Cap values written. See New.
type Ring[T any] struct {
	slots []atomic.Pointer[slot[T]]
	mask  uint64

	mu      sync.Mutex    // writers, and the wake channel
	next    atomic.Uint64 // sequence number of the next value, from 0: also the count of all written
	waiters atomic.Int32
	wake    chan struct{} // closed and replaced by a write when there are waiters
}

type slot[T any] struct {
	seq   uint64
	value T
}

// New makes a ring that keeps capacity values, a power of two less one (1, 3, 7, ... 4095, ...): one slot is always
// the one being written.
func New[T any](capacity int) (*Ring[T], error) {
	n := uint64(capacity) + 1
	if capacity < 1 || n&(n-1) != 0 || n > 1<<24 {
		return nil, fmt.Errorf("ring capacity %d: want a power of two less one, from 1 to %d", capacity, 1<<24-1)
	}
	return &Ring[T]{slots: make([]atomic.Pointer[slot[T]], n), mask: n - 1, wake: make(chan struct{})}, nil
}

// Cap is how many values are kept.
func (r *Ring[T]) Cap() int { return len(r.slots) - 1 }

// Len is how many values are there now.
func (r *Ring[T]) Len() int { return int(min(r.next.Load(), uint64(r.Cap()))) }

// Written is how many values were ever written; the next one gets this sequence number.
func (r *Ring[T]) Written() uint64 { return r.next.Load() }

// Oldest is the sequence number of the oldest value still there.
func (r *Ring[T]) Oldest() uint64 {
	if n := r.next.Load(); n > uint64(r.Cap()) {
		return n - uint64(r.Cap())
	}
	return 0
}

// Write appends v, overwriting the oldest value if the ring is full.
func (r *Ring[T]) Write(v T) {
	r.mu.Lock()
	n := r.next.Load()
	r.slots[n&r.mask].Store(&slot[T]{seq: n, value: v})
	r.next.Store(n + 1)
	if r.waiters.Load() > 0 {
		close(r.wake)
		r.wake = make(chan struct{})
	}
	r.mu.Unlock()
}

// Get returns the value with a sequence number. It is false for one that is overwritten or not yet written.
func (r *Ring[T]) Get(seq uint64) (v T, ok bool) {
	if n := r.next.Load(); seq >= n || n-seq > uint64(r.Cap()) {
		return v, false
	}
	s := r.slots[seq&r.mask].Load()
	if s == nil || s.seq != seq {
		return v, false
	}
	return s.value, true
}

// Reader walks forward through a ring.
type Reader[T any] struct {
	ring *Ring[T]
	seq  uint64
}

// Reader starts at a sequence number.
func (r *Ring[T]) Reader(seq uint64) *Reader[T] { return &Reader[T]{ring: r, seq: seq} }

// Pos is the sequence number of what Next looks at next.
func (r *Reader[T]) Pos() uint64 { return r.seq }

// Next returns the next value. lost > 0 says that so many were overwritten before; then there is no value and the
// reader stands at the oldest one left. Neither a value nor a loss: the reader has caught up.
func (r *Reader[T]) Next() (v T, lost uint64, ok bool) {
	for {
		if v, ok = r.ring.Get(r.seq); ok {
			r.seq++
			return v, 0, true
		}
		if r.seq >= r.ring.Written() {
			return v, 0, false
		}
		if oldest := r.ring.Oldest(); oldest > r.seq {
			lost, r.seq = oldest-r.seq, oldest
			return v, lost, false
		}
	}
}

// Wait returns nil once Next has something to tell, or the error of ctx.
func (r *Reader[T]) Wait(ctx context.Context) error {
	r.ring.waiters.Add(1)
	defer r.ring.waiters.Add(-1)
	for {
		r.ring.mu.Lock()
		wake := r.ring.wake
		r.ring.mu.Unlock()
		if r.seq < r.ring.Written() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}
