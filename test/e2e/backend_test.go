package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/cgroup"
	"github.com/hypha-net/hypha/internal/datapath/socket"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	tns "github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// of runs fn in the control group of a node: sockets that it makes find the node's services, for as long as they live.
func of(t *testing.T, n *cluster.Node, fn func()) {
	t.Helper()
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrNone) {
		t.Skip(err)
	}
	text, ferr := os.ReadFile("/proc/self/cgroup")
	_, home, ok := strings.Cut(string(text), "0::")
	home, _, _ = strings.Cut(home, "\n")
	if err = errors.Join(err, ferr); err != nil || !ok {
		t.Fatalf("own control group: %v in %q", err, text)
	}
	if err := lab.EnterCgroup(n.Paths); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(filepath.Join(root, home, "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Error(err)
		}
	}()
	fn()
}

// caller is a socket that is connected to an echo service.
type caller struct {
	net.Conn
	what string
}

func callFrom(t *testing.T, n *cluster.Node, ns *netns.NS, network string, to netip.Addr) *caller {
	t.Helper()
	c := &caller{what: fmt.Sprintf("%s from %s to %s", network, ns.Name(), to)}
	of(t, n, func() {
		eventually(t, yes, c.what, func() (err error) {
			if c.Conn, err = ns.DialContext(t.Context(), network, netip.AddrPortFrom(to, workload.EchoPort).String()); err != nil {
				return err
			}
			if err = c.talk(); err != nil {
				_ = c.Close()
			}
			return err
		})
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// talk sends something and waits until it comes back.
func (c *caller) talk() error {
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("?")); err != nil && !errors.Is(err, unix.EDESTADDRREQ) { // reading tells why nobody is there any more
		return err
	}
	_, err := c.Read(make([]byte, 8))
	return err
}

func (c *caller) ended(t *testing.T) {
	t.Helper()
	eventually(t, yes, c.what+" ends", func() error {
		if err := c.talk(); !errors.Is(err, unix.ECONNABORTED) {
			return fmt.Errorf("talks: %w", err)
		}
		return nil
	})
}

func alive(t *testing.T, cs ...*caller) {
	t.Helper()
	for _, c := range cs {
		if err := c.talk(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestBackendLeaves: a socket that was led to a backend ends when that has left the service, the node's and a workload's, and its
// owner gets another backend; one that merely terminates keeps it, and who went there on his own is left alone. An agent that did
// not see it go sees that it has gone. TCP sockets end where that is wanted.
func TestBackendLeaves(t *testing.T) {
	tns.Require(t)
	if err := socket.Probe(); err != nil {
		t.Skip(err)
	}
	for _, m := range []struct {
		name string
		tcp  bool
	}{{"UDP", false}, {"UDP and TCP", true}} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, overlay, 2, map[string]any{"lb-sock-terminate-all-protos": m.tcp})
			b1, b2, client := add(t, c, "b1", 0), add(t, c, "b2", 1), add(t, c, "client", 1)
			n := c.Nodes[1]
			vip := netip.MustParseAddr("10.96.0.7")
			hypha := func(args ...string) {
				t.Helper()
				if _, err := c.Hypha(t.Context(), c.Nodes[0], args...); err != nil {
					t.Fatal(err)
				}
			}
			at := func(p *cluster.Pod) string { return netip.AddrPortFrom(p.Addr(false), workload.EchoPort).String() }
			update := func(more ...string) {
				t.Helper()
				for _, proto := range []string{"TCP", "UDP"} {
					hypha(append([]string{"service", "update", "--frontend", fmt.Sprintf("%s:%d/%s", vip, workload.EchoPort, proto)}, more...)...)
				}
			}
			update("--backends", at(b1))
			var datagrams, streams, straight []*caller
			for _, ns := range []*netns.NS{n.NS, client.NS} {
				datagrams = append(datagrams, callFrom(t, n, ns, "udp", vip))
				streams = append(streams, callFrom(t, n, ns, "tcp", vip))
				for _, network := range []string{"udp", "tcp"} {
					straight = append(straight, callFrom(t, n, ns, network, b1.Addr(false)))
				}
			}
			// Who is led to the backend of a service that goes after the change has ended when the change has been dealt with.
			settle := func() {
				t.Helper()
				const other = "10.96.0.8"
				hypha("service", "update", "--id", "99", "--frontend", fmt.Sprintf("%s:%d/UDP", other, workload.EchoPort), "--backends", at(b2))
				last := callFrom(t, n, client.NS, "udp", netip.MustParseAddr(other))
				hypha("service", "delete", "99")
				last.ended(t)
			}
			update("--backends", at(b1)+","+at(b2), "--states", "terminating,active")
			settle()
			alive(t, datagrams...)
			alive(t, streams...)

			update("--backends", at(b2))
			for i, d := range datagrams {
				d.ended(t)
				datagrams[i] = callFrom(t, n, []*netns.NS{n.NS, client.NS}[i], "udp", vip)
			}
			if m.tcp {
				for _, s := range streams {
					s.ended(t)
				}
			} else {
				settle()
				alive(t, streams...)
			}
			alive(t, straight...)

			if err := n.Kill(); err != nil {
				t.Fatal(err)
			}
			update("--backends", at(b1))
			alive(t, datagrams...)
			if err := n.Start(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			for _, d := range datagrams {
				d.ended(t)
			}
			alive(t, straight...)
			out, err := c.Hypha(t.Context(), n, "status")
			if err != nil || !strings.Contains(out, "2 frontends, 2 backends") || strings.Contains(out, "stay connected") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestHealthCheckNodePort: each node says whether it has a backend itself, in its own time, and status tells when it cannot.
func TestHealthCheckNodePort(t *testing.T) {
	const port = 31000
	c := start(t, overlay, 2, nil)
	near, far := add(t, c, "near", 0), add(t, c, "far", 1)
	ask := func(n *cluster.Node) (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), yes)
		defer cancel()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.World.DialContext}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+netip.AddrPortFrom(n.IP4, port).String()+"/healthz", nil)
		if err != nil {
			return 0, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	answers := func(first, second int) {
		t.Helper()
		for i, want := range []int{first, second} {
			eventually(t, yes, fmt.Sprintf("%d at %s", want, c.Nodes[i].Name), func() error {
				if got, err := ask(c.Nodes[i]); got != want {
					return fmt.Errorf("%d, %w", got, err)
				}
				return nil
			})
		}
	}
	update := func(args ...string) {
		t.Helper()
		if _, err := c.Hypha(t.Context(), c.Nodes[0], append([]string{"service", "update", "--id", "1"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	backend := func(p *cluster.Pod) string { return netip.AddrPortFrom(p.Addr(false), workload.HTTPPort).String() }
	taken, err := c.Nodes[1].NS.Listen("tcp", netip.AddrPortFrom(c.Nodes[1].IP4, port).String())
	if err != nil {
		t.Fatal(err)
	}
	update("--frontend", "203.0.113.80:80", "--k8s-load-balancer", "--k8s-ext-traffic-policy", "Local", "--health-check-node-port", fmt.Sprint(port),
		"--name", "shop/web", "--backends", backend(near))
	eventually(t, yes, "status tells of a port that is taken", func() error {
		out, err := c.Hypha(t.Context(), c.Nodes[1], "status")
		if !strings.Contains(out, "health-check node port of shop/web: listen tcp "+c.Nodes[1].IP4.String()+":31000: bind: address already in use") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	answers(200, 503)
	update("--backends", backend(near)+","+backend(far), "--states", "terminating,active")
	answers(503, 200)
	update("--backends", backend(near)+","+backend(far))
	answers(200, 200)
	if out, err := c.Hypha(t.Context(), c.Nodes[1], "status"); err != nil || strings.Contains(out, "health-check") {
		t.Errorf("%v\n%s", err, out)
	}
	update("--health-check-node-port", "0")
	answers(0, 0)
}
