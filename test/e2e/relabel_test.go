package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
)

// hit is one connection that got through.
type hit struct{ began, ended time.Time }

// siege connects from a namespace to an address without a pause and keeps what got through.
type siege struct {
	mu    sync.Mutex
	hits  []hit
	tried int
	quit  chan struct{}
	done  chan struct{}
}

func besiege(t *testing.T, from *netns.NS, to netip.Addr) *siege {
	t.Helper()
	s := &siege{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for {
			select {
			case <-s.quit:
				return
			default:
			}
			began := time.Now()
			_, err := fetch(from, to, workload.HTTPPort, 15*time.Millisecond)
			s.mu.Lock()
			s.tried++
			if err == nil {
				s.hits = append(s.hits, hit{began, time.Now()})
			}
			s.mu.Unlock()
		}
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *siege) stop() {
	select {
	case <-s.done:
	default:
		close(s.quit)
		<-s.done
	}
}

// take returns the hits so far and forgets them.
func (s *siege) take() []hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.hits
	s.hits = nil
	return out
}

// TestCase08Relabel: a workload whose labels change has what the old ones allow until it has what the new ones allow, never
// both: once a connection of the new labels has got through, none of the old ones begins; and once the change is acknowledged
// only the new ones' do.
func TestCase08Relabel(t *testing.T) {
	sc, rounds := score.Start(t, "8", "labels change"), score.Size(6, 60)
	c := start(t, overlay, 2, nil)
	red, blue := add(t, c, "red", 0), add(t, c, "blue", 1)
	who := add(t, c, "who", 0, "id=who", "colour=red")
	for _, colour := range []string{"red", "blue"} {
		importPolicy(t, c, fmt.Sprintf(`[{"labels":[{"key":"name","value":"%[1]s"}],"endpointSelector":{"matchLabels":{"id":"%[1]s"}},
			"ingress":[{"fromEndpoints":[{"matchLabels":{"colour":"%[1]s"}}]}]}]`, colour))
	}
	eps, err := c.Nodes[0].Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	for _, e := range eps {
		if e.GetName() == "who" {
			id = fmt.Sprint(e.GetId())
		}
	}
	at := map[string]*siege{"red": besiege(t, who.NS, red.Addr(false)), "blue": besiege(t, who.NS, blue.Addr(true))}
	var slowest time.Duration
	now, next := "red", "blue"
	for range rounds {
		eventually(t, yes, "connections of "+now, func() error {
			if len(at[now].take()) == 0 {
				return fmt.Errorf("none got through")
			}
			return nil
		})
		if n := len(at[next].take()); n > 0 {
			t.Fatalf("%d connections to %s under the labels of %s", n, next, now)
		}
		began := time.Now()
		if out, err := c.Hypha(t.Context(), c.Nodes[0], "endpoint", "labels", id, "--add", "colour="+next); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		inForce := time.Now()
		slowest = max(slowest, inForce.Sub(began))
		var fresh []hit
		eventually(t, yes, "connections of "+next, func() error {
			if fresh = append(fresh, at[next].take()...); len(fresh) == 0 {
				return fmt.Errorf("none got through")
			}
			return nil
		})
		for _, h := range at[now].take() {
			if h.began.After(inForce) {
				t.Errorf("a connection of the old labels began %v after the change was in force", h.began.Sub(inForce))
			}
			if h.began.After(fresh[0].ended) {
				t.Errorf("a connection of the old labels began %v after one of the new labels had got through", h.began.Sub(fresh[0].ended))
			}
		}
		if fresh[0].ended.Before(began) {
			t.Error("a connection of the new labels before the change")
		}
		now, next = next, now
	}
	tried := 0
	for _, s := range at {
		s.stop()
		tried += s.tried
	}
	sc.Count(rounds, "changes")
	sc.Say("%d connections tried, never the union of old and new; in force after at most %v, the command's start included", tried, slowest.Round(time.Millisecond))
}
