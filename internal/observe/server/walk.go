package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hypha-net/hypha/internal/observe/ring"
)

// query is which part of a ring a client wants.
type query struct {
	number        uint64 // at most so many of the newest (first: oldest); 0 = all
	first, follow bool
	since, until  time.Time // zero = open
}

// asker is what the three requests have in common.
type asker interface {
	GetNumber() uint64
	GetFirst() bool
	GetFollow() bool
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
}

func newQuery(r asker) (query, error) {
	q := query{number: r.GetNumber(), first: r.GetFirst(), follow: r.GetFollow()}
	if q.first && q.follow {
		return q, errors.New("first and follow exclude each other: the oldest events do not become more")
	}
	for _, t := range []struct {
		name string
		in   *timestamppb.Timestamp
		out  *time.Time
	}{{"since", r.GetSince(), &q.since}, {"until", r.GetUntil(), &q.until}} {
		if t.in == nil {
			continue
		}
		if err := t.in.CheckValid(); err != nil {
			return q, errors.New(t.name + " is no valid time")
		}
		*t.out = t.in.AsTime()
	}
	return q, nil
}

func (q query) covers(t time.Time) bool {
	return (q.since.IsZero() || !t.Before(q.since)) && (q.until.IsZero() || !t.After(q.until))
}

// use is what to do with an entry.
type use int

const (
	skip use = iota
	tell     // send, but do not count
	hit      // send and count
)

// walk is one client's way through a ring.
type walk[T any] struct {
	ring *ring.Ring[T]
	time func(T) time.Time
	use  func(T) use
	send func(T) error
	lost func(n uint64) error // entries overwritten before they could be sent
	open func() error         // tells the client that from now on it misses nothing
	now  func() time.Time
}

// run sends what the query asks for. It returns nil when that is done and ctx's error when the client has gone.
func (w walk[T]) run(ctx context.Context, q query) error {
	end := w.ring.Written()
	r := w.ring.Reader(w.start(q, end))
	if err := w.open(); err != nil {
		return err
	}
	if q.follow && !q.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, q.until.Sub(w.now()), errUntil)
		defer cancel()
	}
	var sent uint64
	for q.follow || r.Pos() < end {
		if q.number > 0 && sent >= q.number && !q.follow {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return ended(ctx)
		}
		v, lost, ok := r.Next()
		switch {
		case ok:
			u := w.use(v)
			if u == skip || !q.covers(w.time(v)) {
				continue
			}
			if err := w.send(v); err != nil {
				return err
			}
			if u == hit {
				sent++
			}
		case lost > 0:
			if !q.follow && r.Pos() > end {
				lost -= r.Pos() - end // those came after the question
			}
			if err := w.lost(lost); err != nil {
				return err
			}
		default:
			if err := r.Wait(ctx); err != nil {
				return ended(ctx)
			}
		}
	}
	return nil
}

// start is the sequence number to begin at.
func (w walk[T]) start(q query, end uint64) uint64 {
	oldest := w.ring.Oldest()
	if q.follow && q.number == 0 && q.since.IsZero() {
		return end
	}
	if q.first || q.number == 0 {
		return oldest
	}
	var n uint64
	for i := end; i > oldest; i-- {
		v, ok := w.ring.Get(i - 1)
		if !ok {
			return i
		}
		if w.use(v) == hit && q.covers(w.time(v)) {
			if n++; n == q.number {
				return i - 1
			}
		}
	}
	return oldest
}

var errUntil = errors.New("the time asked for is over")

func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errUntil) {
		return nil
	}
	return ctx.Err()
}
