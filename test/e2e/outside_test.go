package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
)

// askAt wants an echo service at an address to answer.
func askAt(ns *netns.NS, network string, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), yes)
	defer cancel()
	_, err := workload.Client{Dial: ns.DialContext}.Echo(ctx, network, at.String())
	return err
}

// TestServicesFromOutside: a client outside reaches node ports of every node, load balancers' and external addresses, whichever
// node the backend is on; so do workloads whose sockets the nodes leave alone. Policy is the backend's, about who really asks where
// the backend is on the node that was asked.
func TestServicesFromOutside(t *testing.T) {
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, map[string]any{"bpf-lb-sock-hostns-only": true})
			near, far, client := add(t, c, "near", 0, "app=near"), add(t, c, "far", 1, "app=far"), add(t, c, "client", 0, "app=client")
			id := 0
			serve := func(frontend, backends string, more ...string) (number string) {
				t.Helper()
				id++
				args := append([]string{"service", "update", "--id", strconv.Itoa(id), "--frontend", frontend, "--backends", backends}, more...)
				if out, err := c.Hypha(t.Context(), c.Nodes[0], args...); err != nil {
					t.Fatalf("%v: %v %s", args, err, out)
				}
				return strconv.Itoa(id)
			}
			both := func(what string) {
				t.Helper()
				for _, n := range c.Nodes {
					eventually(t, yes, n.Name+" to serve "+what, func() error {
						out, err := c.Hypha(t.Context(), n, "bpf", "lb", "list")
						if err == nil && !strings.Contains(out, what) {
							err = fmt.Errorf("%s", out)
						}
						return err
					})
				}
			}
			for i, v6 := range m.families() {
				at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
				of := func(v4, six string) netip.Addr { return netip.MustParseAddr(map[bool]string{false: v4, true: six}[v6]) }
				lb, inner, every := of("192.0.2.80", "2001:db8:80::80"), of("10.96.0.80", "fd96::80"), of("0.0.0.0", "::")
				pods := map[string]netip.Addr{"near": near.Addr(v6), "far": far.Addr(v6)}
				port := uint16(30100 + 10*i)
				for name, addr := range pods {
					for _, proto := range []string{"tcp", "udp"} {
						serve(at(every, port), at(addr, workload.EchoPort), "--protocol", proto, "--k8s-node-port", "--name", name)
					}
					serve(at(every, port+1), at(addr, workload.HTTPPort), "--k8s-node-port")
					serve(at(lb, port), at(addr, workload.HTTPPort), "--k8s-load-balancer")
					serve(at(inner, port), at(addr, workload.HTTPPort))
					both(at(inner, port))
					for _, n := range c.Nodes {
						node := map[bool]netip.Addr{false: n.IP4, true: n.IP6}[v6]
						if err := c.World.AddRoute(netip.PrefixFrom(lb, lb.BitLen()).String(), node.String()); err != nil {
							t.Fatal(err)
						}
						what := fmt.Sprintf("%s %s by way of %s", family(v6), name, n.Name)
						for range 3 {
							for _, proto := range []string{"tcp", "udp"} {
								if err := askAt(c.World, proto, netip.AddrPortFrom(node, port)); err != nil {
									t.Errorf("%s: node port, %s: %v", what, proto, err)
								}
							}
							if got, err := fetch(c.World, lb, port, yes); err != nil || !strings.HasPrefix(got, name+" on ") {
								t.Errorf("%s: load balancer: %q %v", what, got, err)
							}
						}
						got, err := fetch(c.World, node, port+1, yes)
						seen := map[bool]string{false: "172.29.0.254:", true: "[fd29::fe]:"}[v6]
						if here := (name == "near") == (n == c.Nodes[0]); err != nil || strings.Contains(got, "from "+seen) != here {
							t.Errorf("%s: %q %v; the backend sees the client's own address: want %v", what, got, err, here)
						}
					}
					if got, err := fetch(client.NS, inner, port, yes); err != nil || !strings.HasPrefix(got, name+" on ") {
						t.Errorf("%s: from a workload to %s: %q %v", family(v6), name, got, err)
					}
					port += 2
				}
			}
			for _, n := range c.Nodes {
				if out, err := c.Hypha(t.Context(), n, "status"); err != nil {
					t.Errorf("status of %s: %v\n%s", n.Name, err, out)
				}
			}
		})
	}
}
