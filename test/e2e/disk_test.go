package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/containernetworking/cni/pkg/types"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// diskRig is a cluster whose nodes have disks of their own: app on the second node, friend and stranger on the first.
type diskRig struct {
	*testing.T
	*cluster.Cluster
	app    *cluster.Pod
	from   map[string]*netns.NS
	stream *stream
	forbid func() (tried, passed uint64)
	serial int
}

func newDiskRig(t *testing.T) *diskRig {
	c := startPrepared(t, overlay, 2, map[string]any{"kvstore-lease-ttl": "1m"}, func(c *cluster.Cluster) error {
		return errors.Join(c.Nodes[0].Disk(fmt.Sprintf("%dm", 200*score.Size(1, 5))), c.Nodes[1].Disk("8m")) // room for what wear leaves in each round
	})
	r := &diskRig{T: t, Cluster: c, app: add(t, c, "app", 1)}
	friend, stranger := add(t, c, "friend", 0), add(t, c, "stranger", 0)
	r.from = map[string]*netns.NS{"friend": friend.NS, "stranger": stranger.NS}
	importPolicy(t, c, allow("friend", "app", workload.EchoPort))
	r.stream = startStream(t, friend.NS, r.app.Addr(false))
	r.forbid = knock(t, stranger.NS, r.app.Addr(false))
	return r
}

// judge imports a policy that lets friend in at the web port, looks whether packets are judged by it, and deletes it again.
func (r *diskRig) judge(when string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	if _, err := r.Import(ctx, allow("friend", "app", workload.HTTPPort)); err != nil {
		r.Fatalf("%s: %v", when, err)
	}
	if _, err := fetch(r.from["friend"], r.app.Addr(true), workload.HTTPPort, yes); err != nil {
		r.Errorf("%s: a policy that came is not in force: %v", when, err)
	}
	if err := r.DeletePolicies(ctx, fmt.Sprintf("name=friend-app-%d", workload.HTTPPort)); err != nil {
		r.Fatalf("%s: %v", when, err)
	}
	if _, err := fetch(r.from["friend"], r.app.Addr(true), workload.HTTPPort, no); !dropped(err) {
		r.Errorf("%s: a policy that went is still in force: %v", when, err)
	}
	if err := r.stream.alive(yes); err != nil {
		r.Errorf("%s: %v", when, err)
	}
}

// refused says that a node takes no new workload, tells why, and leaves nothing of the attempt.
func (r *diskRig) refused(when string, node int, why string) {
	r.Helper()
	r.serial++
	p, err := r.Prepare(cluster.PodSpec{Name: fmt.Sprintf("late%d", r.serial), Node: node, Labels: []string{"id=app"}})
	if err != nil {
		r.Fatal(err)
	}
	err = r.Attach(r.Context(), p)
	var said *types.Error
	if !errors.As(err, &said) || !strings.Contains(err.Error(), why) {
		r.Errorf("%s: ADD says %v, want %q", when, err, why)
	}
	if p.NS.HasLink("eth0") {
		r.Errorf("%s: a refused workload has a device", when)
	}
	if err := r.Delete(r.Context(), p); err != nil {
		r.Errorf("%s: %v", when, err)
	}
}

// status waits until `hypha status` of a node says all of this.
func (r *diskRig) status(when string, node int, want ...string) {
	r.Helper()
	eventually(r.T, time.Minute, when, func() error {
		text, err := r.Hypha(r.Context(), r.Nodes[node], "status")
		if err == nil {
			return errors.New("status says that all is well")
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				return fmt.Errorf("status lacks %q:\n%s", w, text)
			}
		}
		return nil
	})
}

// recovered waits until no node complains, and then adds a workload on each.
func (r *diskRig) recovered(when string) time.Duration {
	r.Helper()
	began := time.Now()
	for i, n := range r.Nodes {
		eventually(r.T, 2*time.Minute, when+" "+n.Name, func() error { return whole(r.Context(), n) })
		r.serial++
		p, err := r.Prepare(cluster.PodSpec{Name: fmt.Sprintf("late%d", r.serial), Node: i, Labels: []string{"id=app"}})
		if err != nil {
			r.Fatal(err)
		}
		eventually(r.T, 2*time.Minute, when+", ADD on "+n.Name, func() error { // a store on a busy disk may be late once more
			if err := r.Attach(r.Context(), p); err != nil {
				return errors.Join(err, r.Detach(r.Context(), p))
			}
			return nil
		})
		if err := r.Delete(r.Context(), p); err != nil {
			r.Errorf("%s: %v", when, err)
		}
	}
	return time.Since(began)
}

// restart kills an agent and starts it on its disk as it is. It is not expected to be well.
func (r *diskRig) restart(n *cluster.Node) {
	r.Helper()
	if err := n.Kill(); err != nil {
		r.Fatal(err)
	}
	if err := n.Launch(); err != nil {
		r.Fatal(err)
	}
	eventually(r.T, time.Minute, "an answer of "+n.Name, func() error { _, err := n.Status(r.Context()); return err })
}

