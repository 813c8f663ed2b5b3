package pod_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// denyAllBut80 lets pod 2 be reached on TCP and UDP port 80 only, and pinged.
func denyAllBut80(w *bpftest.World) {
	w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 50},
		maps.PolicyEntry{Proto: 6, PortLo: 80, PortHi: 80, Verdict: maps.VerdictAllow, Rule: 51},
		maps.PolicyEntry{Proto: 17, PortLo: 80, PortHi: 80, Verdict: maps.VerdictAllow, Rule: 52},
		maps.PolicyEntry{Proto: 1, PortLo: 8, PortHi: 8, Verdict: maps.VerdictAllow, Rule: 53},
		maps.PolicyEntry{Proto: 58, PortLo: 128, PortHi: 128, Verdict: maps.VerdictAllow, Rule: 54})
}

func TestFragments(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			denyAllBut80(w)
			long := make([]byte, 64)
			good := w.Pod1.Flow(w.Pod2.Addr(v), 4000, 80)
			bad := w.Pod1.Flow(w.Pod2.Addr(v), 4000, 81)
			first, later := packet.Fragment(good.UDP(long...), 32, 7)
			expect(t, w, "later before first", w.Pod1, later, 0, maps.DropFirstFragment)
			expect(t, w, "first", w.Pod1, first, bpftest.Redirect, 0)
			expect(t, w, "later", w.Pod1, later, bpftest.Redirect, 0)

			first, later = packet.Fragment(bad.UDP(long...), 32, 8)
			expect(t, w, "denied first", w.Pod1, first, 0, maps.DropPolicy)
			expect(t, w, "denied later", w.Pod1, later, 0, maps.DropPolicy)

			// Another workload must not lend its first fragment.
			first, _ = packet.Fragment(good.UDP(long...), 32, 9)
			spoofed := append([]byte(nil), first...)
			copy(spoofed[6:12], w.Pod2.MAC)
			_, later = packet.Fragment(good.UDP(long...), 32, 9)
			expect(t, w, "spoofed first", w.Pod2, spoofed, 0, maps.DropSourceIP)
			expect(t, w, "later of the spoofed", w.Pod1, later, 0, maps.DropFirstFragment)

			first, _ = packet.Fragment(good.TCP("S", long...), 8, 10)
			expect(t, w, "ports but no flags in the first", w.Pod1, first, 0, maps.DropTruncated)
			_, later = packet.Fragment(good.TCP("S", long...), 8, 11)
			expect(t, w, "later over the TCP header", w.Pod1, later, 0, maps.DropFragment)
			first, later = packet.Fragment(good.TCP("S", long...), 24, 12)
			expect(t, w, "TCP first", w.Pod1, first, bpftest.Redirect, 0)
			expect(t, w, "TCP later", w.Pod1, later, bpftest.Redirect, 0)

			ping := w.Pod1.Flow(w.Pod2.Addr(v), 0, 0)
			echo := ping.EchoRequest(99)
			echo = append(echo, long...)
			fixLength(echo, v)
			first, later = packet.Fragment(echo, 16, 13)
			expect(t, w, "echo first", w.Pod1, first, bpftest.Redirect, 0)
			expect(t, w, "echo later", w.Pod1, later, bpftest.Redirect, 0)

			first, _ = packet.Fragment(ping.Unreachable(w.Pod2.Flow(w.Pod1.Addr(v), 80, 4000).UDP(long...)), 48, 14)
			expect(t, w, "error in pieces", w.Pod1, first, 0, maps.DropFragment)

			_, later = packet.Fragment(good.UDP(long...), 32, 15)
			if v == 0 {
				binary.BigEndian.PutUint16(later[14+6:], 0x1fff)
			} else {
				binary.BigEndian.PutUint16(later[14+40+2:], 0xfff8)
			}
			expect(t, w, "past the end", w.Pod1, later, 0, maps.DropInvalid)
		})
	}
}

// fixLength makes the IP header fit the frame.
func fixLength(frame []byte, version int) {
	if version == 0 {
		binary.BigEndian.PutUint16(frame[14+2:], uint16(len(frame)-14))
		return
	}
	binary.BigEndian.PutUint16(frame[14+4:], uint16(len(frame)-14-40))
}

