package pod_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// tun makes a device without a link layer. What the stack sends to it is read from the file.
func tun(t *testing.T, ns *netns.NS, name string, addrs ...string) *os.File {
	t.Helper()
	dev := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE}
	ns.In(func() error {
		if err := netlink.LinkAdd(dev); err != nil {
			return err
		}
		return netlink.LinkSetUp(dev)
	})
	t.Cleanup(func() { _ = dev.Fds[0].Close() })
	ns.Addr(name, addrs...)
	return dev.Fds[0]
}

// pump carries packets one way until a file is closed.
func pump(from, to *os.File) {
	b := make([]byte, 65536)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		_, _ = to.Write(b[:n]) // what the device is not ready for is lost, as on a wire
	}
}

// The way outside may be a device without a link layer (a VPN's): masqueraded out, and back, and routed in.
func TestLiveTun(t *testing.T) {
	n := newLiveNode(t, 1, bpftest.AllOn)
	world := netns.New(t, "world")
	near := tun(t, n.NS, "tun0", "198.51.100.1/24", "2001:db8:1::1/64")
	far := tun(t, world, "tun0", "198.51.100.7/24", "2001:db8:1::7/64")
	go pump(near, far)
	go pump(far, near)
	n.Put(n.Maps.DevicesV1, uint32(n.ifindex("tun0")), maps.Device{Mtu: 1500, Flags: maps.DeviceL3,
		Masq4: maps.AddrFrom(netip.MustParseAddr("198.51.100.1")), Masq6: maps.AddrFrom(netip.MustParseAddr("2001:db8:1::1"))})
	n.attach("tun0", host.FromNetdev, ebpf.AttachTCXIngress)
	n.knows(2)
	a := n.pod(11, 1001)
	outside := [2]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")}
	leaves := [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")}
	for v, version := range versions {
		if seen := talk(t, a, world, outside[v]); seen != leaves[v].String() {
			t.Errorf("%s: the server saw %s, want %s", version, seen, leaves[v])
		}
		world.Run("ip", "route", "add", podAddr(1, 11)[v].String(), "dev", "tun0")
		talk(t, world, a, podAddr(1, 11)[v])
		if seen := talk(t, n.NS, world, outside[v]); seen != leaves[v].String() {
			t.Errorf("%s: the node's own connection comes from %s", version, seen)
		}
	}
	for _, e := range n.Events() {
		if e.Type == maps.EventDrop {
			t.Errorf("dropped for %d (%s:%d) %v -> %v", e.Code, maps.SourceFile(e.File), e.Line, e.Src.Netip(), e.Dst.Netip())
		}
	}
}
