package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
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
	for _, x := range []struct {
		mode
		way, dispatch string
	}{{overlay, "snat", "opt"}, {overlay, "dsr", "opt"}, {native, "hybrid", "opt"}, {native, "dsr", "geneve"}, {native, "dsr", "ipip"}} {
		m := x.mode
		t.Run(m.name+" "+x.way+" "+x.dispatch, func(t *testing.T) {
			c := start(t, m, 2, map[string]any{"bpf-lb-sock-hostns-only": true, "bpf-lb-mode": x.way, "bpf-lb-dsr-dispatch": x.dispatch})
			near, far, client := add(t, c, "near", 0, "app=near"), add(t, c, "far", 1, "app=far"), add(t, c, "client", 0, "app=client")
			sent := map[string]func() int64{} // packets inside others that the first node sends
			for _, v6 := range m.families() {
				for _, by := range []string{"geneve", "ipip"} {
					sent[family(v6)+" "+by] = tally(t, c.World, c.Nodes[0].Name, func(b []byte) bool { return encapsulated(b, v6, by == "geneve") })
				}
			}
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
							if err := transfer(c.World, netip.AddrPortFrom(node, port), 1<<20); err != nil {
								t.Errorf("%s: bulk data: %v", what, err)
							}
							if got, err := fetch(c.World, lb, port, yes); err != nil || !strings.HasPrefix(got, name+" on ") {
								t.Errorf("%s: load balancer: %q %v", what, got, err)
							}
						}
						got, err := fetch(c.World, node, port+1, yes)
						seen := map[bool]string{false: "172.29.0.254:", true: "[fd29::fe]:"}[v6]
						if here := x.way != "snat" || (name == "near") == (n == c.Nodes[0]); err != nil || strings.Contains(got, "from "+seen) != here {
							t.Errorf("%s: %q %v; the backend sees the client's own address: want %v", what, got, err, here)
						}
					}
					if got, err := fetch(client.NS, inner, port, yes); err != nil || !strings.HasPrefix(got, name+" on ") {
						t.Errorf("%s: from a workload to %s: %q %v", family(v6), name, got, err)
					}
					port += 2
				}
			}
			for what, n := range sent {
				if want := strings.HasSuffix(what, x.dispatch); n() > 0 != want {
					t.Errorf("%d packets by %s", n(), what)
				}
			}
			// The flows name the service, whichever way they go.
			for _, field := range []string{"source_service", "destination_service"} {
				eventually(t, yes, "flows with their "+field, func() error {
					out, err := c.Hypha(t.Context(), c.Nodes[0], "observe", "--last", "1000", "-o", "json")
					if err == nil && !strings.Contains(out, `"`+field+`":{"name":"near"`) {
						err = errors.New("none")
					}
					return err
				})
			}
			for _, n := range c.Nodes {
				if out, err := c.Hypha(t.Context(), n, "status"); err != nil {
					t.Errorf("status of %s: %v\n%s", n.Name, err, out)
				}
			}
		})
	}
}

