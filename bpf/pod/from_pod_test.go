package pod_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

var versions = [2]string{"ipv4", "ipv6"}

// expect runs a frame through from_pod of a pod; reason 0 means that it goes to verdict, else dropped with that reason.
func expect(t *testing.T, w *bpftest.World, name string, p bpftest.Pod, frame []byte, verdict uint32, reason uint8) []byte {
	t.Helper()
	got, out := w.MustRun(pod.FromPod, p.Dev, frame)
	drops := bpftest.Drops(w.Events())
	if reason != 0 {
		if got != bpftest.Drop || !slices.Equal(drops, []uint8{reason}) {
			t.Errorf("%s: verdict %d, drops %v; want dropped for %d", name, got, drops, reason)
		}
		return out
	}
	if got != verdict || len(drops) != 0 {
		t.Errorf("%s: verdict %d, drops %v; want verdict %d", name, got, drops, verdict)
	}
	return out
}

func TestFromPodLocal(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		for proto, frame := range map[string][]byte{
			"tcp":  w.Pod1.Flow(w.Pod2.Addr(v), 40000, 80).TCP("S"),
			"udp":  w.Pod1.Flow(w.Pod2.Addr(v), 40000, 53).UDP('x'),
			"sctp": w.Pod1.Flow(w.Pod2.Addr(v), 40000, 99).SCTP(),
			"icmp": w.Pod1.Flow(w.Pod2.Addr(v), 0, 0).EchoRequest(7),
			"gre":  w.Pod1.Flow(w.Pod2.Addr(v), 0, 0).Raw(47, 1, 2, 3, 4),
		} {
			verdict, out := w.MustRun(pod.FromPod, w.Pod1.Dev, frame)
			if verdict != bpftest.Redirect {
				t.Fatalf("%s %s: verdict %d, events %+v", name, proto, verdict, w.Events())
			}
			if string(out[:6]) != string(w.Pod2.MAC) || string(out[6:12]) != string(w.Pod2.HostMAC) {
				t.Errorf("%s %s: MACs % x", name, proto, out[:12])
			}
			if string(out[14:]) != string(frame[14:]) {
				t.Errorf("%s %s: IP packet changed", name, proto)
			}
			evs := w.Events()
			if len(evs) != 3 {
				t.Fatalf("%s %s: %d events, want two verdicts and a trace: %+v", name, proto, len(evs), evs)
			}
			for i, want := range []struct {
				typ, flag uint8
				rule      uint32
			}{{maps.EventPolicyVerdict, maps.EventEgress, 111}, {maps.EventPolicyVerdict, maps.EventIngress, 120}, {maps.EventTrace, maps.EventIngress, 120}} {
				e := evs[i]
				if e.Type != want.typ || e.Flags&(maps.EventEgress|maps.EventIngress) != want.flag || e.Rule != want.rule ||
					e.SrcIdentity != bpftest.IDPod1 || e.DstIdentity != bpftest.IDPod2 || e.SrcEp != 11 || e.DstEp != 12 {
					t.Errorf("%s %s: event %d is %+v", name, proto, i, e)
				}
			}
		}
	}
	if got := len(w.Connections()); got != 10 {
		t.Errorf("%d connections, want 10", got)
	}
	if got := w.Metric(0); got != 10 {
		t.Errorf("%d packets counted as forwarded, want 10", got)
	}
}

// The reply of an allowed connection passes though its own direction is denied, and only it.
func TestFromPodReply(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			w.PutPolicy(2, maps.ClassAny, maps.PolicyEgress, maps.PolicyValue{DefaultRule: 77})
			f := w.Pod1.Flow(w.Pod2.Addr(v), 40000, 80)
			back := w.Pod2.Flow(w.Pod1.Addr(v), 80, 40000)
			expect(t, w, "reply before request", w.Pod2, back.TCP("SA"), 0, maps.DropPolicy)
			expect(t, w, "request", w.Pod1, f.TCP("S"), bpftest.Redirect, 0)
			expect(t, w, "reply", w.Pod2, back.TCP("SA"), bpftest.Redirect, 0)
			expect(t, w, "established", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			other := back
			other.DstPort++
			expect(t, w, "another port", w.Pod2, other.TCP("SA"), 0, maps.DropPolicy)
			expect(t, w, "new connection from the same port", w.Pod2, back.TCP("S"), 0, maps.DropPolicy)
			expect(t, w, "request again", w.Pod1, f.TCP("PA", 'x'), bpftest.Redirect, 0)
		})
	}
}

