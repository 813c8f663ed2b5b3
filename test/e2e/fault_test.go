package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// told waits until `hypha status` of a node says all of this.
func told(t *testing.T, c *cluster.Cluster, n *cluster.Node, want ...string) {
	t.Helper()
	eventually(t, time.Minute, "status of "+n.Name, func() error {
		text, _ := c.Hypha(t.Context(), n, "status") // its code is 1 where something is wrong
		for _, w := range want {
			if !strings.Contains(text, w) {
				return fmt.Errorf("it lacks %q:\n%s", w, text)
			}
		}
		return nil
	})
}

// datagrams sends some from a namespace to each of these ports, from a socket each.
func datagrams(t *testing.T, from *netns.NS, to netip.Addr, first, ports, each int) {
	t.Helper()
	err := from.Do(func() error {
		for p := range ports {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, uint16(first+p))))
			if err != nil {
				return err
			}
			for range each {
				_, _ = c.Write([]byte("x")) // a refusal by ICMP is as good
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cidrRules are rules each of which lets id=app talk to a prefix of its own at a port of its own.
func cidrRules(n int) string {
	var rules []string
	for i := range n {
		rules = append(rules, fmt.Sprintf(`{"labels":[{"key":"name","value":"many"}],"endpointSelector":{"matchLabels":{"id":"app"}},
			"egress":[{"toCIDR":["198.51.%d.%d/32"],"toPorts":[{"ports":[{"port":"%d","protocol":"TCP"}]}]}]}`, i>>8, i&0xff, 1000+i))
	}
	return "[" + strings.Join(rules, ",") + "]"
}

// prefixRule is one rule that lets id=app talk to so many prefixes.
func prefixRule(n int) string {
	var cidrs []string
	for i := range n {
		cidrs = append(cidrs, fmt.Sprintf(`"198.51.%d.%d/32"`, i>>8, i&0xff))
	}
	return `[{"labels":[{"key":"name","value":"many"}],"endpointSelector":{"matchLabels":{"id":"app"}},"egress":[{"toCIDR":[` + strings.Join(cidrs, ",") + `]}]}]`
}

// TestFaults provokes faults on a real node, one after the other, and reads what `hypha status` says of each: what, where, and how
// to mend it. Mended, or over, it says that all is well. (Case 24's tests do so with disks and the embedded store.)
func TestFaults(t *testing.T) {
	c := start(t, overlay, 2, map[string]any{"masquerade-port-range": "20000-20255", "bpf-events-ring-size": 4096, "bpf-ct-global-max": 8192,
		"bpf-policy-map-max": 64, "bpf-ipcache-max": 256})
	n, far := c.Nodes[0], c.Nodes[1]
	app, peer := add(t, c, "app", 0), add(t, c, "peer", 0)
	if err := c.ServeOutside(); err != nil {
		t.Fatal(err)
	}
	well := func(t *testing.T, n *cluster.Node) {
		t.Helper()
		eventually(t, 3*time.Minute, n.Name+" well again", func() error { return whole(t.Context(), n) })
	}
	well(t, n)
	full := func(t *testing.T, doc string, want ...string) {
		t.Helper()
		if _, err := n.Admin().ImportPolicy(t.Context(), connect.NewRequest(&agentv1.ImportPolicyRequest{Document: doc, Filename: "test"})); err != nil {
			t.Fatal(err)
		}
		told(t, c, n, append(want, "policy", "Failure", "map is full", "stays in force", "to mend: raise")...)
		if err := echo(app.NS, "tcp", peer.Addr(false), yes); err != nil {
			t.Errorf("the policy before is not in force: %v", err)
		}
		if err := c.DeletePolicies(t.Context(), "name=many"); err != nil {
			t.Fatal(err)
		}
		well(t, n)
	}
	for _, x := range []struct {
		name string
		try  func(t *testing.T)
	}{
		{"policy map full", func(t *testing.T) { full(t, cidrRules(100), "policy_v1", "bpf-policy-map-max") }},
		{"address map full", func(t *testing.T) { full(t, prefixRule(400), "ipcache", "bpf-ipcache-max") }},
		{"masquerade ports used up", func(t *testing.T) {
			for range 600 { // of which 256 find a port
				datagrams(t, app.NS, netip.MustParseAddr(cluster.Outside4), workload.EchoPort, 1, 1)
			}
			told(t, c, n, "drops", "Warning", "No mapping for NAT masquerade, reason 167", "to mend: widen masquerade-port-range")
		}},
		{"events lost, connections nearly full", func(t *testing.T) {
			datagrams(t, app.NS, peer.Addr(false), 20000, 16000, 1)
			told(t, c, n, "events", "lost in the last", "bpf-events-ring-size", "connections", "nearly full: ct_v1", "bpf-ct-global-max")
		}},
		{"pin removed", func(t *testing.T) {
			if err := os.Remove(filepath.Join(n.Paths.Maps(), "policy_v1")); err != nil {
				t.Fatal(err)
			}
			told(t, c, n, "kernel objects", "in place; repaired at", "1 pin of a map had been removed")
		}},
		{"tunnel device removed", func(t *testing.T) {
			if err := n.NS.Do(func() error { return deleteLink("hypha_vxlan") }); err != nil {
				t.Fatal(err)
			}
			told(t, c, n, "kernel objects", "in place; repaired at", "the tunnel device")
		}},
		{"state file damaged", func(t *testing.T) {
			add(t, c, "victim", 1)
			eps, err := far.Endpoints(t.Context())
			if err != nil || len(eps) != 1 {
				t.Fatal(eps, err)
			}
			if err := far.Kill(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(far.Paths.Endpoints(), fmt.Sprint(eps[0].GetId())+".json")
			if err := os.Truncate(path, 10); err != nil {
				t.Fatal(err)
			}
			if err := far.Start(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			told(t, c, far, "state files", "Warning", path+".damaged", "to mend:", "rm -r "+path+".damaged")
			if err := os.Remove(path + ".damaged"); err != nil {
				t.Fatal(err)
			}
			well(t, far)
		}},
		{"agent down, store away", func(t *testing.T) {
			if err := n.Kill(); err != nil {
				t.Fatal(err)
			}
			text, err := c.Hypha(t.Context(), n, "status")
			if err == nil || !strings.Contains(text, "is not running (socket "+n.Paths.AgentSocket()+")") || !strings.Contains(text, "hypha-agent --state-dir "+c.Dir+" --node-name node1") {
				t.Errorf("status of an agent that is down: %v: %s", err, text)
			}
			told(t, c, far, "kvstore", "Warning", "not reached since", "https://172.29.0.1:2379", "to mend: bring the store at")
			if err := n.Start(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			well(t, far)
		}},
	} {
		t.Run(x.name, x.try)
	}
}