// TestCase24Disk: an agent whose disk is full, or takes no writes, goes on: policy that comes is enforced, workloads it could not
// remember are refused, status says what is wrong, and it recovers by itself. Also when it starts that way.
func TestCase24Disk(t *testing.T) {
	sc := score.Start(t, "24", "disk full, and read-only, while running and at the start")
	r := newDiskRig(t)
	n := r.Nodes[1]
	var worst time.Duration
	rounds := score.Size(1, 5)
	for range rounds {
		for _, x := range []struct {
			name, status, add string
			do, undo          func() error
		}{
			{"full", "is full", "no space left", n.Fill, n.Free},
			{"read-only", "is read-only", "read-only file system", func() error { return n.ReadOnly(true) }, func() error { return n.ReadOnly(false) }},
		} {
			if err := x.do(); err != nil {
				t.Fatal(err)
			}
			pid := n.PID()
			for _, when := range []string{"running", "started"} {
				when = x.name + ", " + when
				r.status(when, 1, "disk", n.Paths.State, x.status, "to mend:")
				r.judge(when)
				r.refused(when, 1, x.add)
				if when == x.name+", running" {
					if n.PID() != pid {
						t.Fatalf("%s: the agent ended:\n%s", when, n.Log(20))
					}
					r.restart(n)
				}
			}
			if err := x.undo(); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, r.recovered(x.name))
			r.judge(x.name + ", mended")
		}
	}
	tried, passed := r.forbid()
	if passed > 0 || tried == 0 {
		t.Errorf("%d of %d connections passed against policy", passed, tried)
	}
	sc.Count(4*rounds, "states of a disk")
	sc.Say("%d of %d forbidden connections passed, no crash, no reset; policy applied in each, ADD refused, status degraded; well again %v after there was room",
		passed, tried, worst.Round(100*time.Millisecond))
}

// TestCase24StoreDisk: the same of the embedded store, which gives up for good over a disk that does not take a write.
func TestCase24StoreDisk(t *testing.T) {
	sc := score.Start(t, "24", "disk of the embedded store full, while running and at the start")
	r := newDiskRig(t)
	n := r.Nodes[0]
	var worst time.Duration
	rounds, times := score.Size(1, 3), 0
	for range rounds {
		pid := n.PID()
		if err := n.Fill(); err != nil {
			t.Fatal(err)
		}
		r.wear(n)
		when := "full, running"
		r.status(when, 0, "kvstore", "embedded store stopped", "no space left", n.Paths.Etcd(), "to mend:")
		r.refused(when, 0, "")
		r.kept(when)
		if n.PID() != pid {
			t.Fatalf("the agent ended:\n%s", n.Log(20))
		}
		if err := n.Free(); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, r.recovered(when))
		if n.PID() != pid {
			t.Errorf("another process serves: %d, was %d", n.PID(), pid)
		}
		r.judge("there is room again")
		times++
		if !score.Full() { // half a minute more
			continue
		}

		if err := n.Fill(); err != nil {
			t.Fatal(err)
		}
		when = "full, started"
		r.restart(n)
		r.status(when, 0, "no space left", n.Paths.Etcd(), "to mend:")
		r.refused(when, 0, "")
		r.kept(when)
		if err := n.Free(); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, r.recovered(when))
		r.judge("there is room again")
		times++
	}
	tried, passed := r.forbid()
	if passed > 0 || tried == 0 {
		t.Errorf("%d of %d connections passed against policy", passed, tried)
	}
	sc.Count(times, "times full")
	sc.Say("%d of %d forbidden connections passed, no reset, the agents lived on with the last policy; the store was back %v after there was room",
		passed, tried, worst.Round(100*time.Millisecond))
}

// kept says that the last policy is in force.
func (r *diskRig) kept(when string) {
	r.Helper()
	if err := r.stream.alive(yes); err != nil {
		r.Errorf("%s: %v", when, err)
	}
	for _, v6 := range overlay.families() {
		if err := echo(r.from["friend"], "tcp", r.app.Addr(v6), yes); err != nil {
			r.Errorf("%s: what the last policy allows does not pass: %v", when, err)
		}
		if err := echo(r.from["stranger"], "tcp", r.app.Addr(v6), no); !dropped(err) {
			r.Errorf("%s: what the last policy forbids: %v", when, err)
		}
	}
}

// wear writes to the store until its database needs room that there is not.
func (r *diskRig) wear(n *cluster.Node) {
	r.Helper()
	big := strings.Repeat("x", 400_000)
	for i := range 200 { // more than etcd lays out in advance for its log (64 MB)
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		_, err := n.Admin().KVSet(ctx, connect.NewRequest(&agentv1.KVSetRequest{Key: fmt.Sprintf("test/%d", i), Value: []byte(big)}))
		cancel()
		if err != nil {
			return
		}
	}
	r.Fatalf("the store took 80 MB on a full disk:\n%s", n.Log(20))
}
