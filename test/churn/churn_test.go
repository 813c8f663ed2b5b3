package churn

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/churn/history"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// bounds of the judge: a busy machine may hold a datagram up for a while, and what is allowed again has this long to pass.
var bounds = history.Config{Wait: 300 * time.Millisecond, Bound: time.Second}

const places = 6 // pods at a time, on two nodes

func TestCase21Churn(t *testing.T) {
	netns.Require(t)
	if testing.Short() {
		t.Skip("end-to-end tests take long: not with -short")
	}
	s := score.Start(t, "21", "random churn of pods, labels and policies, agents killed; every pair of pods probes without a pause, IPv4 and IPv6")
	r := s.Rand()
	c := ground(t, nil)
	d := newDriver(t, c, r)
	t.Cleanup(func() { _, _ = d.field.End() }) // also when it fails in the middle
	for place := range places {
		d.add(place)
	}
	kills := startKiller(t, d, rand.New(rand.NewPCG(s.Seed, 1)))
	for end := time.Now().Add(time.Duration(score.Size(10, 180)) * time.Second); time.Now().Before(end); {
		d.step()
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
	killed := kills()
	time.Sleep(bounds.Bound) // and then it must be as it should
	probes, err := d.field.End()
	if err != nil {
		t.Fatal(err)
	}
	heard, refused, _ := judge(t, s.Seed, d.changes, probes, score.Full())
	s.Count(len(probes), "probes")
	s.Say("%d changes, %d kills; %d probes passed, %d were refused, each as it was legal in its window", len(d.changes)-killed, killed, heard, refused)
	if heard == 0 || refused == 0 || killed == 0 || len(d.changes) < places+5 {
		t.Errorf("too little was tried: %d changes, %d kills, %d heard, %d refused", len(d.changes), killed, heard, refused)
	}
}

// ground is the cluster that is churned, until the test ends.
func ground(t *testing.T, options map[string]any) *cluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := cluster.New(ctx, cluster.Config{Bin: bin, Nodes: 2, IPv4: true, IPv6: true, Options: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("the end of the log of %s:\n%s", n.Name, n.Log(40))
				out, err := c.Hypha(context.Background(), n, "bpf", "metrics", "list")
				t.Logf("what %s dropped: %v\n%s", n.Name, err, out)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// judge fails the test for what was not legal, with the changes that matter; what was refused although it was allowed only where
// that is asked for. late is the number of those.
func judge(t *testing.T, seed uint64, changes []history.Change, probes []history.Probe, strict bool) (heard, refused, late int) {
	t.Helper()
	const most = 3 // counterexamples of a kind
	j := history.NewJudge(bounds, changes)
	bad := map[string]int{}
	// What was refused although it was allowed may be the doing of a machine too busy for the bounds: it fails on the scoreboard,
	// every other run only tells. What passed against policy fails always.
	tardy := func(why string) bool { return strings.Contains(why, "refused while it was allowed") }
	complain := func(why string) func(string, ...any) {
		if tardy(why) && !strict {
			return t.Logf
		}
		return t.Errorf
	}
	for _, p := range probes {
		if p.Heard > 0 {
			heard++
		} else {
			refused++
		}
		if why := j.Check(p); why != "" {
			if bad[why]++; bad[why] <= most {
				t.Errorf("%s", history.Explain(bounds, changes, p))
			}
		}
	}
	for why, n := range bad {
		if tardy(why) {
			late += n
		}
		complain(why)("%d of %d probes: %s (HYPHA_SEED=%d)", n, len(probes), why, seed)
	}
	return heard, refused, late
}

// startKiller kills agents from time to time until stop, which returns how often.
func startKiller(t *testing.T, d *driver, r *rand.Rand) (stop func() int) {
	quit, done := make(chan struct{}), make(chan int, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-quit:
				done <- n
				return
			case <-time.After(time.Duration(500+r.IntN(2500)) * time.Millisecond):
			}
			if err := d.kill(r); err != nil {
				t.Errorf("kill: %v", err)
				done <- n
				return
			}
		}
	}()
	ended := false
	stop = func() int { ended = true; close(quit); return <-done }
	t.Cleanup(func() {
		if !ended {
			stop()
		}
	})
	return stop
}
