package pod_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// An advertisement goes to the node's stack unjudged, and the stack forwards what is not its own: one that is not addressed
// to the node would carry a payload anywhere, under any source, past every policy.
func TestAdvertisementStaysOnTheLink(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for _, dst := range []netip.Addr{bpftest.Router1[1], netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")} {
		expect(t, w, "to "+dst.String(), w.Pod1, w.Pod1.Flow(dst, 0, 0).Neighbour(136, w.Pod1.V6), bpftest.Pass, 0)
	}
	for _, dst := range []netip.Addr{bpftest.Outside[1], w.Pod2.V6, bpftest.FarPod[1], bpftest.Node2[1], netip.MustParseAddr("ff0e::1")} {
		expect(t, w, "to "+dst.String(), w.Pod1, w.Pod1.Flow(dst, 0, 0).Neighbour(136, w.Pod1.V6), 0, maps.DropICMPv6Forbidden)
	}
	for _, src := range []netip.Addr{bpftest.FarPod[1], w.Pod2.V6, bpftest.Outside[1]} {
		f := w.Pod1.Flow(bpftest.Router1[1], 0, 0)
		f.Src = src
		expect(t, w, "as "+src.String(), w.Pod1, f.Neighbour(136, w.Pod1.V6), 0, maps.DropSourceIP)
	}
}

// What the stack forwards from a device without a program of ours is neither the node's own nor anybody's who comes by the
// overlay, whatever its source says.
func TestForwardedToPod(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	var lacks error
	for v, name := range versions {
		for _, c := range []struct {
			name    string
			src     netip.Addr
			ingress int
			reasons []uint8
		}{
			{"the node's own", bpftest.Router1[v], 0, nil},
			{"forwarded under the node's address", bpftest.Node1[v], w.Dev[3], []uint8{maps.DropSourceIP}},
			{"forwarded under the router's address", bpftest.Router1[v], w.Dev[3], []uint8{maps.DropSourceIP}},
			{"forwarded from outside", bpftest.Outside[v], w.Dev[3], nil},
			{"forwarded as a remote pod", bpftest.FarPod[v], w.Dev[3], []uint8{maps.DropSourceIP}},
			{"forwarded as a new remote pod", bpftest.NewPod[v], w.Dev[3], []uint8{maps.DropSourceIP}},
			{"forwarded as a remote router", bpftest.Router2[v], w.Dev[3], []uint8{maps.DropSourceIP}},
		} {
			f := packet.Flow{SrcMAC: packet.MAC(1), DstMAC: w.Pod1.MAC, Src: c.src, Dst: w.Pod1.Addr(v), SrcPort: 4000, DstPort: 80}
			verdict, _, _, err := w.RunPacket(pod.ToPod, bpftest.Packet{Frame: f.TCP("S"), IfIndex: w.Pod1.Dev, Ingress: c.ingress})
			if errors.Is(err, bpftest.ErrNoIngress) {
				lacks = err
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			want := bpftest.Pass
			if c.reasons != nil {
				want = bpftest.Drop
			}
			if drops := bpftest.Drops(w.Events()); verdict != want || !slices.Equal(drops, c.reasons) {
				t.Errorf("%s %s: verdict %d, drops %v", name, c.name, verdict, drops)
			}
		}
	}
	if lacks != nil { // after all that can be tried
		t.Skip(lacks)
	}
}

// Nobody lives there yet: whoever comes later must not find a verdict on record that never asked for theirs.
func TestNobodyIsNotOnRecord(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	for v, name := range versions {
		late := bpftest.Pod{ID: 14, Identity: bpftest.IDPod2, Set: 3, Dev: w.Dev[2], MAC: packet.MAC(0x14), HostMAC: packet.MAC(0x94),
			V4: netip.MustParseAddr("10.0.1.14"), V6: netip.MustParseAddr("fd00:1::14")}
		w.PutPolicy(late.Set, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
		frame := w.Pod1.Flow(late.Addr(v), 4000, 80).UDP(1)
		expect(t, w, name+" before", w.Pod1, frame, 0, maps.DropUnroutable)
		if n := len(w.Connections()); n != 0 {
			t.Errorf("%s: %d connections on record", name, n)
		}
		w.PutEndpoint(late, late.Addr(v))
		expect(t, w, name+" after", w.Pod1, frame, 0, maps.DropPolicy)
	}
}
