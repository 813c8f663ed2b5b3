package overlay_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

var (
	versions = [2]string{"ipv4", "ipv6"}
	inner    = packet.Flow{SrcMAC: packet.MAC(0x51), DstMAC: packet.MAC(0x52), SrcPort: 5000, DstPort: 80}
)

func arrive(t *testing.T, w *bpftest.World, name string, outer netip.Addr, vni uint32, frame []byte, verdict uint32, reason ...uint8) []byte {
	t.Helper()
	got, out, err := w.RunTunneled(overlay.FromOverlay, w.Dev[3], outer, vni, frame)
	if errors.Is(err, bpftest.ErrNoTunnel) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	evs := w.Events()
	if drops := bpftest.Drops(evs); got != verdict || !slices.Equal(drops, reason) {
		t.Errorf("%s: verdict %d, drops %v; want %d, %v; events %+v", name, got, drops, verdict, reason, evs)
	}
	for _, e := range evs {
		if e.Vni != vni || e.Tunnel.Netip() != outer {
			t.Errorf("%s: event says VNI %d from %v", name, e.Vni, e.Tunnel.Netip())
		}
	}
	return out
}

func TestFromOverlay(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			node := bpftest.Node2[0]
			from := func(src netip.Addr) packet.Flow {
				f := inner
				f.Src, f.Dst = src, w.Pod1.Addr(v)
				return f
			}
			good := from(bpftest.FarPod[v])
			frame := good.TCP("S")
			out := arrive(t, w, "a remote pod", node, bpftest.IDFar, frame, bpftest.Redirect)
			if string(out[:6]) != string(w.Pod1.MAC) || string(out[14:]) != string(frame[14:]) {
				t.Errorf("delivered % x", out)
			}
			drop := func(what string, outer netip.Addr, vni uint32, f packet.Flow, reason uint8) {
				t.Helper()
				f.SrcPort = 6000
				arrive(t, w, what, outer, vni, f.TCP("S"), bpftest.Drop, reason)
			}
			drop("unknown node", bpftest.Outside[0], bpftest.IDFar, good, maps.DropUnknownSender)
			drop("the node itself", bpftest.Node1[0], bpftest.IDFar, good, maps.DropUnknownSender)
			drop("a pod as node", w.Pod2.V4, bpftest.IDFar, good, maps.DropUnknownSender)
			drop("another identity", node, bpftest.IDPod2, good, maps.DropIdentity)
			drop("identity host", node, bpftest.IDHost, good, maps.DropIdentity)
			drop("identity 0", node, 0, good, maps.DropIdentity)
			drop("our own pod", node, bpftest.IDPod2, from(w.Pod2.Addr(v)), maps.DropSourceIP)
			drop("our own node", node, bpftest.IDHost, from(bpftest.Node1[v]), maps.DropSourceIP)
			drop("a workload with an address outside", node, bpftest.IDFar, from(bpftest.Outside[v]), maps.DropSourceIP)
			drop("the world from inside", node, bpftest.IDWorld, good, maps.DropIdentity)
			arrive(t, w, "a service's client outside", node, bpftest.IDWorld, from(bpftest.Outside[v]).TCP("S"), bpftest.Redirect)
			nodeV := bpftest.Node2[1-v]
			if v == 0 { // a node known, but not the one the pod is behind
				drop("the wrong node", nodeV, bpftest.IDFar, good, maps.DropSourceIP)
			}

			fresh := from(bpftest.NewPod[v])
			arrive(t, w, "a pod without a row yet", node, bpftest.IDFar, fresh.TCP("S"), bpftest.Redirect)
			drop("a new pod of an unknown identity", node, 9999, fresh, maps.DropIdentity)
			for _, reserved := range []uint32{0, bpftest.IDHost, bpftest.IDRemoteNode, 7, 8} {
				w.Put(w.Maps.ClassV1, reserved, uint32(1))
				drop("a new pod as a reserved identity", node, reserved, fresh, maps.DropIdentity)
			}
			drop("a new pod as the world", node, bpftest.IDWorld, fresh, maps.DropSourceIP)
			arrive(t, w, "a remote node", node, bpftest.IDRemoteNode, from(bpftest.Router2[v]).TCP("S"), bpftest.Redirect)

			const labelled = 0x02000001 // our own number for that node, by its labels
			w.PutIP(bpftest.Router2[v], labelled, maps.IPCacheNode|maps.IPCacheTunnel|maps.IPCacheNoMasq, node)
			w.Put(w.Maps.ClassV1, uint32(labelled), uint32(62))
			w.PutPolicy(1, 62, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 63})
			drop("a labelled node, denied by its labels", node, bpftest.IDRemoteNode, from(bpftest.Router2[v]), maps.DropPolicy)
			drop("a labelled node as a workload", node, bpftest.IDFar, from(bpftest.Router2[v]), maps.DropIdentity)
			drop("another node as it", bpftest.Outside[0], bpftest.IDRemoteNode, from(bpftest.Router2[v]), maps.DropUnknownSender)

			toNode := good
			toNode.Dst = bpftest.Router1[v]
			arrive(t, w, "to the node", node, bpftest.IDFar, toNode.UDP(1), bpftest.Pass)
			toNode.Dst = netip.MustParsePrefix([]string{"10.0.1.200/32", "fd00:1::200/128"}[v]).Addr()
			drop("to nobody", node, bpftest.IDFar, toNode, maps.DropUnroutable)

			w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
			drop("denied", node, bpftest.IDFar, good, maps.DropPolicy)
			arrive(t, w, "established", node, bpftest.IDFar, good.TCP("A"), bpftest.Redirect)
		})
	}
}

