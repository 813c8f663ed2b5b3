package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestAddWhileDown (reliability case 2): without the agent, ADD fails within 5 s, says so, and leaves nothing.
func TestAddWhileDown(t *testing.T) {
	c := start(t, overlay, 1, nil)
	if err := c.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	p, err := c.Prepare(cluster.PodSpec{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = c.Attach(t.Context(), p)
	var said *types.Error
	if !errors.As(err, &said) || !strings.Contains(err.Error(), "agent") {
		t.Errorf("ADD: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("ADD took %s", took)
	}
	if links, err := p.NS.Links(); err != nil || p.NS.HasLink("eth0") {
		t.Errorf("devices in the pod: %v %v", links, err)
	}
	if err := c.Nodes[0].Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(t.Context(), p); err != nil {
		t.Errorf("ADD after the start: %v", err)
	}
}

// TestDelWhileDown (reliability case 3): without the agent, DEL succeeds, and is finished within 5 s of its start.
func TestDelWhileDown(t *testing.T) {
	const pods = 20
	c := start(t, overlay, 1, nil)
	n := c.Nodes[0]
	clean, err := n.NS.Links()
	if err != nil {
		t.Fatal(err)
	}
	var all []*cluster.Pod
	for i := range pods {
		p, err := c.Add(t.Context(), cluster.PodSpec{Name: fmt.Sprintf("p%d", i), Idle: true})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for range 2 { // runtimes repeat it
			if err := c.Detach(t.Context(), p); err != nil {
				t.Fatalf("DEL: %v", err)
			}
		}
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "nothing is left of the pods", func() error {
		eps, err := n.Endpoints(t.Context())
		if err != nil || len(eps) > 0 {
			return fmt.Errorf("%d endpoints, %w", len(eps), err)
		}
		links, err := n.NS.Links()
		if err != nil || len(links) != len(clean) {
			return fmt.Errorf("devices %v, want %v: %w", links, clean, err)
		}
		out, err := c.Hypha(t.Context(), n, "bpf", "endpoint", "list", "-o", "json")
		if err != nil || strings.Contains(out, "10.10.") {
			return fmt.Errorf("endpoint map: %s: %w", out, err)
		}
		return nil
	})
}

// TestConnectDuringAttach (reliability case 5): while pods are attached, one after the other, a pod without permission sends
// to every address of the range, and a new pod sends to one that does not take it. Nothing passes, either way.
func TestConnectDuringAttach(t *testing.T) {
	const pods = 25
	c := start(t, overlay, 1, nil)
	app3 := add(t, c, "app3", 0)
	importPolicy(t, c, string(demo.Policy)) // app1 takes TCP 80 from app2 only
	importPolicy(t, c, `[{"labels":[{"key":"name","value":"closed"}],"endpointSelector":{"matchLabels":{"id":"closed"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"nobody"}}]}]}]`)
	closed := add(t, c, "closed", 0)
	inbound := startCounter(t, closed.NS, 9000) // hears what new pods send
	stop := spray(t, app3)
	for i := range pods {
		p, err := c.Prepare(cluster.PodSpec{Name: fmt.Sprintf("app1-%d", i), Labels: []string{"id=app1"}})
		if err != nil {
			t.Fatal(err)
		}
		ear := startCounter(t, p.NS, 9000)
		l, err := p.NS.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan string, 1000)
		go accept(l, accepted)
		quiet := shout(t, p, closed)
		if err := c.Attach(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		quiet()
		_ = l.Close()
		select {
		case who := <-accepted:
			t.Errorf("pod %d accepted a connection from %s", i, who)
		default:
		}
		if n := ear.total(); n > 0 {
			t.Errorf("pod %d received %d datagrams", i, n)
		}
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	sent := stop()
	if n := inbound.total(); n > 0 {
		t.Errorf("%d datagrams of new pods reached the closed one", n)
	}
	if sent == 0 {
		t.Error("nothing was sent")
	}
	t.Logf("%d pods, %d packets sprayed", pods, sent)
}

func accept(l net.Listener, who chan<- string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		who <- c.RemoteAddr().String()
		_ = c.Close()
	}
}

// spray sends UDP and TCP SYNs from a pod to all addresses of its /24 until stop, which returns the number of packets.
func spray(t *testing.T, p *cluster.Pod) (stop func() uint64) {
	t.Helper()
	pc, err := p.NS.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	own := p.Addr(false).As4()
	quit, done := make(chan struct{}), make(chan uint64, 1)
	go func() {
		var n uint64
		_ = p.NS.Do(func() error {
			for {
				for i := 1; i < 255; i++ {
					select {
					case <-quit:
						return nil
					default:
					}
					to := netip.AddrFrom4([4]byte{own[0], own[1], own[2], byte(i)})
					if to == p.Addr(false) {
						continue
					}
					if _, err := pc.WriteTo([]byte("12345678"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9000))); err == nil {
						n++
					}
					if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
						if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: to.As4()}); errors.Is(err, unix.EINPROGRESS) {
							n++
						}
						_ = unix.Close(fd)
					}
				}
			}
		})
		done <- n
	}()
	var once sync.Once
	stop = func() (n uint64) {
		once.Do(func() { close(quit); n = <-done; _ = pc.Close() })
		return n
	}
	t.Cleanup(func() { stop() })
	return stop
}

// shout sends UDP from a pod that is being attached to another until quiet: as soon as it can.
func shout(t *testing.T, from, to *cluster.Pod) (quiet func()) {
	t.Helper()
	pc, err := from.NS.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				if _, err := pc.WriteTo([]byte("12345678"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(false), 9000))); err != nil {
					time.Sleep(100 * time.Microsecond) // no route yet
				}
			}
		}
	}()
	return func() { close(quit); <-done; _ = pc.Close() }
}
