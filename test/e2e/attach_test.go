package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/deploy/demo"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCase05ConnectDuringAttach: while pods are attached, one after the other, a pod without permission sends
// to every address of the range, and a new pod sends to one that does not take it. Nothing passes, either way.
func TestCase05ConnectDuringAttach(t *testing.T) {
	s := score.Start(t, "5", "connections to every address of the range, by TCP and UDP, while pods are attached")
	pods := score.Size(25, 500)
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
	s.Count(pods, "pods attached")
	s.Say("0 of %d packets passed; 0 datagrams of the new pods", sent)
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
