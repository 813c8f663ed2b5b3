package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestConnectivity: everybody reaches everybody, in every mode and family: pods of the same and of the other node, nodes
// and pods both ways, and what is outside.
func TestConnectivity(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			a, b, far := add(t, c, "a", 0), add(t, c, "b", 0), add(t, c, "far", 1)
			if err := c.ServeOutside(); err != nil {
				t.Fatal(err)
			}
			for _, v6 := range m.families() {
				outside := netip.MustParseAddr(map[bool]string{false: cluster.Outside4, true: cluster.Outside6}[v6])
				for _, x := range []struct {
					what string
					from *netns.NS
					to   netip.Addr
					name string // who answers
				}{
					{"pod to pod, same node", a.NS, b.Addr(v6), "b"},
					{"pod to pod, other node", a.NS, far.Addr(v6), "far"},
					{"pod to pod, other node, back", far.NS, a.Addr(v6), "a"},
					{"pod to itself", a.NS, a.Addr(v6), "a"},
					{"node to its pod", c.Nodes[0].NS, a.Addr(v6), "a"},
					{"node to a pod of the other node", c.Nodes[0].NS, far.Addr(v6), "far"},
					{"pod to outside", a.NS, outside, "world"},
					{"pod of the other node to outside", far.NS, outside, "world"},
				} {
					t.Run(family(v6)+" "+x.what, func(t *testing.T) {
						got, err := fetch(x.from, x.to, workload.HTTPPort, yes)
						if err != nil || !strings.HasPrefix(got, x.name+" on ") {
							t.Errorf("HTTP: %q %v", got, err)
						}
						for _, network := range []string{"tcp", "udp"} {
							if err := echo(x.from, network, x.to, yes); err != nil {
								t.Errorf("%s: %v", network, err)
							}
						}
						if err := ping(x.from, x.to, yes); err != nil {
							t.Errorf("ping: %v", err)
						}
					})
				}
				for _, n := range c.Nodes {
					ip := map[bool]netip.Addr{false: n.IP4, true: n.IP6}[v6]
					t.Run(fmt.Sprintf("%s pod to %s", family(v6), n.Name), func(t *testing.T) {
						if err := ping(a.NS, ip, yes); err != nil {
							t.Errorf("ping: %v", err)
						}
						l, err := n.NS.Listen("tcp", netip.AddrPortFrom(ip, 8080).String())
						if err != nil {
							t.Fatal(err)
						}
						defer func() { _ = l.Close() }()
						conn, err := a.NS.DialContext(t.Context(), "tcp", l.Addr().String())
						if err != nil {
							t.Fatal(err)
						}
						_ = conn.Close()
					})
				}
			}
			for _, n := range c.Nodes { // green after all that
				out, err := c.Hypha(t.Context(), n, "status")
				if err != nil {
					t.Errorf("status of %s: %v\n%s", n.Name, err, out)
				}
			}
		})
	}
}

// TestSource: what outside sees of a pod is its node; another pod sees the pod itself.
func TestSource(t *testing.T) {
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			a, b, far := add(t, c, "a", 0), add(t, c, "b", 0), add(t, c, "far", 1)
			if err := c.ServeOutside(); err != nil {
				t.Fatal(err)
			}
			for _, v6 := range m.families() {
				outside := netip.MustParseAddr(map[bool]string{false: cluster.Outside4, true: cluster.Outside6}[v6])
				node := map[bool]netip.Addr{false: c.Nodes[0].IP4, true: c.Nodes[0].IP6}[v6]
				for _, x := range []struct {
					what     string
					to, want netip.Addr
				}{{"outside", outside, node}, {"pod", b.Addr(v6), a.Addr(v6)}, {"pod of the other node", far.Addr(v6), a.Addr(v6)}} {
					got, err := fetch(a.NS, x.to, workload.HTTPPort, yes)
					from := netip.AddrPortFrom(x.want, 0).String()
					if err != nil || !strings.Contains(got, "from "+strings.TrimSuffix(from, "0")) {
						t.Errorf("%s, seen by %s: %q %v, want %s", family(v6), x.what, got, err, x.want)
					}
				}
			}
		})
	}
}

// TestOutsideToPod: with a route to the pods, outside reaches them, and their answers keep their source.
func TestOutsideToPod(t *testing.T) {
	c := start(t, native, 2, nil)
	a := add(t, c, "a", 0)
	for _, v6 := range native.families() {
		bits, via := 32, c.Nodes[0].IP4
		if v6 {
			bits, via = 128, c.Nodes[0].IP6
		}
		if err := c.World.AddRoute(netip.PrefixFrom(a.Addr(v6), bits).String(), via.String()); err != nil {
			t.Fatal(err)
		}
		if got, err := fetch(c.World, a.Addr(v6), workload.HTTPPort, yes); err != nil || !strings.HasPrefix(got, "a on node1") {
			t.Errorf("%s: %q %v", family(v6), got, err)
		}
		if err := echo(c.World, "udp", a.Addr(v6), yes); err != nil {
			t.Errorf("%s: udp: %v", family(v6), err)
		}
	}
}
