package pod_test

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

func TestARP(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	gw := bpftest.Router1[0]
	out := expect(t, w, "request", w.Pod1, packet.ARP(packet.ARPRequest, w.Pod1.MAC, w.Pod1.V4, gw), bpftest.Redirect, 0)
	arp := packet.Decode(out).Layer(layers.LayerTypeARP).(*layers.ARP)
	if arp.Operation != packet.ARPReply || string(arp.SourceHwAddress) != string(w.Pod1.HostMAC) ||
		string(arp.SourceProtAddress) != string(gw.AsSlice()) || string(arp.DstHwAddress) != string(w.Pod1.MAC) ||
		string(arp.DstProtAddress) != string(w.Pod1.V4.AsSlice()) || string(out[:6]) != string(w.Pod1.MAC) {
		t.Errorf("answer %+v", arp)
	}
	expect(t, w, "request for a neighbour", w.Pod1, packet.ARP(packet.ARPRequest, w.Pod1.MAC, w.Pod1.V4, w.Pod2.V4), bpftest.Redirect, 0)
	expect(t, w, "probe", w.Pod1, packet.ARP(packet.ARPRequest, w.Pod1.MAC, netip.IPv4Unspecified(), w.Pod1.V4), bpftest.Drop, 0)
	expect(t, w, "announcement", w.Pod1, packet.ARP(packet.ARPRequest, w.Pod1.MAC, w.Pod1.V4, w.Pod1.V4), bpftest.Drop, 0)
	expect(t, w, "announcement of another's", w.Pod1, packet.ARP(packet.ARPRequest, w.Pod1.MAC, gw, gw), bpftest.Drop, 0)
	expect(t, w, "reply to the node", w.Pod1, packet.ARP(packet.ARPReply, w.Pod1.MAC, w.Pod1.V4, gw), bpftest.Pass, 0)
	expect(t, w, "reply as the gateway", w.Pod1, packet.ARP(packet.ARPReply, w.Pod1.MAC, gw, w.Pod1.V4), 0, maps.DropSourceIP)
	expect(t, w, "reply as a neighbour", w.Pod1, packet.ARP(packet.ARPReply, w.Pod1.MAC, w.Pod2.V4, gw), 0, maps.DropSourceIP)
	expect(t, w, "another MAC", w.Pod1, packet.ARP(packet.ARPReply, w.Pod2.MAC, w.Pod1.V4, gw), 0, maps.DropSourceMAC)
	expect(t, w, "cut", w.Pod1, packet.ARP(packet.ARPReply, w.Pod1.MAC, w.Pod1.V4, gw)[:30], 0, maps.DropInvalid)
}

func TestNDP(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	gw := bpftest.Router1[1]
	ask := func(target netip.Addr) packet.Flow {
		f := w.Pod1.Flow(packet.SolicitedNode(target), 0, 0)
		f.DstMAC = []byte{0x33, 0x33, 0xff, 0, 0, 1}
		return f
	}
	for _, target := range []netip.Addr{gw, w.Pod2.V6, netip.MustParseAddr("fe80::1")} {
		out := expect(t, w, "solicitation", w.Pod1, ask(target).Neighbour(135, target), bpftest.Redirect, 0)
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		na := packet.Decode(out).Layer(layers.LayerTypeICMPv6NeighborAdvertisement)
		if na == nil {
			t.Fatalf("answered % x", out)
		}
		a := na.(*layers.ICMPv6NeighborAdvertisement)
		if a.TargetAddress.String() != target.String() || len(a.Options) != 1 || string(a.Options[0].Data) != string(w.Pod1.HostMAC) || !a.Solicited() {
			t.Errorf("answer %+v", a)
		}
	}
	expect(t, w, "own address", w.Pod1, ask(w.Pod1.V6).Neighbour(135, w.Pod1.V6), bpftest.Drop, 0)
	dad := ask(gw)
	dad.Src = netip.IPv6Unspecified()
	expect(t, w, "duplicate address detection", w.Pod1, dad.Neighbour(135, gw), bpftest.Drop, 0)
	spoof := ask(gw)
	spoof.Src = w.Pod2.V6
	expect(t, w, "solicitation as another", w.Pod1, spoof.Neighbour(135, gw), 0, maps.DropSourceIP)
	probe := w.Pod1.Flow(gw, 0, 0)
	probe.Src = netip.MustParseAddr("fe80::11")
	out := expect(t, w, "unicast probe from the link-local address", w.Pod1, probe.Neighbour(135, gw), bpftest.Redirect, 0)
	if string(out[6:12]) != string(w.Pod1.HostMAC) {
		t.Errorf("answered from % x", out[6:12])
	}
	routed := ask(gw)
	routed.TTL = 254
	expect(t, w, "hop limit 254", w.Pod1, routed.Neighbour(135, gw), 0, maps.DropInvalid)

	to := w.Pod1.Flow(gw, 0, 0)
	expect(t, w, "advertisement of its own", w.Pod1, to.Neighbour(136, w.Pod1.V6), bpftest.Pass, 0)
	expect(t, w, "advertisement of the gateway's", w.Pod1, to.Neighbour(136, gw), 0, maps.DropICMPv6Forbidden)
	expect(t, w, "advertisement of a neighbour's", w.Pod1, to.Neighbour(136, w.Pod2.V6), 0, maps.DropICMPv6Forbidden)
	all := w.Pod1.Flow(netip.MustParseAddr("ff02::1"), 0, 0)
	expect(t, w, "router advertisement", w.Pod1, all.Neighbour(134, gw), 0, maps.DropICMPv6Forbidden)
	expect(t, w, "router advertisement to a pod", w.Pod1, w.Pod1.Flow(w.Pod2.V6, 0, 0).Neighbour(134, gw), 0, maps.DropICMPv6Forbidden)
	expect(t, w, "redirect", w.Pod1, w.Pod1.Flow(w.Pod2.V6, 0, 0).Neighbour(137, gw), 0, maps.DropICMPv6Forbidden)
	expect(t, w, "router solicitation", w.Pod1, all.Neighbour(133, gw), bpftest.Drop, 0)
}