// A workload whose node has announced another identity is believed under both, but each packet is judged by the one it has, also
// where a connection is on record.
func TestFromOverlayBetweenIdentities(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			const next, nextClass = 4321, 71
			w := bpftest.NewWorld(t, bpftest.Config{})
			node := bpftest.Node2[0]
			f := inner
			f.Src, f.Dst = bpftest.FarPod[v], w.Pod1.Addr(v)
			arrive(t, w, "before", node, bpftest.IDFar, f.TCP("S"), bpftest.Redirect)
			arrive(t, w, "the next identity before it is known", node, next, f.TCP("A"), bpftest.Drop, maps.DropIdentity)

			w.Put(w.Maps.ClassV1, uint32(next), uint32(nextClass))
			w.PutPolicy(1, nextClass, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 63}) // to which Pod1 says no
			w.PutIP(f.Src, next, maps.IPCacheTunnel, node)
			w.PutState(maps.State{Epoch: 1})
			arrive(t, w, "as it was, not on record", node, bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropIdentity)
			w.Put(w.Maps.IpcacheWasV1, maps.AddrFrom(f.Src), uint32(bpftest.IDFar))
			for range 2 {
				arrive(t, w, "as it was", node, bpftest.IDFar, f.TCP("A"), bpftest.Redirect)
				arrive(t, w, "as it is to be", node, next, f.TCP("A"), bpftest.Drop, maps.DropPolicy)
			}
			second := f
			second.SrcPort++
			arrive(t, w, "a new connection, as it was", node, bpftest.IDFar, second.TCP("S"), bpftest.Redirect)
			arrive(t, w, "that one, as it is to be", node, next, second.TCP("A"), bpftest.Drop, maps.DropPolicy)
			arrive(t, w, "somebody else", node, bpftest.IDPod2, f.TCP("A"), bpftest.Drop, maps.DropIdentity)
			arrive(t, w, "the wrong node", bpftest.Outside[0], bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropUnknownSender)

			if err := w.Maps.IpcacheWasV1.Delete(maps.AddrFrom(f.Src)); err != nil {
				t.Fatal(err)
			}
			arrive(t, w, "as it was, too late", node, bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropIdentity)
		})
	}
}

// Two workloads behind one address, one after the other, neither known but by the node's range: what the first may, the second
// may not for that reason.
func TestFromOverlayNewTenant(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			const next, nextClass = 4321, 71
			w := bpftest.NewWorld(t, bpftest.Config{})
			w.Put(w.Maps.ClassV1, uint32(next), uint32(nextClass))
			w.PutPolicy(1, nextClass, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 63})
			f := inner
			f.Src, f.Dst = bpftest.NewPod[v], w.Pod1.Addr(v)
			arrive(t, w, "the first", bpftest.Node2[0], bpftest.IDFar, f.TCP("S"), bpftest.Redirect)
			arrive(t, w, "the second", bpftest.Node2[0], next, f.TCP("A"), bpftest.Drop, maps.DropPolicy)
		})
	}
}

