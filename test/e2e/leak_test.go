package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCase45Leaks: workloads that come, are policed under labels, prefixes and ports that were never there before, change labels and
// go again leave nothing behind on either node: no row of any map, no pin, device, route, state file or key of the store, and in
// the agents no goroutine, open file or memory. Agents that are killed in the middle leave nothing in the kernel either.
//
// Rows of connections end by their own clock, so the table is flushed before it is counted; what a killed agent had claimed in the
// store ends with its lease, so that is short here.
func TestCase45Leaks(t *testing.T) {
	sc := score.Start(t, "45", "rows of all maps, pins, devices, routes, keys, files, goroutines, memory after attach, policy, relabel, detach")
	cycles, kills := score.Size(6, 200), score.Size(2, 8)
	c := start(t, overlay, 2, map[string]any{"pprof": true, "identity-gc-interval": "1s", "identity-heartbeat-timeout": "1s",
		"kvstore-lease-ttl": "15s", "hubble-event-buffer-capacity": 255})
	importPolicy(t, c, allow("x", "y", 1)) // the revision is there for good once there was a policy
	if err := c.DeletePolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	next := func(kill bool) {
		t.Helper()
		n++
		leakCycle(t, c, n, kill)
	}
	var before map[string][]string
	eventually(t, yes, "a list of what the nodes hold", func() (err error) {
		before, err = c.Holdings(t.Context())
		for _, cache := range []string{"policy", "identities", "ips", "nodes", "services"} { // written a little after what they hold
			if err == nil && strings.Count(fmt.Sprint(before), "/"+cache+".json") < len(c.Nodes) {
				err = fmt.Errorf("%s.json is to come", cache)
			}
		}
		return err
	})
	for range 5 {
		next(false)
	}
	settled(t, c, before)
	usage := func(n *cluster.Node) cluster.Usage {
		u, err := n.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	var was []cluster.Usage
	for _, n := range c.Nodes {
		was = append(was, usage(n))
	}
	for range cycles {
		next(false)
	}
	settled(t, c, before)
	var grown []string
	for i, n := range c.Nodes {
		var now cluster.Usage
		eventually(t, yes, "goroutines and files of "+n.Name+" to be as many as before", func() error {
			now = usage(n)
			if now.Goroutines > was[i].Goroutines || now.Files > was[i].Files {
				return fmt.Errorf("were %d and %d, are %d and %d:\n%s", was[i].Goroutines, was[i].Files, now.Goroutines, now.Files, now.Stacks)
			}
			return nil
		})
		const much = 8 << 20 // more than rings and tables of such a cluster hold
		if now.Heap > was[i].Heap+much {
			t.Errorf("%s: %d bytes of heap, were %d before %d cycles", n.Name, now.Heap, was[i].Heap, cycles)
		}
		grown = append(grown, fmt.Sprintf("%+.1f", float64(now.Heap-was[i].Heap)/(1<<20)))
	}
	for range kills {
		next(true)
	}
	settled(t, c, before)
	sc.Count(cycles+kills, "cycles")
	sc.Say("0 rows, pins, devices, routes, files, keys more on 2 nodes, after %d kills in the middle as well; 0 goroutines and 0 open files more; heap %s MiB",
		kills, strings.Join(grown, " and "))
}

// leakCycle is the whole life of two workloads and their policy.
func leakCycle(t *testing.T, c *cluster.Cluster, i int, kill bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	pod := func(name string, node int) *cluster.Pod {
		p, err := c.Add(ctx, cluster.PodSpec{Name: fmt.Sprintf("%s%d", name, i), Node: node, Idle: true})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
	}
	a, b := pod("a", i%2), pod("b", i/2%2)
	var ports []string // so many that they do not fit into one row
	for p := range 24 {
		ports = append(ports, fmt.Sprintf(`{"port":"%d","protocol":"%s"}`, 1000+100*p+i%100, [...]string{"TCP", "UDP"}[p%2]))
	}
	_, err := c.Import(ctx, fmt.Sprintf(`[{"labels":[{"key":"name","value":"leak"}],"endpointSelector":{"matchLabels":{"id":"a%[1]d"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"b%[1]d"}}],"toPorts":[{"ports":[%[2]s]}]},
		{"fromCIDRSet":[{"cidr":"198.51.%[3]d.0/24","except":["198.51.%[3]d.8/29"]},{"cidr":"2001:db8:%[1]x::/48"}]}],
		"egressDeny":[{"toCIDR":["192.0.2.%[3]d/32"]}]}]`, i, strings.Join(ports, ","), i%250))
	do(err)
	for _, v6 := range overlay.families() {
		outside := netip.MustParseAddr(map[bool]string{false: cluster.Outside4, true: cluster.Outside6}[v6])
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(a.Addr(v6), 1100+uint16(i%100)), netip.AddrPortFrom(a.Addr(v6), 9), netip.AddrPortFrom(outside, 9)} {
			conn, err := b.NS.DialContext(ctx, "udp", to.String())
			do(err)
			for range 3 {
				_, _ = conn.Write([]byte("leak"))
			}
			do(conn.Close())
		}
	}
	do(c.Relabel(ctx, a, fmt.Sprintf("more=%d", i)))
	victim := c.Nodes[i%2]
	if kill {
		do(victim.Kill())
	}
	if kill && i%4 < 2 { // detached while its agent is away
		do(c.Delete(ctx, a))
	}
	if kill {
		do(victim.Start(ctx, len(c.Nodes)))
	}
	if i%3 == 0 { // the namespace goes first
		do(b.NS.Remove())
	}
	if i%2 == 0 {
		do(c.DeletePolicies(ctx, "name=leak"))
	}
	if c.Pod(a.Name) != nil {
		do(c.Delete(ctx, a))
	}
	do(c.Delete(ctx, b))
	if i%2 == 1 {
		do(c.DeletePolicies(ctx, "name=leak"))
	}
}

// settled waits for both nodes to hold what they held before: identities are collected a little after their last use.
func settled(t *testing.T, c *cluster.Cluster, before map[string][]string) {
	t.Helper()
	eventually(t, 90*time.Second, "what the nodes hold to be as before", func() error {
		now, err := c.Holdings(t.Context())
		if err != nil {
			return err
		}
		if d := cmp.Diff(before, now); d != "" {
			return fmt.Errorf("-before +now\n%s", d)
		}
		return nil
	})
}
