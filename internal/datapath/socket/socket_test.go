package socket

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hostns "github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

var (
	place4 = netip.MustParseAddrPort("10.9.0.1:8080")
	place6 = netip.MustParseAddrPort("[fd09::1]:8080")
	other4 = netip.MustParseAddrPort("10.9.0.1:8081")
)

// need skips where the kernel ends no sockets.
func need(t *testing.T) {
	t.Helper()
	netns.Require(t)
	if err := Probe(); err != nil {
		t.Skip(err)
	}
}

// newNode makes a network namespace with somebody who listens at the places and says nothing.
func newNode(t *testing.T, name string) *netns.NS {
	t.Helper()
	ns := netns.New(t, name)
	ns.Addr("lo", "10.9.0.1/32", "fd09::1/128")
	for _, at := range []netip.AddrPort{place4, place6, other4} {
		l, err := ns.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		p, err := ns.ListenPacket("udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = l.Close(), p.Close() })
	}
	return ns
}

// client is a connected socket.
type client struct {
	fd int
	Peer
}

func connect(t *testing.T, ns *netns.NS, proto uint8, to netip.AddrPort, mapped bool) *client {
	t.Helper()
	family, typ := unix.AF_INET6, unix.SOCK_STREAM
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if to.Addr().Is4() && !mapped {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	if proto == udp {
		typ = unix.SOCK_DGRAM
	}
	c := &client{Peer: Peer{Proto: proto, To: to}}
	ns.In(func() (err error) {
		if c.fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(c.fd) })
		if err := unix.Connect(c.fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		c.Cookie, err = unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return c
}

// state is what the socket's owner is told at once: EAGAIN while it lives.
func (c *client) state() error {
	for range 100 { // a connection over the loopback is there within no time, but not at once
		_, err := unix.Read(c.fd, make([]byte, 1))
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EINTR) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return unix.ENOTCONN
}

func want(cs ...*client) map[Peer]bool {
	out := map[Peer]bool{}
	for _, c := range cs {
		out[c.Peer] = true
	}
	return out
}

func (c *client) is(t *testing.T, what string, want error) {
	t.Helper()
	if err := c.state(); !errors.Is(err, want) {
		t.Errorf("%s (protocol %d to %s): %v, want %v", what, c.Proto, c.To, err, want)
	}
}

// Of sockets that are connected to the same place, those end that were meant, of every kind, and no other.
func TestEnd(t *testing.T) {
	need(t)
	ns := newNode(t, "node")
	kinds := []struct {
		proto  uint8
		to     netip.AddrPort
		mapped bool
	}{{udp, place4, false}, {udp, place6, false}, {udp, place4, true}, {tcp, place4, false}, {tcp, place6, false}, {tcp, place4, true}}
	var meant, spared []*client
	for _, k := range kinds {
		meant = append(meant, connect(t, ns, k.proto, k.to, k.mapped))
		spared = append(spared, connect(t, ns, k.proto, k.to, k.mapped))
	}
	// One that is there but was meant as connected to somebody else, and one that is not there at all.
	moved := connect(t, ns, udp, other4, false)
	all := want(meant...)
	all[Peer{moved.Cookie, udp, place4}] = true
	all[Peer{1 << 60, tcp, place4}] = true
	ns.In(func() error {
		n, err := End(all)
		if err != nil || n != len(meant) || len(all) != 2 {
			t.Errorf("%d ended of %d, %v; left: %v", n, len(meant), err, all)
		}
		return nil
	})
	for i := range meant {
		meant[i].is(t, "ended", unix.ECONNABORTED)
		spared[i].is(t, "spared", unix.EAGAIN)
	}
	moved.is(t, "connected to somebody else", unix.EAGAIN)
	// Its owner may connect it anew.
	if err := unix.Connect(meant[0].fd, &unix.SockaddrInet4{Addr: other4.Addr().As4(), Port: int(other4.Port())}); err != nil {
		t.Errorf("connect again: %v", err)
	}
	meant[0].is(t, "connected again", unix.EAGAIN)
}

// A socket that waits for an answer to its SYN ends too: nobody will answer.
func TestEndWhileConnecting(t *testing.T) {
	need(t)
	ns := newNode(t, "node")
	netns.Veth(t, ns, "eth0", netns.New(t, "void"), "eth0")
	ns.Addr("eth0", "192.0.2.1/24")
	ns.Run("ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0") // nobody is there
	c := connect(t, ns, tcp, netip.MustParseAddrPort("192.0.2.2:80"), false)
	ns.In(func() error {
		if n, err := End(want(c)); n != 1 || err != nil {
			t.Errorf("%d ended, %v", n, err)
		}
		return nil
	})
	c.is(t, "connecting", unix.ECONNABORTED)
}

// Each network namespace has its own sockets, reached by its path.
func TestEndElsewhere(t *testing.T) {
	need(t)
	a, b := newNode(t, "a"), newNode(t, "b")
	x, y := connect(t, a, udp, place4, false), connect(t, b, udp, place4, false)
	end := func(ns *netns.NS, all map[Peer]bool) (n int) {
		t.Helper()
		if err := hostns.Inside(ns.Path(), func() (err error) { n, err = End(all); return err }); err != nil {
			t.Error(err)
		}
		return n
	}
	all := want(y)
	if n := end(a, all); n != 0 || len(all) != 1 {
		t.Errorf("%d ended in the wrong namespace, left %v", n, all)
	}
	if n := end(b, all); n != 1 || len(all) != 0 {
		t.Errorf("%d ended, left %v", n, all)
	}
	x.is(t, "of another namespace", unix.EAGAIN)
	y.is(t, "ended", unix.ECONNABORTED)
}
