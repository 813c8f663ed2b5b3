package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	tns "github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/workload"
)

func command(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }

func containsAny(s string, words ...string) bool {
	for _, w := range words {
		for f := range strings.FieldsSeq(s) {
			if strings.Contains(f, w) {
				return true
			}
		}
	}
	return false
}

// transfer sends bytes through an echo service and compares what comes back.
func transfer(from *netns.NS, to netip.AddrPort, size int) error {
	conn, err := from.DialContext(contextWith(10*time.Second), "tcp", to.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	data := make([]byte, size)
	_, _ = rand.Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	sum := sha256.New()
	n, err := io.Copy(sum, conn)
	if err := errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if want := sha256.Sum256(data); string(sum.Sum(nil)) != string(want[:]) {
		return fmt.Errorf("%d of %d bytes came back, other ones", n, size)
	}
	return nil
}

// TestMTU: bulk data arrives whole between all places, and a datagram as large as the route says arrives in one piece.
func TestMTU(t *testing.T) {
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			a, b, far := add(t, c, "a", 0), add(t, c, "b", 0), add(t, c, "far", 1)
			for _, v6 := range m.families() {
				for _, x := range []struct {
					what string
					from *netns.NS
					to   netip.Addr
				}{
					{"same node", a.NS, b.Addr(v6)}, {"other node", a.NS, far.Addr(v6)}, {"node to own pod", c.Nodes[0].NS, a.Addr(v6)},
					{"node to other node's pod", c.Nodes[0].NS, far.Addr(v6)},
				} {
					if err := transfer(x.from, netip.AddrPortFrom(x.to, workload.EchoPort), 8<<20); err != nil {
						t.Errorf("%s %s: %v", family(v6), x.what, err)
					}
					if err := wholeDatagram(x.from, netip.AddrPortFrom(x.to, workload.EchoPort), v6); err != nil {
						t.Errorf("%s %s: %v", family(v6), x.what, err)
					}
				}
			}
		})
	}
}

// wholeDatagram sends the largest unfragmented datagram that the route takes to an echo service, and one byte more, which
// must be refused at once or be told about, not vanish.
func wholeDatagram(from *netns.NS, to netip.AddrPort, v6 bool) error {
	conn, err := from.DialContext(contextWith(yes), "udp", to.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	mtu, headers := 0, 28
	err2 := raw.Control(func(fd uintptr) {
		if v6 {
			headers = 48
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			if err == nil {
				mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
			}
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		if err == nil {
			mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
		}
	})
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(yes))
	data := make([]byte, mtu-headers)
	_, _ = rand.Read(data)
	if _, err := conn.Write(data); err != nil {
		return fmt.Errorf("%d bytes, MTU %d: %w", len(data), mtu, err)
	}
	got := make([]byte, 65536)
	n, err := conn.Read(got)
	if err != nil || n != len(data) {
		return fmt.Errorf("%d bytes, MTU %d: %d came back: %w", len(data), mtu, n, err)
	}
	if _, err := conn.Write(append(data, 0)); !errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("one byte more than the MTU %d: %w", mtu, err)
	}
	return nil
}

// TestPathMTU: a narrow link outside announces itself by ICMP to the masquerading node; the pod must learn of it, for its
// connections stall otherwise.
func TestPathMTU(t *testing.T) {
	c := start(t, overlay, 1, nil)
	a := add(t, c, "a", 0)
	far := tns.New(t, "far")
	if err := netns.Veth(c.World, "far", far.NS, "eth0"); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(
		c.World.AddAddr("far", "198.51.100.1/24", "2001:db8:1::1/64"), far.AddAddr("eth0", "198.51.100.2/24", "2001:db8:1::2/64"),
		c.World.SetMTU("far", 1300), far.SetMTU("eth0", 1300))
	if err == nil {
		err = errors.Join(far.AddRoute("default", "198.51.100.1"), far.AddRoute("default", "2001:db8:1::1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := far.Listen("tcp", ":7777")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// A large segment size, as if the way were wide: only ICMP can tell the pod.
			if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
				_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1200) })
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	for _, to := range []string{"198.51.100.2", "2001:db8:1::2"} {
		addr := netip.MustParseAddr(to)
		if err := transfer(a.NS, netip.AddrPortFrom(addr, 7777), 1<<20); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
		// UDP without fragments: the first is lost, the second refused, as the pod's own stack knows better by then.
		conn, err := a.NS.DialContext(t.Context(), "udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := conn.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		})
		eventually(t, yes, "the pod knows of the narrow way to "+to, func() error {
			if _, err := conn.Write(make([]byte, 1352)); errors.Is(err, unix.EMSGSIZE) {
				return nil
			}
			return errors.New("1352 bytes are still sent")
		})
		_ = conn.Close()
	}
}
