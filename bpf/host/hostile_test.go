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

// A packet that came to a workload's own address is answered from it, and so is what is wrong with it.
func TestErrorAboutRoutedPacket(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			in := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Outside[v], Dst: w.Pod1.Addr(v), SrcPort: 40000, DstPort: 53}
			_, came := drops(t, w, host.FromNetdev, dev, in.UDP(1, 2, 3))
			verdict, out := drops(t, w, pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(in.Src, 0, 0).Unreachable(came))
			if verdict != bpftest.Redirect || flowOf(out, v).Src != w.Pod1.Addr(v) {
				t.Errorf("verdict %d, from %v", verdict, flowOf(out, v).Src)
			}
		})
	}
}

// An error about the node's own echo reply is the node's, also where a workload pings the same machine under the same id.
func TestErrorAboutNodesReply(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			const id = 20001 // one to leave under
			drops(t, w, pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(bpftest.Outside[v], 0, 0).EchoRequest(id))
			node := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Node1[v], Dst: bpftest.Outside[v]}
			about := node.Reverse().Unreachable(node.EchoReply(id))
			if verdict, out := drops(t, w, host.FromNetdev, dev, about); verdict != bpftest.Pass || string(out) != string(about) {
				t.Errorf("verdict %d", verdict)
			}
		})
	}
}
