package churn

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/monitor"
	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// explained are the reasons to drop that such a history gives, by their numbers in bpf/lib/reason.h. Any other is a fault.
var explained = map[int]string{
	133: "a policy's default deny",
	181: "a deny rule",
	132: "a pod sends before it is attached or after it is detached, or its node has not heard of the address yet",
	151: "to an address whose pod is gone or not there yet",
	171: "an identity that is new on the other node, or an address whose identity changes",
	201: "multicast that a pod's stack sends by itself",
}

// TestCase46Soak: under long churn nothing passes against policy, nothing is dropped for a reason that the history does not give, and
// once pods and policies are gone the nodes hold what they held before, the agents no more than after the first part of it. In full
// size agents are killed in that first part.
func TestCase46Soak(t *testing.T) {
	netns.Require(t)
	if testing.Short() {
		t.Skip("end-to-end tests take long: not with -short")
	}
	s := score.Start(t, "46", "long churn of pods, labels and policies under probes without a pause: verdicts, drop reasons, growth")
	r := s.Rand()
	c := ground(t, map[string]any{"pprof": true, "identity-gc-interval": "1s", "identity-heartbeat-timeout": "1s", "kvstore-lease-ttl": "15s",
		"hubble-event-buffer-capacity": 255})
	d := newDriver(t, c, r)
	t.Cleanup(func() { _, _ = d.field.End() })
	d.put("first") // the revision is there for good once there was a policy
	d.drop("first")
	var before map[string][]string
	eventually(t, "the first pods' identities to be collected and the policy's file to be there", func(ctx context.Context) (err error) {
		if before, err = c.Holdings(ctx); err == nil && (strings.Contains(fmt.Sprint(before), "key hypha/identity/") || !strings.Contains(fmt.Sprint(before), "/policy.json")) {
			err = fmt.Errorf("%v", before)
		}
		return err
	})
	churn := func(length time.Duration) {
		for place := range places {
			d.add(place)
		}
		for end := time.Now().Add(length); time.Now().Before(end); {
			d.step()
			time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		}
		time.Sleep(bounds.Bound)
		for _, place := range slices.Sorted(maps.Keys(d.pods)) {
			d.remove(place)
		}
		for _, name := range slices.Sorted(maps.Keys(d.policies)) {
			d.drop(name)
		}
		settle(t, c, before)
	}
	killed := 0
	if score.Full() {
		kills, ended := startKiller(t, d, rand.New(rand.NewPCG(s.Seed, 1))), make(chan struct{})
		time.AfterFunc(30*time.Second, func() { killed = kills(); close(ended) })
		churn(45 * time.Second)
		<-ended
	} else {
		churn(2 * time.Second)
	}
	was := usage(t, c)
	churn(time.Duration(score.Size(3, 180)) * time.Second)
	now := usage(t, c)
	var grown []string
	for i, n := range c.Nodes {
		for range 50 { // connections end a little later
			if now[i].Goroutines <= was[i].Goroutines && now[i].Files <= was[i].Files {
				break
			}
			time.Sleep(200 * time.Millisecond)
			now = usage(t, c)
		}
		if now[i].Goroutines > was[i].Goroutines || now[i].Files > was[i].Files {
			t.Errorf("%s: %d goroutines and %d files, were %d and %d:\n%s", n.Name, now[i].Goroutines, now[i].Files,
				was[i].Goroutines, was[i].Files, now[i].Stacks)
		}
		const much = 32 << 20
		if now[i].Heap > was[i].Heap+much || now[i].RSS > was[i].RSS+2*much {
			t.Errorf("%s: %d bytes of heap and %d of memory, were %d and %d", n.Name, now[i].Heap, now[i].RSS, was[i].Heap, was[i].RSS)
		}
		grown = append(grown, fmt.Sprintf("%+.1f", float64(now[i].RSS-was[i].RSS)/(1<<20)))
	}
	dropped := drops(t, c)
	probes, err := d.field.End()
	if err != nil {
		t.Fatal(err)
	}
	heard, refused, late := judge(t, s.Seed, d.changes, probes, false)
	s.Count(len(probes), "probes")
	s.Say("0 of %d that passed did so against policy, %d refused (%d of them while allowed, see case 21); %d changes, %d kills; drops %s; "+
		"rows, pins, devices, routes, keys as before; 0 goroutines and files more, memory %s MiB",
		heard, refused, late, len(d.changes)-killed, killed, dropped, strings.Join(grown, " and "))
	if heard == 0 || refused == 0 || len(d.changes) < 3*places {
		t.Errorf("too little was tried: %d changes, %d heard, %d refused", len(d.changes), heard, refused)
	}
}

// drops are all that the nodes have dropped, by reason; one that is not explained fails the test.
func drops(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	all := map[int]uint64{}
	for _, n := range c.Nodes {
		rows, err := n.Rows(t.Context(), "metrics_v1")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			reason, err1 := strconv.Atoi(r["REASON"])
			packets, err2 := strconv.ParseUint(r["PACKETS"], 10, 64)
			if err1 != nil || err2 != nil {
				t.Fatalf("row %v of metrics: %v %v", r, err1, err2)
			}
			if reason == 0 {
				continue
			}
			all[reason] += packets
			if explained[reason] == "" {
				t.Errorf("%s dropped %d packets %s for a reason that nothing in the history gives: %d, %q", n.Name, packets, r["DIRECTION"],
					reason, monitor.DropReason(uint8(reason)))
			}
		}
	}
	if all[133]+all[181] == 0 {
		t.Error("no policy has dropped anything")
	}
	var out []string
	for _, reason := range slices.Sorted(maps.Keys(all)) {
		out = append(out, fmt.Sprintf("%d:%d", reason, all[reason]))
	}
	return strings.Join(out, " ")
}

func usage(t *testing.T, c *cluster.Cluster) (out []cluster.Usage) {
	t.Helper()
	for _, n := range c.Nodes {
		u, err := n.Usage()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// settle waits for the nodes to hold what they held before.
func settle(t *testing.T, c *cluster.Cluster, before map[string][]string) {
	t.Helper()
	eventually(t, "the nodes to hold what they held before", func(ctx context.Context) error {
		now, err := c.Holdings(ctx)
		if d := cmp.Diff(before, now); err == nil && d != "" {
			err = fmt.Errorf("-before +now\n%s", d)
		}
		return err
	})
}

// eventually tries until it works.
func eventually(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	var err error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = try(t.Context()); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within 90 s: %v", what, err)
}
