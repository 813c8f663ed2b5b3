package pod_test

import (
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
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