func TestFromPodPinning(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		good := w.Pod1.Flow(w.Pod2.Addr(v), 1000, 80)
		with := func(change func(*packet.Flow)) []byte {
			f := good
			change(&f)
			return f.TCP("S")
		}
		expect(t, w, name+" MAC", w.Pod1, with(func(f *packet.Flow) { f.SrcMAC = w.Pod2.MAC }), 0, maps.DropSourceMAC)
		expect(t, w, name+" other pod's address", w.Pod1, with(func(f *packet.Flow) { f.Src = w.Pod2.Addr(v) }), 0, maps.DropSourceIP)
		expect(t, w, name+" nobody's address", w.Pod1, with(func(f *packet.Flow) { f.Src = bpftest.Outside[v] }), 0, maps.DropSourceIP)
		expect(t, w, name+" node's address", w.Pod1, with(func(f *packet.Flow) { f.Src = bpftest.Node1[v] }), 0, maps.DropSourceIP)
		expect(t, w, name+" to itself", w.Pod1, with(func(f *packet.Flow) { f.Dst = f.Src }), 0, maps.DropInvalid)
	}
	for dst, reason := range map[string]uint8{
		"127.0.0.1": maps.DropInvalid, "0.0.0.0": maps.DropInvalid, "224.0.0.251": maps.DropMulticast,
		"255.255.255.255": maps.DropMulticast, "10.0.1.255": maps.DropUnroutable, "169.254.169.254": maps.DropL3Target,
		"::1": maps.DropInvalid, "::": maps.DropInvalid, "ff02::fb": maps.DropMulticast, "fe80::1": maps.DropL3Target,
		"fd00:1::dead": maps.DropUnroutable,
	} {
		expect(t, w, "to "+dst, w.Pod1, w.Pod1.Flow(netip.MustParseAddr(dst), 1, 2).UDP(), 0, reason)
	}
	mapped := w.Pod1.Flow(netip.MustParseAddr("fd00:1::12"), 1, 2).UDP()
	copy(mapped[14+24:], netip.MustParseAddr("::ffff:10.0.1.12").AsSlice())
	expect(t, w, "v4-mapped destination", w.Pod1, mapped, 0, maps.DropInvalid)
	copy(mapped[14+8:], netip.MustParseAddr("::ffff:10.0.1.11").AsSlice())
	expect(t, w, "v4-mapped source", w.Pod1, mapped, 0, maps.DropInvalid)
}

func TestFromPodForgedOverlay(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		// Outside stands for an address of a node that is not on record: masqueraded, the packet would come from this node.
		for _, node := range []netip.Addr{bpftest.Node1[v], bpftest.Node2[v], bpftest.Router1[v], bpftest.Router2[v], bpftest.Outside[v]} {
			expect(t, w, fmt.Sprint(name, node), w.Pod1, w.Pod1.Flow(node, 5000, 8472).UDP(1, 2, 3), 0, maps.DropEncapsulation)
		}
		expect(t, w, name+" to a pod", w.Pod1, w.Pod1.Flow(w.Pod2.Addr(v), 5000, 8472).UDP(1), bpftest.Redirect, 0)
	}
}

func TestFromPodNode(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		f := w.Pod1.Flow(bpftest.Node1[v], 5000, 22)
		expect(t, w, name, w.Pod1, f.TCP("S"), bpftest.Pass, 0)
		back := f.Reverse()
		if verdict, _ := w.MustRun(pod.ToPod, w.Pod1.Dev, back.TCP("SA")); verdict != bpftest.Pass {
			t.Errorf("%s: the node's reply: verdict %d, events %+v", name, verdict, w.Events())
		}
		w.Events()
	}
}

func TestFromPodOverlay(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		f := w.Pod1.Flow(bpftest.FarPod[v], 5000, 80)
		verdict, out, mark, err := w.RunPacket(pod.FromPod, bpftest.Packet{Frame: f.TCP("S"), IfIndex: w.Pod1.Dev})
		if err != nil || verdict != bpftest.Redirect || mark != 0x400 {
			t.Fatalf("%s: verdict %d, mark %#x, %v; events %+v", name, verdict, mark, err, w.Events())
		}
		if err := packet.Check(out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if hop := []byte{out[14+8], out[14+7]}[v]; hop != 63 {
			t.Errorf("%s: %d hops left, want 63", name, hop)
		}
		evs := w.Events()
		last := evs[len(evs)-1]
		if last.Code != maps.TraceToOverlay || last.Vni != bpftest.IDPod1 || last.Tunnel.Netip() != bpftest.Node2[0] {
			t.Errorf("%s: trace %+v", name, last)
		}
		f.TTL = 1
		out = expectAnswer(t, w, name+" last hop", f.UDP('x', 'y', 'z'), maps.DropTTL)
		if typ := out[[]int{14 + 20, 14 + 40}[v]]; typ != []byte{11, 3}[v] {
			t.Errorf("%s: answered by type %d, want time exceeded", name, typ)
		}
	}
}

// expectAnswer is for frames of pod 1 that are dropped with an ICMP error as answer, which it returns.
func expectAnswer(t *testing.T, w *bpftest.World, name string, frame []byte, reason uint8) []byte {
	t.Helper()
	verdict, out := w.MustRun(pod.FromPod, w.Pod1.Dev, frame)
	drops := bpftest.Drops(w.Events())
	if verdict != bpftest.Redirect || !slices.Equal(drops, []uint8{reason}) {
		t.Fatalf("%s: verdict %d, drops %v; want an answer and %d", name, verdict, drops, reason)
	}
	if err := packet.Check(out); err != nil {
		t.Errorf("%s: answer: %v", name, err)
	}
	if string(out[:6]) != string(w.Pod1.MAC) {
		t.Errorf("%s: answered to % x", name, out[:6])
	}
	src, _ := netip.AddrFromSlice(out[14+12 : 14+16])
	router := bpftest.Router1[0]
	if frame[12] == 0x86 {
		src, _ = netip.AddrFromSlice(out[14+8 : 14+24])
		router = bpftest.Router1[1]
	}
	if src != router {
		t.Errorf("%s: answered by %s, want the gateway %s", name, src, router)
	}
	return out
}
