package pod_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// liveNode is a node with real devices, on which the programs are attached as the loader does it.
type liveNode struct {
	*bpftest.Env
	t     *testing.T
	index int // 1, 2
}

var underlay = map[int][2]string{1: {"192.0.2.1", "2001:db8::1"}, 2: {"192.0.2.2", "2001:db8::2"}}

func newLiveNode(t *testing.T, index int, flags uint32) *liveNode {
	t.Helper()
	cfg := bpftest.Defaults()
	cfg.Flags = flags
	cfg.Router4 = maps.AddrFrom(podAddr(index, 1)[0])
	cfg.Router6 = maps.AddrFrom(podAddr(index, 1)[1])
	n := &liveNode{Env: bpftest.Load(t, bpftest.Config{Config: cfg, Devices: 1}), t: t, index: index}
	var vxlan int
	n.NS.In(func() error {
		a := netlink.NewLinkAttrs()
		a.Name, a.MTU = "hypha_vxlan", 1450
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: a, FlowBased: true, Port: 8472}); err != nil {
			return err
		}
		l, err := netlink.LinkByName(a.Name)
		if err != nil {
			return err
		}
		vxlan = l.Attrs().Index
		if err := netlink.LinkSetARPOff(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	cfg.TunnelIfindex = uint32(vxlan)
	n.Configure(cfg)
	n.NS.Set("net.ipv4.ip_forward", "1")
	n.NS.Set("net.ipv6.conf.all.forwarding", "1")
	n.NS.Addr("hypha_vxlan", podAddr(index, 1)[0].String()+"/32", podAddr(index, 1)[1].String()+"/128")
	n.Put(n.Maps.DevicesV1, uint32(vxlan), maps.Device{Mtu: 1450})
	n.attach("hypha_vxlan", overlay.FromOverlay, ebpf.AttachTCXIngress)
	n.attach("hypha_vxlan", overlay.ToOverlay, ebpf.AttachTCXEgress)
	for id, class := range map[uint32]uint32{1: 1, 2: 2, 6: 6, 1001: 11, 1002: 12} {
		n.Put(n.Maps.ClassV1, id, class)
	}
	return n
}

// podAddr is an address in a node's pod range.
func podAddr(node, n int) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(node), byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", node, n))}
}

func (n *liveNode) ifindex(dev string) (i int) {
	n.NS.In(func() error {
		l, err := net.InterfaceByName(dev)
		if err == nil {
			i = l.Index
		}
		return err
	})
	return i
}

func (n *liveNode) attach(dev, prog string, at ebpf.AttachType) {
	n.t.Helper()
	p, i := n.Prog(prog), n.ifindex(dev)
	n.NS.In(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: i, Program: p, Attach: at})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return attachFilter(i, p, at)
		}
		if err == nil {
			n.t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
}

// attachFilter is for kernels without tcx.
func attachFilter(ifindex int, p *ebpf.Program, at ebpf.AttachType) error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex,
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if at == ebpf.AttachTCXEgress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: parent,
		Priority: 1, Protocol: unix.ETH_P_ALL}, Fd: p.FD(), Name: "test", DirectAction: true})
}

