package app

import (
	"context"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/maps"
)

// trend remembers some looks at counters, so that status can say what goes on now and not what ever was.
type trend struct {
	count func() (counts, error)

	mu    sync.Mutex
	looks []look // oldest first
	moved time.Duration
	when  time.Time // the clock was moved, at last
}

// counts are what is looked at.
type counts struct {
	drops map[uint8]uint64 // by reason
	lost  uint64           // events
}

type look struct {
	counts
	at time.Time
}

const (
	trendEvery  = 10 * time.Second
	trendWindow = time.Minute
	trendJump   = time.Minute // a clock that moves by less is being disciplined
)

// run looks now and then until ctx ends.
func (t *trend) run(ctx context.Context) error {
	tick := time.NewTicker(trendEvery)
	defer tick.Stop()
	for {
		_ = t.look(time.Now()) // status says what is wrong with maps
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look takes one. The oldest that is kept is the last one before the window.
func (t *trend) look(now time.Time) error {
	c, err := t.count()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.looks); n > 0 {
		last := t.looks[n-1].at
		// Round(0) takes the monotonic part away: what differs is how far the clock was moved.
		if d := now.Round(0).Sub(last.Round(0)) - now.Sub(last); d.Abs() >= trendJump {
			t.moved, t.when = d.Round(time.Second), now
		}
	}
	t.looks = append(t.looks, look{c, now})
	for len(t.looks) > 1 && now.Sub(t.looks[1].at) >= trendWindow {
		t.looks = t.looks[1:]
	}
	return nil
}

// recent is what was added within the window, and how long that is.
func (t *trend) recent() (added counts, window time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	added.drops = map[uint8]uint64{}
	if len(t.looks) == 0 {
		return added, 0
	}
	first, last := t.looks[0], t.looks[len(t.looks)-1]
	for reason, n := range last.drops {
		if n > first.drops[reason] {
			added.drops[reason] = n - first.drops[reason]
		}
	}
	added.lost = last.lost - first.lost
	return added, last.at.Sub(first.at)
}

// jump is how far the wall clock was moved at last, and when; zero: never.
func (t *trend) jump() (time.Duration, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.moved, t.when
}

// countsOf reads what the datapath has counted.
func countsOf(m *maps.Maps, e *eventCounter) func() (counts, error) {
	return func() (counts, error) {
		c := counts{drops: map[uint8]uint64{}, lost: e.lost.Load()}
		ms, err := m.Metrics()
		for _, x := range ms {
			if x.Reason != 0 {
				c.drops[x.Reason] += x.Packets
			}
		}
		return c, err
	}
}
