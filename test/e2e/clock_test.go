package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// envClock says that the machine's clock may be set.
const envClock = "HYPHA_E2E_CLOCK"

// setClock moves the machine's clock.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	at := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &at); err != nil {
		t.Fatal(err)
	}
}

// TestCase25Clock: the machine's clock goes a day ahead and a day back under traffic. No connection breaks, nothing passes that
// policy denies, no lease ends, and agents serve, take policy and workloads, and start, also with a store that made its
// certificates at the other time.
func TestCase25Clock(t *testing.T) {
	sc := score.Start(t, "25", "wall clock a day ahead, a day back, two days off, agents killed meanwhile")
	if os.Getenv(envClock) == "" {
		sc.Say("made by make test-kernels")
		t.Skip("needs a machine whose clock may be set: make test-kernels does that in QEMU")
	}
	const day = 24 * time.Hour
	c := start(t, overlay, 2, map[string]any{"kvstore-lease-ttl": "1m", "debug": false})
	app, friend, stranger := add(t, c, "app", 1), add(t, c, "friend", 0), add(t, c, "stranger", 0)
	importPolicy(t, c, allow("friend", "app", workload.EchoPort))
	var streams []*stream
	for _, v6 := range overlay.families() {
		streams = append(streams, startStream(t, friend.NS, app.Addr(v6)))
	}
	forbid := knock(t, stranger.NS, app.Addr(false))
	published := func() int {
		resp, err := c.Nodes[0].Admin().KVGet(t.Context(), connect.NewRequest(&agentv1.KVGetRequest{Key: "cilium/state/", Prefix: true}))
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.Msg.GetPairs())
	}
	before := published()
	var steps int
	for i, by := range []time.Duration{day, -2 * day, day} { // ahead, behind, right
		for _, kill := range []bool{false, true} {
			when := fmt.Sprintf("clock moved by %v, agents killed: %v", by, kill)
			if kill {
				for _, n := range c.Nodes {
					if err := n.Kill(); err != nil {
						t.Fatal(err)
					}
				}
				for _, n := range c.Nodes {
					if err := n.Launch(); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				setClock(t, by)
			}
			steps++
			for _, n := range c.Nodes {
				eventually(t, 3*time.Minute, when+": "+n.Name, func() error { return whole(t.Context(), n) })
			}
			if !kill {
				told(t, c, c.Nodes[0], "clock", "was moved by")
			}
			for _, s := range streams {
				if err := s.alive(time.Minute); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			if now := published(); now < before { // more: a workload of this test that has just gone
				t.Errorf("%s: %d keys in the store, were %d", when, now, before)
			}
			// An emulated CPU under traffic may take longer than the store's clients wait.
			eventually(t, 3*time.Minute, when+": policy", func() error {
				_, err := c.Import(t.Context(), allow("friend", "app", workload.HTTPPort))
				return err
			})
			if _, err := fetch(friend.NS, app.Addr(true), workload.HTTPPort, time.Minute); err != nil {
				t.Errorf("%s: policy that came is not in force: %v", when, err)
			}
			eventually(t, 3*time.Minute, when+": end of policy", func() error {
				return c.DeletePolicies(t.Context(), fmt.Sprintf("name=friend-app-%d", workload.HTTPPort))
			})
			late := cluster.PodSpec{Name: fmt.Sprintf("late%d-%v", i, kill), Node: 1, Labels: []string{"id=friend"}, Idle: true}
			eventually(t, 3*time.Minute, when+": ADD and DEL", func() error {
				p, err := c.Add(t.Context(), late)
				if err != nil {
					return err
				}
				return c.Delete(t.Context(), p)
			})
		}
	}
	tried, passed := forbid()
	if passed > 0 || tried == 0 {
		t.Errorf("%d of %d connections passed against policy", passed, tried)
	}
	sc.Count(steps, "states of the clock")
	sc.Say("0 of %d connections reset, %d of %d forbidden ones passed, no key of a lease lost; policy, ADD and start of agents work in each", len(streams), passed, tried)
}