func TestBadLengths(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		f := w.Pod1.Flow(w.Pod2.Addr(v), 4000, 80)
		head := []int{20, 40}[v]
		lenOff := []int{14 + 2, 14 + 4}[v]
		for _, c := range []struct {
			name   string
			frame  []byte
			change func([]byte)
			reason uint8
		}{
			{"length past the frame", f.UDP(1, 2, 3), func(b []byte) { binary.BigEndian.PutUint16(b[lenOff:], 9999) }, maps.DropInvalid},
			{"UDP length past the packet", f.UDP(1, 2, 3), func(b []byte) { binary.BigEndian.PutUint16(b[14+head+4:], 999) }, maps.DropTruncated},
			{"UDP length 7", f.UDP(1, 2, 3), func(b []byte) { binary.BigEndian.PutUint16(b[14+head+4:], 7) }, maps.DropTruncated},
			{"TCP offset 4", f.TCP("S"), func(b []byte) { b[14+head+12] = 0x40 }, maps.DropTruncated},
			{"TCP offset past the packet", f.TCP("S"), func(b []byte) { b[14+head+12] = 0xf0 }, maps.DropTruncated},
			{"version 5", f.TCP("S"), func(b []byte) { b[14] = b[14]&15 | 0x50 }, maps.DropInvalid},
		} {
			b := append([]byte(nil), c.frame...)
			c.change(b)
			expect(t, w, name+" "+c.name, w.Pod1, b, 0, c.reason)
		}
		for n := 14; n < 14+head+8; n += 7 {
			// The kernel itself refuses to run programs on frames that are shorter still.
			if verdict, _, err := w.Run(pod.FromPod, w.Pod1.Dev, f.UDP()[:n]); err == nil && verdict != bpftest.Drop {
				t.Errorf("%s: %d bytes of it: verdict %d", name, n, verdict)
			}
		}
		w.Events()
	}
	short := w.Pod1.Flow(w.Pod2.V4, 1, 2).UDP()
	short[14] = 0x44
	expect(t, w, "IPv4 header of 16 bytes", w.Pod1, short, 0, maps.DropInvalid)
	expect(t, w, "ICMPv6 in IPv4", w.Pod1, w.Pod1.Flow(w.Pod2.V4, 0, 0).Raw(58, make([]byte, 16)...), 0, maps.DropL4Protocol)
	expect(t, w, "ICMP in IPv6", w.Pod1, w.Pod1.Flow(w.Pod2.V6, 0, 0).Raw(1, make([]byte, 16)...), 0, maps.DropL4Protocol)
	other := w.Pod1.Flow(w.Pod2.V4, 1, 2).UDP()
	binary.BigEndian.PutUint16(other[12:], 0x88b5)
	expect(t, w, "another EtherType", w.Pod1, other, 0, maps.DropL3Protocol)
}

func TestOptionsAndExtensions(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	denyAllBut80(w)
	for port, reason := range map[uint16]uint8{80: 0, 81: maps.DropPolicy} {
		f := w.Pod1.Flow(w.Pod2.V4, 4000, port)
		ip := f.IPv4(layers.IPProtocolTCP)
		ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
		tcp := &layers.TCP{SrcPort: 4000, DstPort: layers.TCPPort(port), SYN: true}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		expect(t, w, "IPv4 options", w.Pod1, packet.Serialize(f.Ethernet(), ip, tcp), bpftest.Redirect, reason)
	}
	for _, route := range []uint8{131, 137} {
		f := w.Pod1.Flow(w.Pod2.V4, 4000, 80)
		ip := f.IPv4(layers.IPProtocolUDP)
		ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: route, OptionLength: 7, OptionData: []byte{4, 198, 51, 100, 7}}}
		u := &layers.UDP{SrcPort: 4000, DstPort: 80}
		_ = u.SetNetworkLayerForChecksum(ip)
		expect(t, w, "IPv4 source route", w.Pod1, packet.Serialize(f.Ethernet(), ip, u), 0, maps.DropInvalid)
	}
	udp := func(port byte) []byte { return []byte{0, 40, 0, port, 0, 8, 0, 0} }
	pad := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }
	for _, c := range []struct {
		name   string
		first  byte
		body   [][]byte
		reason uint8
	}{
		{"hop by hop", 0, [][]byte{pad(17), udp(80)}, 0},
		{"hop by hop to a denied port", 0, [][]byte{pad(17), udp(81)}, maps.DropPolicy},
		{"destination options", 60, [][]byte{pad(60), pad(60), pad(17), udp(80)}, 0},
		{"six of them", 60, [][]byte{pad(60), pad(60), pad(60), pad(60), pad(60), pad(17), udp(80)}, 0},
		{"seven", 60, [][]byte{pad(60), pad(60), pad(60), pad(60), pad(60), pad(60), pad(17), udp(80)}, maps.DropExtensionHeader},
		{"hop by hop in second place", 60, [][]byte{pad(0), pad(17), udp(80)}, maps.DropExtensionHeader},
		{"routing header at its end", 43, [][]byte{{17, 0, 4, 0, 0, 0, 0, 0}, udp(80)}, 0},
		{"routing header with a way to go", 43, [][]byte{{17, 0, 0, 1, 0, 0, 0, 0}, udp(80)}, maps.DropExtensionHeader},
		{"longer than the packet", 60, [][]byte{{17, 200, 1, 4, 0, 0, 0, 0}, udp(80)}, maps.DropExtensionHeader},
		{"cut", 60, [][]byte{{17, 0, 1}}, maps.DropExtensionHeader},
		{"authentication header", 51, [][]byte{{17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, udp(80)}, 0},
		{"options behind the fragment header", 44, [][]byte{{60, 0, 0, 1, 0, 0, 0, 1}, pad(17), udp(80)}, maps.DropExtensionHeader},
		{"two fragment headers", 44, [][]byte{{44, 0, 0, 0, 0, 0, 0, 1}, {17, 0, 0, 0, 0, 0, 0, 1}, udp(80)}, maps.DropExtensionHeader},
		{"atomic fragment", 44, [][]byte{{17, 0, 0, 0, 0, 0, 0, 1}, udp(80)}, 0},
		{"chain that hides the ports", 44, [][]byte{{17, 0, 0, 1, 0, 0, 0, 1}}, maps.DropTruncated},
	} {
		f := w.Pod1.Flow(w.Pod2.V6, 40, 0)
		var body gopacket.Payload
		for _, b := range c.body {
			body = append(body, b...)
		}
		expect(t, w, c.name, w.Pod1, packet.Serialize(f.Ethernet(), f.IPv6(layers.IPProtocol(c.first)), body), bpftest.Redirect, c.reason)
	}
}

