package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// knock connects again and again from a namespace to where it must not get, and counts when it does: when there is anything but
// silence. stop returns the attempts and how many passed.
func knock(t *testing.T, from *netns.NS, to netip.Addr) (stop func() (tried, passed uint64)) {
	t.Helper()
	return knockUnless(t, from, to, dropped)
}

// knockUnless does so with another view of what is no passage.
func knockUnless(t *testing.T, from *netns.NS, to netip.Addr, stopped func(error) bool) (stop func() (tried, passed uint64)) {
	t.Helper()
	var tried, passed atomic.Uint64
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			tried.Add(1)
			if _, err := fetch(from, to, workload.HTTPPort, 20*time.Millisecond); !stopped(err) {
				passed.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		select {
		case <-done:
		default:
			close(quit)
			<-done
		}
	})
	return func() (uint64, uint64) {
		close(quit)
		<-done
		return tried.Load(), passed.Load()
	}
}

// TestCase01Kill: both agents are killed with -9 again and again under TCP streams and a flood of UDP. No
// connection is reset, no datagram lost, nothing passes against policy, and the agents come back with the same endpoints.
func TestCase01Kill(t *testing.T) {
	var (
		kills   = score.Size(5, 50)
		streams = score.Size(50, 200)    // of each family and place; an echo server takes 1024
		rate    = score.Size(2000, 5000) // datagrams per second
	)
	s := score.Start(t, "1", "kill -9 of both agents under TCP streams and a flood of UDP, overlay and native")
	var worst time.Duration
	var datagrams, denied uint64
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			app1, app2, app3 := add(t, c, "app1", 0), add(t, c, "app2", 0), add(t, c, "app3", 0)
			far := add(t, c, "far", 1, "id=app2")
			importPolicy(t, c, string(demo.Policy))
			importPolicy(t, c, fmt.Sprintf(`[{"labels":[{"key":"name","value":"load"}],"endpointSelector":{"matchLabels":{"id":"app1"}},
				"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app2"}}],"toPorts":[{"ports":[{"port":"%d","protocol":"TCP"},{"port":"9000","protocol":"UDP"}]}]}]}]`, workload.EchoPort))
			var all []*stream
			for _, v6 := range m.families() {
				for range streams {
					all = append(all, startStream(t, app2.NS, app1.Addr(v6)), startStream(t, far.NS, app1.Addr(v6)))
				}
			}
			got := startCounter(t, app1.NS, 9000)
			stopFlood := flood(t, far.NS, netip.AddrPortFrom(app1.Addr(false), 9000), rate)
			stopKnock := knock(t, app3.NS, app1.Addr(false))
			before := snapshot(t, c)
			for i := range kills {
				for _, n := range c.Nodes {
					if err := n.Kill(); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(300 * time.Millisecond) // without any agent
				if _, err := fetch(app2.NS, app1.Addr(false), workload.HTTPPort, yes); err != nil {
					t.Errorf("kill %d: a new allowed connection while the agents are down: %v", i, err)
				}
				begin := time.Now()
				for _, n := range c.Nodes {
					if err := n.Start(t.Context(), 1); err != nil {
						t.Fatal(err)
					}
				}
				worst = max(worst, time.Since(begin))
			}
			for i, s := range all {
				if err := s.alive(yes); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			}
			sent := stopFlood()
			eventually(t, yes, "the last datagrams", func() error {
				if lost := got.missing(sent); lost > 0 {
					return fmt.Errorf("%d of %d datagrams lost", lost, sent)
				}
				return nil
			})
			tried, passed := stopKnock()
			if passed > 0 || tried == 0 {
				t.Errorf("%d of %d connections passed against policy", passed, tried)
			}
			datagrams, denied = datagrams+sent, denied+tried
			for _, n := range c.Nodes {
				if err := n.WaitReady(t.Context(), len(c.Nodes)); err != nil {
					t.Error(err)
				}
				if out, err := c.Hypha(t.Context(), n, "status"); err != nil {
					t.Errorf("status: %v\n%s", err, out)
				}
			}
			if after := snapshot(t, c); after != before {
				t.Errorf("the endpoints changed:\n%s\nwere\n%s", after, before)
			}
			// What comes after works too.
			late := add(t, c, "late", 1, "id=app2")
			if _, err := fetch(late.NS, app1.Addr(false), workload.HTTPPort, yes); err != nil {
				t.Errorf("a pod added afterwards: %v", err)
			}
		})
	}
	if worst > slow {
		t.Errorf("an agent was ready only after %s", worst)
	}
	s.Count(2*kills, "kills of each agent")
	s.Say("%d streams of each mode and none reset, 0 of %d datagrams lost, 0 of %d denied connections passed, both ready after at most %s",
		4*streams, datagrams, denied, worst.Round(time.Millisecond))
}

// slow is more than an agent may take to be ready after kill -9, on a machine that does much else besides; the case asks for 3 s.
const slow = 15 * time.Second

// snapshot is what identifies the endpoints of all nodes.
func snapshot(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	var b bytes.Buffer
	for _, n := range c.Nodes {
		eps, err := n.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ep := range eps {
			fmt.Fprintln(&b, n.Name, ep.GetId(), ep.GetName(), ep.GetIpv4(), ep.GetIpv6(), ep.GetIdentity(), ep.GetMac(), ep.GetState(), ep.GetLabels())
		}
	}
	return b.String()
}

// TestStop: an agent that is asked to end leaves the datapath working too.
func TestStop(t *testing.T) {
	c := start(t, overlay, 2, nil)
	app1, app2, app3 := add(t, c, "app1", 0), add(t, c, "app2", 1), add(t, c, "app3", 1)
	importPolicy(t, c, string(demo.Policy))
	for _, n := range c.Nodes {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	for _, v6 := range overlay.families() {
		if _, err := fetch(app2.NS, app1.Addr(v6), workload.HTTPPort, yes); err != nil {
			t.Errorf("%s allowed: %v", family(v6), err)
		}
		if _, err := fetch(app3.NS, app1.Addr(v6), workload.HTTPPort, no); !dropped(err) {
			t.Errorf("%s denied: %v", family(v6), err)
		}
	}
	for _, n := range c.Nodes {
		if err := n.Start(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fetch(app2.NS, app1.Addr(false), workload.HTTPPort, yes); err != nil {
		t.Errorf("after the start: %v", err)
	}
}

// TestDamagedState: a damaged endpoint file is set aside; the agent starts, and everybody else is as before.
func TestDamagedState(t *testing.T) {
	c := start(t, overlay, 1, nil)
	a, b := add(t, c, "a", 0), add(t, c, "b", 0)
	n := c.Nodes[0]
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(n.Paths.Endpoints(), "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("endpoint files: %v %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files[0] + ".damaged"); err != nil {
		t.Errorf("the damaged file was not set aside: %v", err)
	}
	eps, err := n.Endpoints(t.Context())
	if err != nil || len(eps) == 0 {
		t.Errorf("endpoints: %v %v", eps, err)
	}
	if err := errors.Join(c.Detach(t.Context(), a), c.Detach(t.Context(), b)); err != nil {
		t.Errorf("detach: %v", err)
	}
}
