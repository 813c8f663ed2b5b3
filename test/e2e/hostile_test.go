package e2e

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// advertise says to everybody, and to one machine, that the way out is by this one, and which prefix they are in.
func (w *wire) advertise(src, to netip.Addr) {
	w.t.Helper()
	for _, dst := range []netip.Addr{netip.MustParseAddr("ff02::1"), to} {
		ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterAdvertisement, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		prefix := append([]byte{64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0}, netip.MustParseAddr("fdba:d::").AsSlice()...)
		w.send(w.eth(w.mac, layers.EthernetTypeIPv6), ip, icmp, &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800,
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: w.mac}, {Type: layers.ICMPv6OptPrefixInfo, Data: prefix}}})
	}
}

// believes says whether a namespace has taken up what advertise says.
func believes(t *testing.T, ns *netns.NS) bool {
	t.Helper()
	for _, args := range [][]string{{"ip", "-6", "route", "show", "table", "all"}, {"ip", "-6", "addr", "show"}} {
		out, err := ns.Output(command(args...))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "fdba:d:") || strings.Contains(out, "proto ra") {
			return true
		}
	}
	return false
}

// TestCVE_2020_10749_RouterAdvertisement: a pod that says it is the router is believed by no other pod, not even by one that
// listens to such, nor by its node.
func TestCVE_2020_10749_RouterAdvertisement(t *testing.T) {
	sc := score.Start(t, "CVE-2020-10749", "router advertisements from a pod, to pods and a node that would believe them")
	each := score.Size(50, 2000)
	c := start(t, overlay, 1, nil)
	evil, victim := add(t, c, "evil", 0), add(t, c, "victim", 0)
	for _, ns := range []*netns.NS{victim.NS, c.Nodes[0].NS} {
		for _, what := range []string{"all", "default", "eth0"} {
			if err := ns.Sysctl("net.ipv6.conf."+what+".accept_ra", "2"); err != nil {
				t.Fatal(err)
			}
		}
	}
	host := hostDevice(t, evil)
	if err := c.Nodes[0].NS.Sysctl("net.ipv6.conf."+host+".accept_ra", "2"); err != nil {
		t.Fatal(err)
	}
	w := tap(t, evil.NS, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1})
	for range each {
		for _, src := range []netip.Addr{netip.MustParseAddr("fe80::bad"), evil.Addr(true)} {
			w.advertise(src, victim.Addr(true))
		}
	}
	time.Sleep(300 * time.Millisecond)
	believers := 0
	for name, ns := range map[string]*netns.NS{"the pod": victim.NS, "the node": c.Nodes[0].NS} {
		if believes(t, ns) {
			believers++
			t.Errorf("%s takes a pod for its router", name)
		}
	}
	// The same from the switch, where no program is in the way of a host that listens: the test can see belief.
	plain := bystander(t, c)
	tapOn(t, c.World, "underlay", net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}).advertise(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"))
	eventually(t, yes, "a machine without a program believes", func() error {
		if !believes(t, plain) {
			return os.ErrNotExist
		}
		return nil
	})
	sc.Count(each*4, "advertisements")
	sc.Say("believed by %d", believers)
}

// bystander is a machine on the underlay that listens to router advertisements.
func bystander(t *testing.T, c *cluster.Cluster) *netns.NS {
	t.Helper()
	ns, err := netns.Temp("bystander")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := netns.Veth(c.World, "bystander", ns, "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Sysctl("net.ipv6.conf.eth0.accept_ra", "2"); err != nil {
		t.Fatal(err)
	}
	if err := c.World.SetMaster("bystander", "underlay"); err != nil {
		t.Fatal(err)
	}
	return ns
}

// listenOn counts what comes to one address of a namespace.
func listenOn(t *testing.T, ns *netns.NS, addr string) *counter {
	t.Helper()
	pc, err := ns.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return count(t, pc)
}

