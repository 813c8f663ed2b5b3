package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
)

// merged sends several datagrams of one size as one, as QUIC stacks do (UDP_SEGMENT), and counts those that come back.
func merged(from *netns.NS, to netip.AddrPort, size, count int) error {
	conn, err := from.DialContext(contextWith(yes), "udp", to.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	err2 := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err := errors.Join(err, err2, conn.SetDeadline(time.Now().Add(yes))); err != nil {
		return err
	}
	if _, err := conn.Write(make([]byte, size*count)); err != nil {
		return err
	}
	for i := range count {
		if n, err := conn.Read(make([]byte, 65536)); err != nil || n != size {
			return fmt.Errorf("datagram %d of %d: %d bytes: %w", i+1, count, n, err)
		}
	}
	return nil
}

// TestMergedDatagrams: what a client's kernel leaves to be cut later arrives by DSR, told by options or in another packet.
func TestMergedDatagrams(t *testing.T) {
	for _, dispatch := range []string{"opt", "ipip"} {
		t.Run(dispatch, func(t *testing.T) {
			c := start(t, native, 2, map[string]any{"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": dispatch})
			far := add(t, c, "far", 1)
			for _, v6 := range native.families() {
				every, node := "0.0.0.0:31000", c.Nodes[0].IP4
				if v6 {
					every, node = "[::]:31000", c.Nodes[0].IP6
				}
				if out, err := c.Hypha(t.Context(), c.Nodes[0], "service", "update", "--frontend", every+"/UDP", "--k8s-node-port", "--backends",
					netip.AddrPortFrom(far.Addr(v6), workload.EchoPort).String()); err != nil {
					t.Fatalf("%v %s", err, out)
				}
				for _, n := range c.Nodes {
					eventually(t, yes, n.Name+" to serve "+every, func() error {
						out, err := c.Hypha(t.Context(), n, "bpf", "lb", "list")
						if err == nil && !strings.Contains(out, far.Addr(v6).String()) {
							err = errors.New(out)
						}
						return err
					})
				}
				if err := merged(c.World, netip.AddrPortFrom(node, 31000), 1000, 5); err != nil {
					t.Errorf("%s: %v", family(v6), err)
				}
			}
		})
	}
}
