package pod_test

import (
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// handshake puts a connection of Pod1 on record, so that further packets of it have nothing to tell.
func handshake(t *testing.T, w *bpftest.World, f, back packet.Flow) {
	t.Helper()
	expect(t, w, "SYN", w.Pod1, f.TCP("S"), bpftest.Redirect, 0)
	expect(t, w, "SYN, ACK", w.Pod2, back.TCP("SA"), bpftest.Redirect, 0)
	expect(t, w, "ACK", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
}

// The row of an established connection is all that its packets need, and it vouches only for the devices and MACs that
// the connection was judged with.
func TestEstablishedLocal(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			f, back := w.Pod1.Flow(w.Pod2.Addr(v), 40000, 80), w.Pod2.Flow(w.Pod1.Addr(v), 80, 40000)
			handshake(t, w, f, back)
			for _, a := range [2]maps.Addr{maps.AddrFrom(w.Pod1.Addr(v)), maps.AddrFrom(w.Pod2.Addr(v))} {
				if err := w.Maps.EndpointsV1.Delete(a); err != nil {
					t.Fatal(err)
				}
			}
			out := expect(t, w, "by the row alone", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			if string(out[:6]) != string(w.Pod2.MAC) || string(out[6:12]) != string(w.Pod2.HostMAC) {
				t.Errorf("MACs % x", out[:12])
			}
			out = expect(t, w, "reply by the row alone", w.Pod2, back.TCP("A"), bpftest.Redirect, 0)
			if string(out[:6]) != string(w.Pod1.MAC) || string(out[6:12]) != string(w.Pod1.HostMAC) {
				t.Errorf("MACs % x", out[:12])
			}
			w.PutPod(w.Pod1)
			w.PutPod(w.Pod2)
			forged := f
			forged.SrcMAC = w.Pod2.MAC
			expect(t, w, "another MAC", w.Pod1, forged.TCP("A"), 0, maps.DropSourceMAC)
			expect(t, w, "another device", w.Pod2, f.TCP("A"), 0, maps.DropSourceIP)
			expect(t, w, "a reply from another device", w.Pod1, back.TCP("A"), 0, maps.DropSourceIP)

			moved := w.Pod2
			moved.Dev, moved.MAC = w.Dev[2], packet.MAC(0x13)
			w.PutPod(moved)
			w.PutState(maps.State{Epoch: 1})
			out = expect(t, w, "to a new device", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			if string(out[:6]) != string(moved.MAC) {
				t.Errorf("MACs % x", out[:12])
			}
			expect(t, w, "a reply from the old device", w.Pod2, back.TCP("A"), 0, maps.DropSourceIP)
			w.PutPolicy(1, maps.ClassAny, maps.PolicyEgress, maps.PolicyValue{DefaultRule: 60})
			expect(t, w, "in the epoch of the verdict", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			w.PutState(maps.State{Epoch: 2})
			expect(t, w, "revoked", w.Pod1, f.TCP("A"), 0, maps.DropPolicy)
			back.SrcMAC = moved.MAC
			expect(t, w, "the reply, too", moved, back.TCP("A"), 0, maps.DropPolicy)
		})
	}
}

// Towards another node the row knows the node; that the packet fits and has hops left is still looked at.
func TestEstablishedAway(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			f := w.Pod1.Flow(bpftest.FarPod[v], 40000, 80)
			expect(t, w, "SYN", w.Pod1, f.TCP("S"), bpftest.Redirect, 0)
			expect(t, w, "ACK", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			if err := w.Maps.IpcacheExactV1.Delete(maps.AddrFrom(bpftest.FarPod[v])); err != nil {
				t.Fatal(err)
			}
			frame := f.TCP("A")
			out := expect(t, w, "by the row alone", w.Pod1, frame, bpftest.Redirect, 0)
			hops := []int{22, 21}[v]
			if out[hops] != frame[hops]-1 {
				t.Errorf("hops %d became %d", frame[hops], out[hops])
			}
			last := f
			last.TTL = 1
			verdict, _ := w.MustRun(pod.FromPod, w.Pod1.Dev, last.TCP("A"))
			if drops := bpftest.Drops(w.Events()); len(drops) != 1 || drops[0] != maps.DropTTL {
				t.Errorf("last hop: verdict %d, drops %v", verdict, drops)
			}
		})
	}
}
