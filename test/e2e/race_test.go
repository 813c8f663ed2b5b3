package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCVE_2023_27595_ProgramsDuringStart: while an agent starts, also one that has to load all programs anew and replace those at
// work, each hook has exactly one program whenever it is looked at, forbidden connections get nowhere and streams go on.
func TestCVE_2023_27595_ProgramsDuringStart(t *testing.T) {
	sc := score.Start(t, "CVE-2023-27595", "hooks looked at and connections tried without a pause while agents start, with programs adopted and replaced")
	c := start(t, overlay, 2, nil)
	app1, app2, app3 := add(t, c, "app1", 0), add(t, c, "app2", 0), add(t, c, "app3", 0)
	far := add(t, c, "far", 1, "id=app3")
	importPolicy(t, c, string(demo.Policy))
	importPolicy(t, c, allow("app2", "app1", workload.EchoPort))
	n := c.Nodes[0]
	s := startStream(t, app2.NS, app1.Addr(false))
	stops := []func() (uint64, uint64){knock(t, app3.NS, app1.Addr(false)), knock(t, app3.NS, app1.Addr(true)), knock(t, far.NS, app1.Addr(false))}
	look := watchHooks(t, n)
	starts := score.Size(4, 40)
	for i := range starts {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 { // nothing to adopt: loaded and replaced
			if err := os.RemoveAll(n.Paths.Programs()); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Start(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if err := s.alive(yes); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	looks, bare := look()
	var tried, passed uint64
	for _, stop := range stops {
		a, b := stop()
		tried, passed = tried+a, passed+b
	}
	if passed > 0 || tried == 0 {
		t.Errorf("%d of %d connections passed against policy", passed, tried)
	}
	if len(bare) > 0 {
		t.Errorf("%d times a hook had not exactly one program: %v", len(bare), bare[:min(len(bare), 5)])
	}
	sc.Count(starts, "starts")
	sc.Say("0 of %d looks at hooks found one without its program, %d of %d connections passed", looks, passed, tried)
}

// watchHooks looks at the hooks of a node's devices until it is called: how often, and where there was not one program.
func watchHooks(t *testing.T, n *cluster.Node) func() (looks int, bare []string) {
	t.Helper()
	type hook struct {
		index int
		at    ebpf.AttachType
		name  string
	}
	var hooks []hook
	err := n.NS.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				res, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: at})
				if err != nil {
					return err
				}
				if len(res.Programs) > 0 {
					hooks = append(hooks, hook{l.Attrs().Index, at, fmt.Sprintf("%s %v", l.Attrs().Name, at)})
				}
			}
		}
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("this kernel has no tcx to look at")
	}
	if err != nil || len(hooks) < 8 {
		t.Fatalf("%d hooks: %v", len(hooks), err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	var looks int
	var bare []string
	go func() {
		defer close(done)
		err := n.NS.Do(func() error {
			for {
				for _, h := range hooks {
					select {
					case <-quit:
						return nil
					default:
					}
					res, err := link.QueryPrograms(link.QueryOptions{Target: h.index, Attach: h.at})
					if looks++; err != nil || len(res.Programs) != 1 {
						bare = append(bare, fmt.Sprintf("%s: %v %v", h.name, res, err))
					}
				}
				time.Sleep(100 * time.Microsecond)
			}
		})
		if err != nil {
			bare = append(bare, err.Error())
		}
	}()
	var once sync.Once
	stop := func() (int, []string) { once.Do(func() { close(quit) }); <-done; return looks, bare }
	t.Cleanup(func() { stop() })
	return stop
}

// TestCalico13390_ConnectionBeforeRoute: connections to an address that began before its workload was there, and go on without a
// pause from the same ports while it is attached and its route is set, are judged by its policy like any other: from a workload of
// the same node and of the other one, the other node itself, and outside. Neither does one that was allowed with who had the
// address before live on.
func TestCalico13390_ConnectionBeforeRoute(t *testing.T) {
	sc := score.Start(t, "Calico PR 13390", "connections that begin before the workload is there; its address had been another's, to whom they were allowed")
	c := start(t, native, 2, nil)
	near, far := add(t, c, "near", 0), add(t, c, "far", 1)
	importPolicy(t, c, `[{"labels":[{"key":"name","value":"closed"}],"endpointSelector":{"matchLabels":{"id":"closed"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"nobody"}}]}]}]`)
	scout := add(t, c, "scout", 0)
	addrs := slices.Clone(scout.Addrs)
	for _, a := range addrs { // the world may route to workloads
		via := map[bool]netip.Addr{false: c.Nodes[0].IP4, true: c.Nodes[0].IP6}[a.Is6()]
		if err := c.World.AddRoute(netip.PrefixFrom(a, a.BitLen()).String(), via.String()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Delete(t.Context(), scout); err != nil {
		t.Fatal(err)
	}
	var stops []func() uint64
	for _, from := range []*netns.NS{near.NS, far.NS, c.Nodes[1].NS, c.World} {
		for _, a := range addrs {
			stops = append(stops, persist(t, from, netip.AddrPortFrom(a, 9000)))
		}
	}
	rounds := score.Size(4, 60)
	var heard uint64
	for i := range rounds {
		for _, who := range []string{"open", "closed"} {
			p, err := c.Prepare(cluster.PodSpec{Name: fmt.Sprintf("%s%d", who, i), Labels: []string{"id=" + who}, Addrs: addrs})
			if err != nil {
				t.Fatal(err)
			}
			ear := startCounter(t, p.NS, 9000)
			l, err := p.NS.Listen("tcp", ":9000")
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan string, 1000)
			go accept(l, accepted)
			if err := c.Attach(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if who == "open" { // so that all of them are on record as allowed
				eventually(t, yes, "all to reach the open workload", func() error {
					ear.mu.Lock()
					defer ear.mu.Unlock()
					if len(ear.from) < len(stops) {
						return fmt.Errorf("heard %v", ear.from)
					}
					return nil
				})
				heard += ear.total()
			} else {
				time.Sleep(300 * time.Millisecond)
				if n := ear.total(); n > 0 {
					t.Errorf("round %d: the closed workload heard %d datagrams, from %v", i, n, ear.from)
				}
				select {
				case from := <-accepted:
					t.Errorf("round %d: the closed workload accepted a connection of %s", i, from)
				default:
				}
			}
			if err := errors.Join(l.Close(), c.Delete(t.Context(), p)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var sent uint64
	for _, stop := range stops {
		sent += stop()
	}
	sc.Count(rounds, "workloads")
	sc.Say("0 of %d packets from %d sources reached a closed workload; %d reached the open ones before", sent, len(stops), heard)
}

// persist sends datagrams from one port, and asks for TCP connections, until stop, which returns how many.
func persist(t *testing.T, from *netns.NS, to netip.AddrPort) (stop func() uint64) {
	t.Helper()
	conn, err := from.DialContext(t.Context(), "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan uint64, 1)
	go func() {
		var n uint64
		var b [8]byte
		for {
			select {
			case <-quit:
				done <- n
				return
			default:
			}
			if n++; n%50 == 0 {
				if tcp, err := dialFor(from, to, 2*time.Millisecond); err == nil {
					_ = tcp.Close()
				}
			}
			binary.BigEndian.PutUint64(b[:], n)
			_, _ = conn.Write(b[:]) // refused: nobody is there, or nobody listens yet
			time.Sleep(500 * time.Microsecond)
		}
	}()
	var once sync.Once
	stop = func() (n uint64) {
		once.Do(func() { close(quit); n = <-done; _ = conn.Close() })
		return n
	}
	t.Cleanup(func() { stop() })
	return stop
}

// dialFor asks for a TCP connection for so long.
func dialFor(from *netns.NS, to netip.AddrPort, d time.Duration) (net.Conn, error) {
	return from.DialContext(contextWith(d), "tcp", to.String())
}