// The row of an established connection is all that its packets need, and it vouches for one node and one identity.
func TestFromOverlayEstablished(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			node, other := bpftest.Node2[0], netip.MustParseAddr("192.0.2.3")
			w.PutIP(other, bpftest.IDRemoteNode, maps.IPCacheNode, netip.Addr{})
			f := inner
			f.Src, f.Dst = bpftest.FarPod[v], w.Pod1.Addr(v)
			arrive(t, w, "SYN", node, bpftest.IDFar, f.TCP("S"), bpftest.Redirect)
			arrive(t, w, "ACK", node, bpftest.IDFar, f.TCP("A"), bpftest.Redirect)
			if err := w.Maps.EndpointsV1.Delete(maps.AddrFrom(w.Pod1.Addr(v))); err != nil {
				t.Fatal(err)
			}
			out := arrive(t, w, "by the row alone", node, bpftest.IDFar, f.TCP("A"), bpftest.Redirect)
			if string(out[:6]) != string(w.Pod1.MAC) || string(out[6:12]) != string(w.Pod1.HostMAC) {
				t.Errorf("MACs % x", out[:12])
			}
			w.PutPod(w.Pod1)
			arrive(t, w, "from another node", other, bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropSourceIP)
			arrive(t, w, "from nobody", bpftest.Outside[0], bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropUnknownSender)
			arrive(t, w, "under another identity", node, bpftest.IDPod2, f.TCP("A"), bpftest.Drop, maps.DropIdentity)

			// A connection to an address that only its range knows: the range's identity is no workload's to speak under.
			fresh, back := w.Pod1.Flow(bpftest.NewPod[v], 41000, 80), f
			for _, flags := range []string{"S", "A"} {
				if verdict, _ := w.MustRun(pod.FromPod, w.Pod1.Dev, fresh.TCP(flags)); verdict != bpftest.Redirect {
					t.Fatalf("to a new pod: verdict %d", verdict)
				}
			}
			w.Events()
			back.Src, back.SrcPort, back.DstPort = bpftest.NewPod[v], 80, 41000
			arrive(t, w, "a new pod as itself", node, bpftest.IDFar, back.TCP("A"), bpftest.Redirect)
			arrive(t, w, "a new pod as the world", node, bpftest.IDWorld, back.TCP("A"), bpftest.Drop, maps.DropSourceIP)

			w.PutIP(bpftest.FarPod[v], bpftest.IDFar, maps.IPCacheTunnel|maps.IPCacheNoMasq, other)
			w.PutState(maps.State{Epoch: 1})
			arrive(t, w, "from where it was", node, bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropSourceIP)
			arrive(t, w, "from where it moved", other, bpftest.IDFar, f.TCP("A"), bpftest.Redirect)
			w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
			w.PutState(maps.State{Epoch: 2})
			arrive(t, w, "revoked", other, bpftest.IDFar, f.TCP("A"), bpftest.Drop, maps.DropPolicy)
		})
	}
}

// The underlay may be IPv6.
func TestFromOverlayIPv6Underlay(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	w.PutIP(bpftest.FarPod[0], bpftest.IDFar, maps.IPCacheTunnel, bpftest.Node2[1])
	f := inner
	f.Src, f.Dst = bpftest.FarPod[0], w.Pod1.V4
	arrive(t, w, "IPv4 in IPv6", bpftest.Node2[1], bpftest.IDFar, f.TCP("S"), bpftest.Redirect)
	arrive(t, w, "from the node's IPv4 address", bpftest.Node2[0], bpftest.IDFar, f.TCP("S"), bpftest.Drop, maps.DropSourceIP)
}

func TestFromOverlayWithoutKey(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	f := inner
	f.Src, f.Dst = bpftest.FarPod[0], w.Pod1.V4
	verdict, _ := w.MustRun(overlay.FromOverlay, w.Dev[3], f.TCP("S"))
	if drops := bpftest.Drops(w.Events()); verdict != bpftest.Drop || !slices.Equal(drops, []uint8{maps.DropTunnelKey}) {
		t.Errorf("verdict %d, drops %v", verdict, drops)
	}
}

func TestToOverlay(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	var lacks error
	for v, name := range versions {
		for _, c := range []struct {
			name     string
			src, dst netip.Addr
			verdict  uint32
			reason   []uint8
			ingress  int
		}{
			{"the node's own", bpftest.Router1[v], bpftest.FarPod[v], bpftest.Pass, nil, 0},
			{"the node's own to a new pod", bpftest.Node1[v], bpftest.NewPod[v], bpftest.Pass, nil, 0},
			// The kernel forwards IPv6 under the node's own address like any other.
			{"forwarded under the node's address", bpftest.Router1[v], bpftest.FarPod[v], bpftest.Drop, []uint8{maps.DropSourceIP}, w.Dev[2]},
			{"forwarded", bpftest.Outside[v], bpftest.FarPod[v], bpftest.Drop, []uint8{maps.DropSourceIP}, 0},
			{"a pod's, past from_pod", w.Pod1.Addr(v), bpftest.FarPod[v], bpftest.Drop, []uint8{maps.DropSourceIP}, 0},
			{"to the outside", bpftest.Router1[v], bpftest.Outside[v], bpftest.Drop, []uint8{maps.DropNoTunnel}, 0},
		} {
			f := inner
			f.Src, f.Dst = c.src, c.dst
			verdict, _, mark, err := w.RunPacket(overlay.ToOverlay, bpftest.Packet{Frame: f.TCP("S"), IfIndex: w.Dev[3], Ingress: c.ingress})
			if errors.Is(err, bpftest.ErrNoIngress) {
				lacks = err
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			drops := bpftest.Drops(w.Events())
			if verdict != c.verdict || !slices.Equal(drops, c.reason) {
				t.Errorf("%s %s: verdict %d, drops %v", name, c.name, verdict, drops)
			}
			if verdict == bpftest.Pass && mark != 0x400 {
				t.Errorf("%s %s: mark %#x", name, c.name, mark)
			}
		}
	}
	if lacks != nil { // after all that can be tried
		t.Skip(lacks)
	}
}