// pod attaches a workload with an address that ends in last.
func (n *liveNode) pod(last int, identity uint32) *netns.NS {
	n.t.Helper()
	ns := netns.New(n.t, fmt.Sprintf("pod%d-%d", n.index, last))
	dev := fmt.Sprintf("hy%d", last)
	netns.Veth(n.t, n.NS, dev, ns, "eth0")
	row := maps.Endpoint{Ifindex: uint32(n.ifindex(dev)), Identity: identity, PolicySet: uint32(last), Id: uint16(last)}
	ns.In(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			copy(row.Mac[:], l.Attrs().HardwareAddr)
		}
		return err
	})
	n.NS.In(func() error {
		l, err := netlink.LinkByName(dev)
		if err == nil {
			copy(row.HostMac[:], l.Attrs().HardwareAddr)
		}
		return err
	})
	for v, a := range podAddr(n.index, last) {
		n.Put(n.Maps.EndpointsV1, maps.AddrFrom(a), row)
		n.PutIP(a, identity, maps.IPCacheNoMasq, netip.Addr{})
		ns.Addr("eth0", fmt.Sprintf("%s/%d", a, []int{32, 128}[v]))
		n.NS.Run("ip", "route", "add", a.String(), "dev", dev)
	}
	for _, dir := range []uint32{maps.PolicyIngress, maps.PolicyEgress} {
		n.PutPolicy(row.PolicySet, 0, dir, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow, DefaultRule: 1})
	}
	n.attach(dev, pod.FromPod, ebpf.AttachTCXIngress)
	n.attach(dev, pod.ToPod, ebpf.AttachTCXEgress)
	ns.Run("ip", "link", "set", "eth0", "mtu", "1450") // as workloads get it: the overlay's, at both ends
	n.NS.Run("ip", "link", "set", dev, "mtu", "1450")
	for v, gw := range podAddr(n.index, 1) {
		ns.Run("ip", []string{"-4", "-6"}[v], "route", "add", gw.String(), "dev", "eth0")
		ns.Run("ip", []string{"-4", "-6"}[v], "route", "add", "default", "via", gw.String(), "dev", "eth0")
	}
	return ns
}

// knows tells the node of itself and another.
func (n *liveNode) knows(other int) {
	for v := range 2 {
		self, peer := netip.MustParseAddr(underlay[n.index][v]), netip.MustParseAddr(underlay[other][v])
		outer := netip.MustParseAddr(underlay[other][0])
		n.PutIP(self, 1, maps.IPCacheNode|maps.IPCacheNoMasq, netip.Addr{})
		n.PutIP(podAddr(n.index, 1)[v], 1, maps.IPCacheNode|maps.IPCacheNoMasq, netip.Addr{})
		n.PutIP(peer, 6, maps.IPCacheNode|maps.IPCacheNoMasq, netip.Addr{})
		n.PutIP(podAddr(other, 1)[v], 6, maps.IPCacheNode|maps.IPCacheNoMasq|maps.IPCacheTunnel, outer)
		bits := []int{24, 64}[v]
		mine, theirs := netip.PrefixFrom(podAddr(n.index, 0)[v], bits), netip.PrefixFrom(podAddr(other, 0)[v], bits)
		n.PutPrefix(mine, 2, maps.IPCacheLocalCIDR, netip.Addr{})
		n.PutPrefix(theirs, 2, maps.IPCacheTunnel|maps.IPCacheNoMasq, outer)
		n.NS.Run("ip", "route", "add", theirs.String(), "dev", "hypha_vxlan", "src", podAddr(n.index, 1)[v].String())
	}
	n.PutPrefix(netip.MustParsePrefix("0.0.0.0/0"), 2, 0, netip.Addr{})
	n.PutPrefix(netip.MustParsePrefix("::/0"), 2, 0, netip.Addr{})
}

// talk sends data over TCP from one namespace to a listener in another, both ways, and returns the client's address as
// the server sees it.
func talk(t *testing.T, from, to *netns.NS, addr netip.Addr) string {
	t.Helper()
	var l net.Listener
	to.In(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 7777).String())
		return err
	})
	defer func() { _ = l.Close() }()
	seen := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			seen <- err.Error()
			return
		}
		defer func() { _ = c.Close() }()
		seen <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		_, _ = io.Copy(c, c)
	}()
	sent := bytes.Repeat([]byte("hypha"), 100000)
	var got []byte
	err := from.Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, 7777).String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		got, err = io.ReadAll(c)
		return err
	})
	if err != nil {
		t.Errorf("%s to %s: %v", from.Name(), addr, err)
		return ""
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%s to %s: %d bytes came back, want %d", from.Name(), addr, len(got), len(sent))
	}
	return <-seen
}

