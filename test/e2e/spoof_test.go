package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCase32Spoof: what a pod sends under another address or MAC reaches nobody, on no node; neither does
// a forged overlay packet to a node. Its own packets, sent the same way, arrive.
func TestCase32Spoof(t *testing.T) {
	sc := score.Start(t, "32", "spoofed IP and MAC between namespaces, same and other node, overlay and native")
	each, sent, delivered := score.Size(100, 2000), 0, uint64(0)
	defer func() {
		sc.Count(sent, "datagrams")
		sc.Say("%d delivered", delivered)
	}()
	for _, m := range []mode{overlay, native} {
		t.Run(m.name, func(t *testing.T) {
			c := start(t, m, 2, nil)
			evil, friend := add(t, c, "evil", 0), add(t, c, "friend", 0)
			for _, victim := range []*cluster.Pod{add(t, c, "near", 0), add(t, c, "far", 1)} {
				ear := startCounter(t, victim.NS, 9000)
				w := tap(t, evil.NS, hostMAC(t, evil))
				other := net.HardwareAddr{2, 0, 0, 0, 0, 0x42}
				for _, v6 := range m.families() {
					to, own := victim.Addr(v6), evil.Addr(v6)
					node := map[bool]netip.Addr{false: c.Nodes[0].IP4, true: c.Nodes[0].IP6}[v6]
					outside := netip.MustParseAddr(map[bool]string{false: cluster.Outside4, true: cluster.Outside6}[v6])
					zero := map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[v6]
					loop := map[bool]netip.Addr{false: netip.MustParseAddr("127.0.0.1"), true: netip.IPv6Loopback()}[v6]
					for range each {
						sent += 8
						for _, src := range []netip.Addr{friend.Addr(v6), to, node, outside, zero, loop, own.Next()} {
							if src != own {
								w.udp(w.mac, src, to, 9000)
							}
						}
						w.udp(other, own, to, 9000)
					}
					time.Sleep(200 * time.Millisecond)
					if n := ear.total(); n > 0 {
						delivered += n
						t.Fatalf("%s: %d forged datagrams reached %s", family(v6), n, victim.Name)
					}
				}
				// The same way with its own addresses: the test can see what arrives.
				for _, v6 := range m.families() {
					before := ear.total()
					for range 10 {
						w.udp(w.mac, evil.Addr(v6), victim.Addr(v6), 9000)
					}
					eventually(t, yes, "own datagrams arrive at "+victim.Name, func() error {
						if n := ear.total() - before; n != 10 {
							return fmt.Errorf("%d of 10", n)
						}
						return nil
					})
				}
			}
		})
	}
}

// TestCase32ForgedOverlay: a pod that speaks VXLAN to a node, with the identity of the node's own stack, reaches no pod.
func TestCase32ForgedOverlay(t *testing.T) {
	sc := score.Start(t, "32", "VXLAN from a pod to the nodes, with identities of nodes")
	each, sent := score.Size(50, 1000), 0
	c := start(t, overlay, 2, nil)
	evil, victim := add(t, c, "evil", 0), add(t, c, "victim", 1)
	ear := startCounter(t, victim.NS, 9000)
	inner := gopacket.NewSerializeBuffer()
	u := &layers.UDP{SrcPort: 1, DstPort: 9000}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: evil.Addr(false).AsSlice(), DstIP: victim.Addr(false).AsSlice()}
	_ = u.SetNetworkLayerForChecksum(ip)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	err := gopacket.SerializeLayers(inner, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}, ip, u, gopacket.Payload("12345678"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v6 := range overlay.families() {
		for _, n := range c.Nodes {
			to := map[bool]netip.Addr{false: n.IP4, true: n.IP6}[v6]
			conn, err := evil.NS.DialContext(t.Context(), "udp", netip.AddrPortFrom(to, 8472).String())
			if err != nil {
				t.Fatal(err)
			}
			for _, vni := range []byte{1, 6, 0} { // host, remote-node, unknown
				packet := append([]byte{8, 0, 0, 0, 0, 0, vni, 0}, inner.Bytes()...)
				for range each {
					sent++
					_, _ = conn.Write(packet)
				}
			}
			_ = conn.Close()
		}
	}
	time.Sleep(300 * time.Millisecond)
	n := ear.total()
	if n > 0 {
		t.Errorf("%d forged overlay packets reached the pod", n)
	}
	sc.Count(sent, "datagrams")
	sc.Say("%d delivered", n)
	out, err := c.Hypha(t.Context(), c.Nodes[0], "observe", "--verdict", "DROPPED", "--last", "20")
	if err != nil || out == "" {
		t.Errorf("the drops are not seen: %v %q", err, out)
	}
}

// TestCase32Poison: a pod that claims everybody's address by ARP and neighbour advertisement, and to be the router, changes nothing
// for the others.
func TestCase32Poison(t *testing.T) {
	sc := score.Start(t, "32", "ARP, neighbour and router advertisements for everybody, in a LAN of pods")
	each := score.Size(20, 1000)
	sc.Count(each*7, "frames")
	c := start(t, overlay, 1, nil)
	evil, a, b := add(t, c, "evil", 0), add(t, c, "a", 0), add(t, c, "b", 0)
	w := tap(t, evil.NS, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	ear := startCounter(t, evil.NS, workload.EchoPort+1)
	for range each {
		for _, victim := range []*cluster.Pod{a, b} {
			for _, op := range []uint16{layers.ARPRequest, layers.ARPReply} {
				ip := victim.Addr(false).AsSlice()
				w.send(w.eth(w.mac, layers.EthernetTypeARP), &layers.ARP{
					AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
					Operation: op, SourceHwAddress: w.mac, SourceProtAddress: ip, DstHwAddress: w.peer, DstProtAddress: ip,
				})
			}
			six := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: victim.Addr(true).AsSlice(), DstIP: net.ParseIP("ff02::1")}
			icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
			_ = icmp.SetNetworkLayerForChecksum(six)
			w.send(w.eth(w.mac, layers.EthernetTypeIPv6), six, icmp, &layers.ICMPv6NeighborAdvertisement{
				Flags: 0x20, TargetAddress: victim.Addr(true).AsSlice(),
				Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: w.mac}},
			})
		}
		six := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP("fe80::bad"), DstIP: net.ParseIP("ff02::1")}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterAdvertisement, 0)}
		_ = icmp.SetNetworkLayerForChecksum(six)
		w.send(w.eth(w.mac, layers.EthernetTypeIPv6), six, icmp, &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800})
	}
	for _, v6 := range overlay.families() {
		for _, x := range []struct {
			from *netns.NS
			to   *cluster.Pod
		}{{a.NS, b}, {b.NS, a}, {c.Nodes[0].NS, a}, {c.Nodes[0].NS, b}} {
			if err := echo(x.from, "udp", x.to.Addr(v6), yes); err != nil {
				t.Errorf("%s from %s to %s: %v", family(v6), x.from.Name(), x.to.Name, err)
			}
		}
	}
	for _, p := range []*cluster.Pod{a, b} {
		if out, err := p.NS.Output(command("ip", "-6", "route", "show", "default")); err != nil || containsAny(out, "ra", "bad") {
			t.Errorf("routes of %s after a router advertisement: %q %v", p.Name, out, err)
		}
	}
	n := ear.total()
	if n > 0 {
		t.Errorf("the attacker received %d datagrams", n)
	}
	sc.Say("%d datagrams of others to the attacker", n)
}
