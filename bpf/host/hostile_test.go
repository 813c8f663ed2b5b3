package host_test

import (
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// No router outside sees what goes between workloads of the node, or through the overlay: it has nothing to say about it.
func TestErrorsFromOutside(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			router := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Outside[v], Dst: w.Pod1.Addr(v)}
			for _, peer := range []netip.Addr{w.Pod2.Addr(v), bpftest.FarPod[v]} {
				sent := w.Pod1.Flow(peer, 40000, 443).UDP(1, 2, 3)
				drops(t, w, pod.FromPod, w.Pod1.Dev, sent)
				drops(t, w, host.FromNetdev, dev, router.Unreachable(sent), maps.DropCTState)
			}
		})
	}
}
