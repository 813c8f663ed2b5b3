package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCVE_2024_42488_NodeLabels: a node is judged by its own labels at every moment of an agent's start. Numbers for the labels of nodes
// are the agent's own, given as nodes come: here one that policy allows comes after one that it does not name but whose name is
// greater, so that who counts anew at the next start, by name, gives the number of the one to the other. That other one sends
// without a pause.
func TestCVE_2024_42488_NodeLabels(t *testing.T) {
	sc := score.Start(t, "CVE-2024-42488", "an agent starts anew after nodes with labels have come; a node that policy does not name sends without a pause")
	c := start(t, overlay, 2, map[string]any{"node-labels": []string{"role=evil"}})
	evil, judge := c.Nodes[0], c.Nodes[1]
	good, open := add(t, c, "good", 1), add(t, c, "open", 1)
	importPolicy(t, c, `[{"labels":[{"key":"name","value":"good"}],"endpointSelector":{"matchLabels":{"id":"good"}},"ingress":[{"fromNodes":[{"matchLabels":{"role":"good"}}]}]},
		{"labels":[{"key":"name","value":"open"}],"endpointSelector":{"matchLabels":{"id":"open"}},"ingress":[{"fromNodes":[{"matchLabels":{"role":"evil"}}]}]}]`)
	key := "cilium/state/nodes/v1/e2e/"
	row := ally(t, evil, key)
	closed, opened := startCounter(t, good.NS, 9000), startCounter(t, open.NS, 9000)
	var stops []func() uint64
	for _, to := range []*cluster.Pod{good, open} {
		for _, v6 := range overlay.families() {
			stops = append(stops, flood(t, evil.NS, netip.AddrPortFrom(to.Addr(v6), 9000), 3000))
		}
	}
	hears := func(what string) {
		t.Helper()
		before := opened.total()
		eventually(t, yes, what, func() error {
			if opened.total() < before+10 {
				return fmt.Errorf("%d datagrams", opened.total()-before)
			}
			return nil
		})
	}
	rounds := score.Size(3, 40)
	again := func() {
		t.Helper()
		if err := judge.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := judge.Start(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		hears("the node that the other policy names to be heard")
	}
	for range rounds {
		again() // its first number is the other's
		if _, err := evil.Admin().KVSet(t.Context(), connect.NewRequest(&agentv1.KVSetRequest{Key: key + "node0", Value: row})); err != nil {
			t.Fatal(err)
		}
		eventually(t, yes, "the good node to be known", func() error {
			st, err := judge.Status(t.Context())
			if err == nil && st.GetNodes() != 3 {
				err = fmt.Errorf("%d nodes", st.GetNodes())
			}
			return err
		})
		time.Sleep(200 * time.Millisecond) // its number is in the kernel by now, or the attack is weaker
		again()
		if _, err := evil.Admin().KVDelete(t.Context(), connect.NewRequest(&agentv1.KVDeleteRequest{Key: key + "node0"})); err != nil {
			t.Fatal(err)
		}
	}
	sent := uint64(0)
	for _, stop := range stops {
		sent += stop()
	}
	n := closed.total()
	if n > 0 {
		t.Errorf("%d datagrams of a node that the policy does not name passed", n)
	}
	sc.Count(2*rounds, "starts")
	sc.Say("%d of %d datagrams passed against policy", n, sent/2)
}

// ally is the store's row of a node before all others, which has the labels that policy allows.
func ally(t *testing.T, like *cluster.Node, key string) []byte {
	t.Helper()
	got, err := like.Admin().KVGet(t.Context(), connect.NewRequest(&agentv1.KVGetRequest{Key: key + like.Name}))
	if err != nil {
		t.Fatal(err)
	}
	var row model.Node
	if err := json.Unmarshal(got.Msg.GetPairs()[0].GetValue(), &row); err != nil {
		t.Fatal(err)
	}
	row.Name, row.BootID, row.FlowAddr = "node0", "", ""
	row.Addrs = []netip.Addr{netip.MustParseAddr("172.29.0.77"), netip.MustParseAddr("fd29::77")}
	row.Routers = []netip.Addr{netip.MustParseAddr("10.10.77.1"), netip.MustParseAddr("fd10::7701")}
	row.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.10.77.0/24"), netip.MustParsePrefix("fd10::7700/120")}
	row.Labels = model.NewLabels(model.Label{Source: model.SourceNode, Key: "role", Value: "good"})
	b, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
