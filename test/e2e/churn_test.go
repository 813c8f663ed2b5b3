package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// crowd is a thousand backends, by pods that listen at many ports each. One that is not in its service does not listen.
type crowd struct {
	t    *testing.T
	c    *cluster.Cluster
	at   []netip.AddrPort
	pods []*cluster.Pod // by backend
	on   []net.Listener // by backend, nil: does not listen
	wg   sync.WaitGroup
}

func newCrowd(t *testing.T, c *cluster.Cluster, size int, v6 bool, pods ...*cluster.Pod) *crowd {
	t.Helper()
	cr := &crowd{t: t, c: c, on: make([]net.Listener, size)}
	for i := range size {
		p := pods[i%len(pods)]
		cr.at, cr.pods = append(cr.at, netip.AddrPortFrom(p.Addr(v6), uint16(10000+i))), append(cr.pods, p)
	}
	t.Cleanup(func() {
		for i := range cr.on {
			cr.close(i)
		}
		cr.wg.Wait()
	})
	return cr
}

// open lets a backend listen: it sends back four bytes of whoever comes.
func (cr *crowd) open(i int) {
	cr.t.Helper()
	l, err := cr.pods[i].NS.Listen("tcp", cr.at[i].String())
	if err != nil {
		cr.t.Fatal(err)
	}
	cr.on[i] = l
	cr.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			cr.wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(yes))
				_, _ = io.CopyN(conn, conn, 4)
			})
		}
	})
}

func (cr *crowd) close(i int) {
	if cr.on[i] != nil {
		_ = cr.on[i].Close()
		cr.on[i] = nil
	}
}

// serve gives the service those who listen but the ones that go, and returns when no kernel gives these to anybody.
func (cr *crowd) serve(front netip.AddrPort, going map[int]bool) {
	cr.t.Helper()
	s := &agentv1.Service{Id: 1, Type: "NodePort", Frontend: &agentv1.Frontend{Ip: front.Addr().String(), Port: uint32(front.Port()), Protocol: "TCP"}}
	for i, l := range cr.on {
		if l != nil && !going[i] {
			s.Backends = append(s.Backends, &agentv1.Backend{Ip: cr.at[i].Addr().String(), Port: uint32(cr.at[i].Port()), Protocol: "TCP", State: "active"})
		}
	}
	if _, err := cr.c.Nodes[0].Admin().UpdateService(cr.t.Context(), connect.NewRequest(&agentv1.UpdateServiceRequest{Service: s})); err != nil {
		cr.t.Fatal(err)
	}
	for _, n := range cr.c.Nodes {
		eventually(cr.t, yes, n.Name+" to have the new backends", func() error {
			out, err := cr.c.Hypha(cr.t.Context(), n, "bpf", "lb", "list")
			if err != nil {
				return err
			}
			for i := range cr.on {
				if want := cr.on[i] != nil && !going[i]; strings.Contains(out, cr.at[i].String()) != want {
					return fmt.Errorf("backend %s: want it there %v", cr.at[i], want)
				}
			}
			return nil
		})
	}
}

// TestBackendsComeAndGo: a client outside connects without a pause, by node ports of both nodes, while a tenth of a thousand backends
// goes and comes back, elsewhere in the set. No connection fails: the one that the kernel picks was active when it was picked.
func TestBackendsComeAndGo(t *testing.T) {
	type way struct {
		mode
		options map[string]any
	}
	ways := []way{{overlay, nil}, {native, map[string]any{"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": "ipip"}}, {overlay, map[string]any{"bpf-lb-algorithm": "maglev"}}}
	for _, w := range ways[:score.Size(2, len(ways))] {
		name := fmt.Sprint(w.name, w.options)
		t.Run(name, func(t *testing.T) {
			sc := score.Start(t, "services", "a tenth of 1000 backends goes and comes back while a client outside connects without a pause: "+name)
			r := sc.Rand()
			c := start(t, w.mode, 2, w.options)
			cr := newCrowd(t, c, 1000, false, add(t, c, "a", 0), add(t, c, "b", 0), add(t, c, "c", 1), add(t, c, "d", 1))
			front := netip.AddrPortFrom(netip.IPv4Unspecified(), 31000)
			gone := map[int]bool{}
			for i := range cr.at {
				if i%10 == 0 {
					gone[i] = true
				} else {
					cr.open(i)
				}
			}
			cr.serve(front, nil)

			ctx, cancel := context.WithCancel(t.Context())
			var done atomic.Int64
			var wg sync.WaitGroup
			var first atomic.Pointer[error]
			fails := atomic.Int64{}
			for i := range 4 {
				to := netip.AddrPortFrom(c.Nodes[i%2].IP4, front.Port())
				wg.Go(func() {
					for ctx.Err() == nil {
						if err := fourBytes(c.World, to); err != nil {
							err = fmt.Errorf("%s: %w", to, err)
							first.CompareAndSwap(nil, &err)
							fails.Add(1)
						}
						done.Add(1)
						time.Sleep(time.Millisecond) // the churn needs a processor too
					}
				})
			}
			rounds := score.Size(6, 300)
			for range rounds {
				going := map[int]bool{}
				for len(going) < 100 {
					if i := r.IntN(len(cr.at)); !gone[i] {
						going[i] = true
					}
				}
				for i := range gone {
					cr.open(i)
				}
				cr.serve(front, going)
				time.Sleep(200 * time.Millisecond) // a segment that was let through earlier has arrived
				for i := range going {
					cr.close(i)
				}
				gone = going
			}
			cancel()
			wg.Wait()
			sc.Count(int(done.Load()), "connections")
			sc.Say("%d failed, %d backends went and came", fails.Load(), 100*rounds)
			if err := first.Load(); err != nil {
				t.Errorf("%d of %d connections failed, the first: %v", fails.Load(), done.Load(), *err)
			}
			if done.Load() < int64(rounds)*20 {
				t.Errorf("%d connections in %d rounds: no load", done.Load(), rounds)
			}
			for _, n := range c.Nodes {
				out, err := c.Hypha(t.Context(), n, "metrics", "list")
				if err != nil {
					t.Error(err)
				}
				for l := range strings.Lines(out) {
					if strings.Contains(l, "drop_count_total") && slices.ContainsFunc([]string{"No mapping", "Service backend"}, func(s string) bool { return strings.Contains(l, s) }) {
						flows, err := c.Hypha(t.Context(), n, "observe", "--verdict", "DROPPED", "--last", "20")
						t.Errorf("%s: %s%s%v", n.Name, l, flows, err)
					}
				}
			}
		})
	}
}

// fourBytes connects, has its bytes come back, and leaves without a trace, so that its port can be had again at once.
func fourBytes(ns *netns.NS, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), yes)
	defer cancel()
	conn, err := ns.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := errors.Join(conn.SetDeadline(time.Now().Add(yes)), conn.(*net.TCPConn).SetLinger(0)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("ping")); err != nil {
		return fmt.Errorf("connected, then: %w", err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		return fmt.Errorf("connected, then: %w", err)
	}
	return nil
}