// TestCVE_2020_8558_LocalhostFromOutside: what listens on a node's loopback only is reached neither by its pods nor by machines
// beside it, though the node's kernel would let them (route_localnet, which kube-proxy sets).
func TestCVE_2020_8558_LocalhostFromOutside(t *testing.T) {
	sc := score.Start(t, "CVE-2020-8558", "packets to a node's loopback, from its pod and from its network, route_localnet set")
	each := score.Size(50, 5000)
	c := start(t, overlay, 1, nil)
	node, evil := c.Nodes[0], add(t, c, "evil", 0)
	if err := node.NS.Sysctl("net.ipv4.conf.all.route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	inside := []*counter{listenOn(t, node.NS, "127.0.0.1:9000"), listenOn(t, node.NS, "[::1]:9000")}
	open := []*counter{listenOn(t, node.NS, netip.AddrPortFrom(node.IP4, 9000).String()), listenOn(t, node.NS, netip.AddrPortFrom(node.IP6, 9000).String())}
	mac, err := node.NS.MAC("eth0")
	if err != nil {
		t.Fatal(err)
	}
	from := map[string]struct {
		w   *wire
		src [2]netip.Addr
	}{
		"a pod":            {tap(t, evil.NS, hostMAC(t, evil)), [2]netip.Addr{evil.Addr(false), evil.Addr(true)}},
		"a machine beside": {tapOn(t, c.World, "underlay", mac), [2]netip.Addr{netip.MustParseAddr("172.29.0.254"), netip.MustParseAddr("fd29::fe")}},
	}
	loop := [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for name, x := range from {
		for v, src := range x.src {
			for range each {
				x.w.udp(x.w.mac, src, loop[v], 9000)
				x.w.udp(x.w.mac, loop[v], loop[v], 9000)
			}
			before := open[v].total()
			x.w.udp(x.w.mac, src, [2]netip.Addr{node.IP4, node.IP6}[v], 9000)
			eventually(t, yes, "what "+name+" sends to the node's address arrives", func() error {
				if open[v].total() == before {
					return os.ErrDeadlineExceeded
				}
				return nil
			})
			if n := inside[v].total(); n > 0 {
				t.Errorf("%d datagrams of %s reached %s", n, name, loop[v])
			}
		}
	}
	got := inside[0].total() + inside[1].total()
	for v, addr := range []string{"127.0.0.1:9000", "[::1]:9000"} {
		conn, err := node.NS.DialContext(t.Context(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("12345678"))
		_ = conn.Close()
		eventually(t, yes, "the node reaches its own loopback", func() error {
			if inside[v].total() == 0 {
				return os.ErrDeadlineExceeded
			}
			return nil
		})
	}
	sc.Count(each*8, "datagrams")
	sc.Say("%d delivered", got)
}

// TestCase32Metadata: a cloud's metadata service, which the node may ask, is out of its pods' reach.
func TestCase32Metadata(t *testing.T) {
	sc := score.Start(t, "32", "the metadata address 169.254.169.254, and link-local ones, from pods")
	each := score.Size(100, 20_000)
	c := start(t, overlay, 1, nil)
	node, evil := c.Nodes[0], add(t, c, "evil", 0)
	const meta = "169.254.169.254"
	if err := c.World.AddAddr("lo", meta+"/32"); err != nil {
		t.Fatal(err)
	}
	if err := node.NS.AddRoute(meta+"/32", "172.29.0.254"); err != nil {
		t.Fatal(err)
	}
	service := startCounter(t, c.World, 9000)
	send := func(ns *netns.NS, n int) {
		conn, err := ns.DialContext(t.Context(), "udp", meta+":9000")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for range n {
			_, _ = conn.Write([]byte("12345678"))
		}
	}
	send(node.NS, 1)
	eventually(t, yes, "the node reaches the service", func() error {
		if service.total() != 1 {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	send(evil.NS, each)
	w := tap(t, evil.NS, hostMAC(t, evil))
	for range each {
		w.udp(w.mac, evil.Addr(false), netip.MustParseAddr(meta), 9000)
	}
	time.Sleep(300 * time.Millisecond)
	got := service.total() - 1
	if got > 0 {
		t.Errorf("%d datagrams of a pod reached the service", got)
	}
	sc.Count(2*each, "datagrams")
	sc.Say("%d delivered", got)
}
