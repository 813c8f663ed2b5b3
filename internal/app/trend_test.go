package app

import (
	"errors"
	"testing"
	"time"
)

func TestTrend(t *testing.T) {
	now := time.Now()
	var c counts
	tr := trend{count: func() (counts, error) { return c, nil }}
	look := func(drops, lost uint64, later time.Duration) {
		t.Helper()
		now = now.Add(later)
		c = counts{drops: map[uint8]uint64{167: drops}, lost: lost}
		if err := tr.look(now); err != nil {
			t.Fatal(err)
		}
	}
	check := func(drops, lost uint64, window time.Duration) {
		t.Helper()
		got, over := tr.recent()
		if got.drops[167] != drops || got.lost != lost || over != window {
			t.Errorf("%v in %v, want %d drops, %d lost in %v", got, over, drops, lost, window)
		}
	}
	check(0, 0, 0)
	look(100, 5, 0) // an earlier agent's time
	check(0, 0, 0)
	look(107, 5, 10*time.Second)
	check(7, 0, 10*time.Second)
	for range 5 {
		look(107, 8, 10*time.Second)
	}
	check(7, 3, time.Minute)
	look(107, 8, 10*time.Second)
	look(107, 8, time.Minute)
	check(0, 0, time.Minute)
	if by, at := tr.jump(); by != 0 || !at.IsZero() {
		t.Errorf("the clock was moved by %v at %v", by, at)
	}
	tr.count = func() (counts, error) { return counts{}, errors.New("no map") }
	if tr.look(now) == nil {
		t.Error("an error of the counters is lost")
	}
}