// TestServicesAtTheEdge: who may not, is told; backends in the node's own stack and workloads that are their own backend answer; what
// runs keeps running while an agent is away and services change.
func TestServicesAtTheEdge(t *testing.T) {
	c := start(t, overlay, 2, map[string]any{"bpf-lb-sock-hostns-only": true})
	near, far := add(t, c, "near", 1, "app=near"), add(t, c, "far", 0, "app=far")
	node := c.Nodes[1] // the other one has the store
	on := func(n *cluster.Node, args ...string) {
		t.Helper()
		if out, err := c.Hypha(t.Context(), n, args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	update := func(id int, frontend, backends string, more ...string) {
		t.Helper()
		on(c.Nodes[0], append([]string{"service", "update", "--id", strconv.Itoa(id), "--frontend", frontend, "--backends", backends}, more...)...)
	}
	until := func(what string, ok func(error) bool, try func() error) {
		t.Helper()
		eventually(t, yes, what, func() error {
			if err := try(); !ok(err) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
	}
	works := func(err error) bool { return err == nil }
	refused := func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
	get := func(ns *netns.NS, to netip.Addr, port uint16, timeout time.Duration) func() error {
		return func() error {
			_, err := fetch(ns, to, port, timeout)
			return err
		}
	}
	var streams []*stream
	for i, v6 := range overlay.families() {
		of := func(v4, six string) netip.Addr { return netip.MustParseAddr(map[bool]string{false: v4, true: six}[v6]) }
		at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
		own, inner, every := of(node.IP4.String(), node.IP6.String()), of("10.96.0.90", "fd96::90"), of("0.0.0.0", "::")
		port, id := uint16(30500+i), 100+10*i
		name := family(v6)

		update(id, at(every, port), "", "--k8s-node-port")
		update(id+1, at(inner, port), "")
		until(name+": a node port without backends to refuse", refused, get(c.World, own, port, yes))
		until(name+": a VIP without backends to refuse", refused, get(near.NS, inner, port, yes))

		update(id+1, at(inner, port), at(near.Addr(v6), workload.HTTPPort))
		until(name+": a workload to reach itself by its service", works, get(near.NS, inner, port, yes))

		update(id, at(every, port), at(far.Addr(v6), workload.HTTPPort), "--k8s-node-port", "--source-ranges", of("198.51.100.0", "2001:db8:5::").String()+map[bool]string{false: "/24", true: "/48"}[v6])
		until(name+": somebody outside the source ranges to hear nothing", dropped, get(c.World, own, port, no))
		update(id, at(every, port), at(far.Addr(v6), workload.HTTPPort), "--k8s-node-port", "--source-ranges", "")
		until(name+": everybody to be let in again", works, get(c.World, own, port, yes))

		// This node has no backend of its own: with the policy Local it serves nobody from outside, but its workloads.
		update(id, at(every, port), at(far.Addr(v6), workload.HTTPPort), "--k8s-node-port", "--k8s-ext-traffic-policy", "Local")
		until(name+": a node without an own backend to refuse", refused, get(c.World, own, port, yes))

		// The node itself.
		l, err := node.NS.Listen("tcp", at(own, 8090))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{ReadHeaderTimeout: yes, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("node")) })}
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(func() { _ = srv.Close() })
		update(id+2, at(every, port+100), at(own, 8090), "--k8s-node-port")
		until(name+": a backend in the node's stack to answer outside", works, get(c.World, own, port+100, yes))
		update(id+3, at(inner, port+100), at(own, 8090))
		until(name+": a backend in the node's stack to answer a workload", works, get(near.NS, inner, port+100, yes))

		for k, p := range []*cluster.Pod{near, far} {
			update(id+4+k, at(every, port+200+uint16(10*k)), at(p.Addr(v6), workload.EchoPort), "--k8s-node-port")
			until(name+": streams to "+p.Name, works, func() error { return askAt(c.World, "tcp", netip.AddrPortFrom(own, port+200+uint16(10*k))) })
			streams = append(streams, startStreamAt(t, c.World, netip.AddrPortFrom(own, port+200+uint16(10*k))))
		}
	}
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, v6 := range overlay.families() {
		every := map[bool]string{false: "0.0.0.0", true: "[::]"}[v6]
		update(106+10*i, fmt.Sprintf("%s:%d", every, 30900+i), netip.AddrPortFrom(far.Addr(v6), workload.HTTPPort).String(), "--k8s-node-port")
		on(c.Nodes[0], "service", "delete", strconv.Itoa(102+10*i))
	}
	if err := node.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for i, v6 := range overlay.families() {
		own := map[bool]netip.Addr{false: node.IP4, true: node.IP6}[v6]
		until("what was made while the agent was away", works, get(c.World, own, uint16(30900+i), yes))
		until("what was deleted while the agent was away to be the node's own port again", refused, get(c.World, own, uint16(30600+i), yes))
	}
	for _, s := range streams {
		if err := s.alive(yes); err != nil {
			t.Errorf("a stream by a node port, over the restart: %v", err)
		}
	}
}
