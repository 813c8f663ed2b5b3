package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
)

// allow is a rule that lets id=from reach id=to on a TCP port, named "from-to-port".
func allow(from, to string, port int) string {
	return fmt.Sprintf(`[{"labels":[{"key":"name","value":"%[1]s-%[2]s-%[3]d"}],"endpointSelector":{"matchLabels":{"id":"%[2]s"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"%[1]s"}}],"toPorts":[{"ports":[{"port":"%[3]d","protocol":"TCP"}]}]}]}]`, from, to, port)
}

// TestStory is the demo's: app2 reaches app1:80 from either node, nobody else and nothing else does, and the flows name
// the policy.
func TestStory(t *testing.T) {
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			app1 := add(t, c, "app1", 0)
			app2, app3 := add(t, c, "app2", 0), add(t, c, "app3", 0)
			far2, far3 := add(t, c, "app2-far", 1, "id=app2"), add(t, c, "app3-far", 1, "id=app3")
			importPolicy(t, c, string(demo.Policy))
			for _, v6 := range m.families() {
				to := app1.Addr(v6)
				for _, p := range []struct {
					name string
					ok   bool
					get  func(time.Duration) error
				}{
					{"app2", true, func(d time.Duration) error { _, err := fetch(app2.NS, to, 80, d); return err }},
					{"app2 on the other node", true, func(d time.Duration) error { _, err := fetch(far2.NS, to, 80, d); return err }},
					{"app3", false, func(d time.Duration) error { _, err := fetch(app3.NS, to, 80, d); return err }},
					{"app3 on the other node", false, func(d time.Duration) error { _, err := fetch(far3.NS, to, 80, d); return err }},
					{"app2 to another port", false, func(d time.Duration) error { return echo(app2.NS, "tcp", to, d) }},
					{"app2 by UDP", false, func(d time.Duration) error { return echo(far2.NS, "udp", to, d) }},
					{"the node", true, func(d time.Duration) error { _, err := fetch(c.Nodes[0].NS, to, 80, d); return err }},
				} {
					switch {
					case p.ok:
						if err := p.get(yes); err != nil {
							t.Errorf("%s %s: %v", family(v6), p.name, err)
						}
					default:
						if err := p.get(no); !dropped(err) {
							t.Errorf("%s %s is not dropped: %v", family(v6), p.name, err)
						}
					}
				}
				if err := ping(app2.NS, to, no); err == nil {
					t.Errorf("%s: ping passed", family(v6))
				}
				// app1 itself may talk to all.
				if _, err := fetch(app1.NS, app3.Addr(v6), 80, yes); err != nil {
					t.Errorf("%s app1 to app3: %v", family(v6), err)
				}
			}
			out, err := c.Hypha(t.Context(), c.Nodes[0], "observe", "--verdict", "DROPPED", "--last", "50", "-o", "jsonpb")
			if err != nil || !strings.Contains(out, demo.PolicyName) {
				t.Errorf("observe does not name the policy: %v\n%s", err, out)
			}
			out, err = c.Hypha(t.Context(), c.Nodes[0], "policy", "trace", "app3", "app1", "--port", "80")
			if err == nil && !strings.Contains(strings.ToLower(out), "denied") {
				t.Errorf("policy trace:\n%s", out)
			}
		})
	}
}

// TestCase07Revoke: a removed rule stops what it had let through, also the connection that stands, within
// 100 ms; what another rule allows goes on; the rule's return revives the connection.
func TestCase07Revoke(t *testing.T) {
	rounds := score.Size(3, 20)
	s := score.Start(t, "7", "a policy is removed; TCP streams and new connections, from the same and the other node")
	var took []time.Duration
	for _, where := range []int{0, 1} {
		t.Run(fmt.Sprintf("from node%d", where+1), func(t *testing.T) {
			c := start(t, overlay, 2, nil)
			app1 := add(t, c, "app1", 0)
			app2, app4 := add(t, c, "app2", where), add(t, c, "app4", where)
			importPolicy(t, c, allow("app2", "app1", workload.EchoPort))
			importPolicy(t, c, allow("app4", "app1", workload.EchoPort))
			var gone, stays []*stream
			for _, v6 := range overlay.families() {
				gone = append(gone, startStream(t, app2.NS, app1.Addr(v6)))
				stays = append(stays, startStream(t, app4.NS, app1.Addr(v6)))
			}
			for range rounds {
				for _, s := range append(gone, stays...) {
					if err := s.alive(yes); err != nil {
						t.Fatal(err)
					}
				}
				begin := time.Now()
				if err := c.DeletePolicies(t.Context(), fmt.Sprintf("name=app2-app1-%d", workload.EchoPort)); err != nil {
					t.Fatal(err)
				}
				inForce := time.Now()
				time.Sleep(200 * time.Millisecond)
				for _, s := range gone {
					if last := time.Unix(0, s.last.Load()); last.After(inForce) {
						t.Errorf("a message sent %s after the removal was in force passed", last.Sub(inForce))
					}
					if !s.silent(300 * time.Millisecond) {
						t.Error("the connection still passes messages")
					}
				}
				took = append(took, inForce.Sub(begin))
				for _, s := range stays {
					if err := s.alive(yes); err != nil {
						t.Error(err)
					}
				}
				if _, err := fetch(app2.NS, app1.Addr(false), workload.EchoPort, no); !dropped(err) {
					t.Errorf("a new connection is not dropped: %v", err)
				}
				importPolicy(t, c, allow("app2", "app1", workload.EchoPort))
				for _, s := range gone {
					if err := s.alive(10 * time.Second); err != nil { // TCP sends again after its own time
						t.Error(err)
					}
				}
			}
		})
	}
	s.Count(len(took), "removals")
	s.Say("nothing passed after one was in force; in force after %s", spread(took))
}

// TestEntities: nodes and hosts are entities that policies can name, on either node.
func TestEntities(t *testing.T) {
	c := start(t, overlay, 2, nil)
	app1 := add(t, c, "app1", 0)
	if err := c.ServeOutside(); err != nil {
		t.Fatal(err)
	}
	importPolicy(t, c, `[{"labels":[{"key":"name","value":"e"}],"endpointSelector":{"matchLabels":{"id":"app1"}},"ingress":[{"fromEntities":["host"]}],"egress":[{"toEntities":["remote-node"]}]}]`)
	for _, v6 := range overlay.families() {
		outside := netip.MustParseAddr(map[bool]string{false: "203.0.113.10", true: "2001:db8::10"}[v6])
		remote := map[bool]netip.Addr{false: c.Nodes[1].IP4, true: c.Nodes[1].IP6}[v6]
		if _, err := fetch(c.Nodes[0].NS, app1.Addr(v6), 80, yes); err != nil {
			t.Errorf("%s own node: %v", family(v6), err)
		}
		if _, err := fetch(c.Nodes[1].NS, app1.Addr(v6), 80, no); !dropped(err) {
			t.Errorf("%s other node is not dropped: %v", family(v6), err)
		}
		if err := ping(app1.NS, remote, yes); err != nil {
			t.Errorf("%s to the other node: %v", family(v6), err)
		}
		if _, err := fetch(app1.NS, outside, 80, no); !dropped(err) {
			t.Errorf("%s to outside is not dropped: %v", family(v6), err)
		}
	}
	if err := c.DeletePolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(app1.NS, netip.MustParseAddr("203.0.113.10"), 80, yes); err != nil {
		t.Errorf("after the last policy was deleted: %v", err)
	}
}