// Two nodes, two workloads on the first and one on the second, a host outside: everybody talks to everybody, as real
// devices and stacks do it.
func TestLive(t *testing.T) {
	for name, flags := range map[string]uint32{"redirect_peer": bpftest.AllOn, "redirect": bpftest.AllOn &^ maps.ConfigRedirectPeer} {
		t.Run(name, func(t *testing.T) { testLive(t, flags) })
	}
}

func testLive(t *testing.T, flags uint32) {
	n1, n2 := newLiveNode(t, 1, flags), newLiveNode(t, 2, flags)
	netns.Veth(t, n1.NS, "eth0", n2.NS, "eth0")
	n1.NS.Addr("eth0", underlay[1][0]+"/24", underlay[1][1]+"/64")
	n2.NS.Addr("eth0", underlay[2][0]+"/24", underlay[2][1]+"/64")
	world := netns.New(t, "world")
	netns.Veth(t, n1.NS, "eth1", world, "eth0")
	world.Run("ip", "link", "set", "eth0", "mtu", "1450") // nobody cuts to a workload's MTU what comes from outside
	n1.NS.Addr("eth1", "198.51.100.1/24", "2001:db8:1::1/64")
	world.Addr("eth0", "198.51.100.7/24", "2001:db8:1::7/64")
	n1.Put(n1.Maps.DevicesV1, uint32(n1.ifindex("eth1")), maps.Device{Mtu: 1500,
		Masq4: maps.AddrFrom(netip.MustParseAddr("198.51.100.1")), Masq6: maps.AddrFrom(netip.MustParseAddr("2001:db8:1::1"))})
	n1.attach("eth1", host.FromNetdev, ebpf.AttachTCXIngress)
	n1.knows(2)
	n2.knows(1)
	a, b, c := n1.pod(11, 1001), n1.pod(12, 1002), n2.pod(21, 1002)
	outside := [2]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")}
	leaves := [2]string{"198.51.100.1", "2001:db8:1::1"}
	for v, name := range versions {
		for _, x := range []struct {
			what     string
			from, to *netns.NS
			addr     netip.Addr
			seen     string
		}{
			{"same node", a, b, podAddr(1, 12)[v], podAddr(1, 11)[v].String()},
			{"other node", a, c, podAddr(2, 21)[v], podAddr(1, 11)[v].String()},
			{"back", c, b, podAddr(1, 12)[v], podAddr(2, 21)[v].String()},
			{"node to pod", n1.NS, a, podAddr(1, 11)[v], ""},
			{"node to remote pod", n1.NS, c, podAddr(2, 21)[v], podAddr(1, 1)[v].String()},
			{"pod to node", a, n1.NS, podAddr(1, 1)[v], podAddr(1, 11)[v].String()},
			{"pod to remote node", a, n2.NS, podAddr(2, 1)[v], podAddr(1, 11)[v].String()},
			{"outside", a, world, outside[v], leaves[v]},
		} {
			if seen := talk(t, x.from, x.to, x.addr); x.seen != "" && seen != x.seen {
				t.Errorf("%s %s: the server saw %s, want %s", name, x.what, seen, x.seen)
			}
		}
		for what, dst := range map[string]netip.Addr{"same node": podAddr(1, 12)[v], "other node": podAddr(2, 21)[v],
			"gateway": podAddr(1, 1)[v], "outside": outside[v]} {
			for _, size := range []string{"56", "1400", "4000"} {
				if out, err := a.Try("ping", "-n", "-c1", "-W2", "-s", size, dst.String()); err != nil {
					t.Errorf("%s ping %s with %s bytes: %v\n%s", name, what, size, err, out)
				}
			}
		}
	}
	if t.Failed() {
		for i, n := range []*liveNode{n1, n2} {
			for _, e := range n.Events() {
				if e.Type == maps.EventDrop {
					t.Logf("node %d dropped for %d (%s:%d) %v:%d -> %v:%d proto %d", i+1, e.Code, maps.SourceFile(e.File), e.Line,
						e.Src.Netip(), e.Sport, e.Dst.Netip(), e.Dport, e.Proto)
				}
			}
		}
	}
}