// TestGHSA_c66w_hq56_4q97_ICMPDirection: an echo id reused in the opposite direction is another conversation.
func TestGHSA_c66w_hq56_4q97_ICMPDirection(t *testing.T) {
	c := score.Start(t, "GHSA-c66w-hq56-4q97", "echo requests against the policy, under the id of an allowed conversation")
	random := c.Rand()
	ids := []uint16{7, 8, 128, 0} // 8 and 128 are also the request's type
	for range score.Size(20, 500) {
		ids = append(ids, uint16(random.IntN(1<<16)))
	}
	c.Count(2*len(ids), "ids")
	defer func() {
		if !t.Failed() {
			c.Say("0 requests passed the other way")
		}
	}()
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
			there := w.Pod1.Flow(w.Pod2.Addr(v), 0, 0)
			back := w.Pod2.Flow(w.Pod1.Addr(v), 0, 0)
			expect(t, w, "reply nobody asked for", w.Pod2, back.EchoReply(7), 0, maps.DropPolicy)
			for _, id := range ids {
				expect(t, w, "request", w.Pod1, there.EchoRequest(id), bpftest.Redirect, 0)
				expect(t, w, "reply", w.Pod2, back.EchoReply(id), bpftest.Redirect, 0)
				expect(t, w, "request the other way", w.Pod2, back.EchoRequest(id), 0, maps.DropPolicy)
			}
			if unused := uint16(9); !slices.Contains(ids, unused) {
				expect(t, w, "reply with another id", w.Pod2, back.EchoReply(unused), 0, maps.DropPolicy)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			denyAllBut80(w)
			w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
			f := w.Pod1.Flow(w.Pod2.Addr(v), 4000, 80)
			err := w.Pod2.Flow(w.Pod1.Addr(v), 0, 0)
			sent := f.UDP(1, 2, 3, 4)
			expect(t, w, "before its flow", w.Pod2, err.Unreachable(sent), 0, maps.DropCTState)
			expect(t, w, "the packet", w.Pod1, sent, bpftest.Redirect, 0)
			expect(t, w, "error about it", w.Pod2, err.Unreachable(sent), bpftest.Redirect, 0)
			if evs := len(w.Connections()); evs != 1 {
				t.Errorf("%d connections, want 1: errors make none", evs)
			}
			other := f
			other.SrcPort++
			expect(t, w, "about a flow there is not", w.Pod2, err.Unreachable(other.UDP(1)), 0, maps.DropCTState)
			expect(t, w, "to somebody else", w.Pod1, f.Unreachable(sent), 0, maps.DropInvalid)
			// The quoted packet really went the other way: the receiver never sent it, nor is it a reply of the flow.
			expect(t, w, "about its own packet", w.Pod2, err.Unreachable(other.Reverse().UDP(1)), 0, maps.DropInvalid)
			expect(t, w, "quoting an error", w.Pod2, err.Unreachable(err.Reverse().Unreachable(sent)), 0, maps.DropInvalid)
			// A third workload speaks of their flow.
			third := bpftest.Pod{ID: 13, Identity: bpftest.IDPod2, Set: 3, Dev: w.Dev[2], MAC: packet.MAC(0x13), HostMAC: packet.MAC(0x93),
				V4: bpftest.NewPod[0], V6: bpftest.NewPod[1]}
			w.PutPod(third)
			expect(t, w, "by a third", third, third.Flow(w.Pod1.Addr(v), 0, 0).Unreachable(sent), 0, maps.DropCTState)
			short := err.Unreachable(sent[:14+[]int{20, 40}[v]+4])
			expect(t, w, "quote too short", w.Pod2, short, 0, maps.DropTruncated)
			if v == 0 {
				expect(t, w, "redirect", w.Pod2, err.ICMP(5, 1, append([]byte{0, 0, 0, 0}, sent[14:]...)...), 0, maps.DropInvalid)
			}
			// Revoked with its flow.
			w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 50})
			w.PutState(maps.State{Epoch: 1})
			expect(t, w, "after its flow was revoked", w.Pod2, err.Unreachable(sent), 0, maps.DropPolicy)
		})
	}
}
