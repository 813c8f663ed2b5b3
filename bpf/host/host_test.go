package host_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

var (
	versions = [2]string{"ipv4", "ipv6"}
	lan      = packet.MAC(0x77)
)

// outside is a world with a device to the outside.
func outside(t *testing.T, mtu int) (*bpftest.World, int) {
	t.Helper()
	w := bpftest.NewWorld(t, bpftest.Config{})
	return w, w.OpenOutside(mtu)
}

func drops(t *testing.T, w *bpftest.World, prog string, dev int, frame []byte, want ...uint8) (uint32, []byte) {
	t.Helper()
	verdict, out := w.MustRun(prog, dev, frame)
	evs := w.Events()
	if got := bpftest.Drops(evs); !slices.Equal(got, want) {
		t.Fatalf("verdict %d, drops %v, want %v; events %+v", verdict, got, want, evs)
	}
	return verdict, out
}

// flowOf reads addresses and ports back from a frame.
func flowOf(frame []byte, v int) packet.Flow {
	ip, head := frame[14:], []int{20, 40}[v]
	f := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1)}
	if v == 0 {
		f.Src, f.Dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	} else {
		f.Src, f.Dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	}
	f.SrcPort = uint16(ip[head])<<8 | uint16(ip[head+1])
	f.DstPort = uint16(ip[head+2])<<8 | uint16(ip[head+3])
	f.SrcMAC, f.DstMAC = lan, packet.MAC(1)
	return f
}

func TestMasquerade(t *testing.T) {
	for v, name := range versions {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(name+" "+proto, func(t *testing.T) {
				w, dev := outside(t, 1500)
				build := func(f packet.Flow, flags string) []byte {
					if proto == "tcp" {
						return f.TCP(flags, 1, 2, 3)
					}
					return f.UDP(1, 2, 3)
				}
				f := w.Pod1.Flow(bpftest.Outside[v], 40000, 443)
				verdict, out := drops(t, w, pod.FromPod, w.Pod1.Dev, build(f, "S"))
				if verdict != bpftest.Redirect {
					t.Fatalf("verdict %d", verdict)
				}
				if err := packet.Check(out); err != nil {
					t.Error(err)
				}
				sent := flowOf(out, v)
				if sent.Src != bpftest.Node1[v] || sent.Dst != f.Dst || sent.DstPort != 443 || sent.SrcPort < 20000 || sent.SrcPort > 29999 {
					t.Fatalf("left as %+v", sent)
				}
				_, out = drops(t, w, pod.FromPod, w.Pod1.Dev, build(f, "A"))
				if again := flowOf(out, v); again.SrcPort != sent.SrcPort {
					t.Errorf("second packet left as %+v, the first as %+v", again, sent)
				}

				back := sent.Reverse()
				verdict, out = drops(t, w, host.FromNetdev, dev, build(back, "SA"))
				got := flowOf(out, v)
				if verdict != bpftest.Redirect || got.Dst != w.Pod1.Addr(v) || got.DstPort != 40000 || got.Src != f.Dst {
					t.Errorf("answer: verdict %d, to %+v", verdict, got)
				}
				if err := packet.Check(out); err != nil {
					t.Errorf("answer: %v", err)
				}
				if string(out[:6]) != string(w.Pod1.MAC) {
					t.Errorf("answer to MAC % x", out[:6])
				}

				// An error of a router on the way, about the packet that left.
				router := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Node2[v], Dst: bpftest.Node1[v]}
				w.PutIP(bpftest.Node2[v], bpftest.IDRemoteNode, maps.IPCacheNode, netip.Addr{})
				verdict, out = drops(t, w, host.FromNetdev, dev, router.Unreachable(build(sent, "S")))
				if verdict != bpftest.Redirect {
					t.Fatalf("error: verdict %d", verdict)
				}
				if err := packet.Check(out); err != nil {
					t.Errorf("error: %v", err)
				}
				quote := flowOf(out[[]int{20, 40}[v]+8:], v)
				if quote.Src != w.Pod1.Addr(v) || quote.SrcPort != 40000 || quote.DstPort != 443 {
					t.Errorf("error quotes %+v", quote)
				}

				// The workload's own error about the answer.
				in := flowOf(build(packet.Flow{SrcMAC: lan, DstMAC: lan, Src: f.Dst, Dst: w.Pod1.Addr(v), SrcPort: 443, DstPort: 40000}, "A"), v)
				verdict, out = drops(t, w, pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(f.Dst, 0, 0).Unreachable(build(in, "A")))
				if verdict != bpftest.Redirect {
					t.Fatalf("own error: verdict %d", verdict)
				}
				if err := packet.Check(out); err != nil {
					t.Errorf("own error: %v", err)
				}
				quote = flowOf(out[[]int{20, 40}[v]+8:], v)
				if quote.Dst != bpftest.Node1[v] || quote.DstPort != sent.SrcPort {
					t.Errorf("own error quotes %+v", quote)
				}

				// Half of the pair evicted: mended under the same port.
				deleteNAT(t, w, maps.NATReverse)
				if verdict, _ := drops(t, w, host.FromNetdev, dev, build(back, "A")); verdict != bpftest.Pass {
					t.Errorf("answer without a reverse row: verdict %d, want it left to the node", verdict)
				}
				_, out = drops(t, w, pod.FromPod, w.Pod1.Dev, build(f, "A"))
				if again := flowOf(out, v); again.SrcPort != sent.SrcPort {
					t.Errorf("mended under port %d, was %d", again.SrcPort, sent.SrcPort)
				}
				deleteNAT(t, w, maps.NATForward)
				if verdict, _ := drops(t, w, host.FromNetdev, dev, build(back, "A")); verdict != bpftest.Pass {
					t.Errorf("answer without a forward row: verdict %d, want it left to the node", verdict)
				}
			})
		}
	}
}

// A workload of a pool that is not masqueraded leaves under its own address, and an answer to that reaches it.
func TestKeepsAddress(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			var row maps.Endpoint
			addr := maps.AddrFrom(w.Pod1.Addr(v))
			if err := w.Maps.EndpointsV1.Lookup(addr, &row); err != nil {
				t.Fatal(err)
			}
			row.Flags |= maps.EndpointNoMasq
			if err := w.Maps.EndpointsV1.Put(addr, row); err != nil {
				t.Fatal(err)
			}
			f := w.Pod1.Flow(bpftest.Outside[v], 40000, 443)
			for _, flags := range []string{"S", "A", "A"} { // judged, and on record
				verdict, out := drops(t, w, pod.FromPod, w.Pod1.Dev, f.TCP(flags, 1, 2, 3))
				if sent := flowOf(out, v); verdict != bpftest.Redirect || sent.Src != f.Src || sent.SrcPort != 40000 {
					t.Fatalf("%s: verdict %d, left as %+v", flags, verdict, sent)
				}
				back := f.Reverse()
				back.SrcMAC, back.DstMAC = lan, packet.MAC(1)
				verdict, out = drops(t, w, host.FromNetdev, dev, back.TCP("A", 1, 2, 3))
				if got := flowOf(out, v); verdict != bpftest.Redirect || got.Dst != f.Src || string(out[:6]) != string(w.Pod1.MAC) {
					t.Errorf("answer: verdict %d, to %+v", verdict, got)
				}
			}
			w.PutIP(bpftest.Node2[v], bpftest.IDRemoteNode, maps.IPCacheNode, netip.Addr{})
			if _, out := drops(t, w, pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(bpftest.Node2[v], 40000, 443).TCP("S", 1, 2, 3)); flowOf(out, v).Src != bpftest.Node1[v] {
				t.Errorf("to a node, which would answer by the overlay: left as %+v", flowOf(out, v))
			}
		})
	}
}

func deleteNAT(t *testing.T, w *bpftest.World, dir uint8) {
	t.Helper()
	var k maps.NATKey
	var v maps.NATValue
	it := w.Maps.NatV2.Iterate()
	for it.Next(&k, &v) {
		if k.Dir == dir {
			if err := w.Maps.NatV2.Delete(k); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMasqueradeEcho(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			f := w.Pod1.Flow(bpftest.Outside[v], 0, 0)
			_, out := drops(t, w, pod.FromPod, w.Pod1.Dev, f.EchoRequest(5))
			if err := packet.Check(out); err != nil {
				t.Error(err)
			}
			head := []int{20, 40}[v]
			id := uint16(out[14+head+4])<<8 | uint16(out[14+head+5])
			back := flowOf(out, v).Reverse()
			verdict, out := drops(t, w, host.FromNetdev, dev, back.EchoReply(id))
			if err := packet.Check(out); err != nil || verdict != bpftest.Redirect {
				t.Errorf("reply: verdict %d, %v", verdict, err)
			}
			if got := uint16(out[14+head+4])<<8 | uint16(out[14+head+5]); got != 5 {
				t.Errorf("reply with id %d", got)
			}
			// The other side pings the node, under the same id.
			if verdict, got := drops(t, w, host.FromNetdev, dev, back.EchoRequest(id)); verdict != bpftest.Pass || flowOf(got, v).Dst != bpftest.Node1[v] {
				t.Errorf("echo request to the node: verdict %d, to %v", verdict, flowOf(got, v).Dst)
			}
			// A row that outlived its connection opens no way in.
			for k := range w.Connections() {
				if err := w.Maps.CtV1.Delete(k); err != nil {
					t.Fatal(err)
				}
			}
			drops(t, w, host.FromNetdev, dev, back.EchoReply(id), maps.DropCTState)
			drops(t, w, pod.FromPod, w.Pod1.Dev, f.SCTP(), maps.DropNATProtocol)
		})
	}
}

func TestPathMTU(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, _ := outside(t, 1400)
			f := w.Pod1.Flow(bpftest.Outside[v], 40000, 443)
			head := []int{20, 40}[v]
			fits := f.UDP(make([]byte, 1400-head-8)...)
			if verdict, _ := drops(t, w, pod.FromPod, w.Pod1.Dev, fits); verdict != bpftest.Redirect {
				t.Errorf("1400 bytes: verdict %d", verdict)
			}
			big := f.UDP(make([]byte, 1401-head-8)...)
			verdict, out := drops(t, w, pod.FromPod, w.Pod1.Dev, big, maps.DropFragment)
			if err := packet.Check(out); err != nil || verdict != bpftest.Redirect {
				t.Fatalf("1401 bytes: verdict %d, %v", verdict, err)
			}
			icmp := out[14+head:]
			if want := [][2]byte{{3, 4}, {2, 0}}[v]; [2]byte(icmp[:2]) != want || int(icmp[6])<<8|int(icmp[7]) != 1400 {
				t.Errorf("answered % x", icmp[:8])
			}
			if string(icmp[8:8+head+8]) != string(big[14:14+head+8]) {
				t.Error("quotes something else")
			}
		})
	}
}

func TestNativeRouting(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w, dev := outside(t, 1500)
			far := netip.PrefixFrom(bpftest.FarPod[v], []int{24, 64}[v])
			w.PutPrefix(far, bpftest.IDWorld, maps.IPCacheNoMasq, netip.Addr{})
			w.PutIP(bpftest.FarPod[v], bpftest.IDFar, maps.IPCacheNoMasq, netip.Addr{})
			f := w.Pod1.Flow(bpftest.FarPod[v], 40000, 80)
			verdict, out := drops(t, w, pod.FromPod, w.Pod1.Dev, f.TCP("S"))
			if got := flowOf(out, v); verdict != bpftest.Redirect || got.Src != f.Src || got.SrcPort != 40000 {
				t.Errorf("to a remote pod: verdict %d, as %+v", verdict, got)
			}
			w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
			in := f.Reverse()
			verdict, out = drops(t, w, host.FromNetdev, dev, in.TCP("SA"))
			if verdict != bpftest.Redirect || string(out[:6]) != string(w.Pod1.MAC) {
				t.Errorf("its reply: verdict %d", verdict)
			}
			if err := packet.Check(out); err != nil {
				t.Error(err)
			}
			in.SrcPort++
			drops(t, w, host.FromNetdev, dev, in.TCP("S"), maps.DropPolicy)
			for _, src := range []netip.Addr{w.Pod2.Addr(v), w.Pod1.Addr(v), bpftest.Node1[v], bpftest.Router1[v], bpftest.Router2[v]} {
				in.Src = src
				drops(t, w, host.FromNetdev, dev, in.TCP("S"), maps.DropSourceIP)
			}
			in.Src, in.TTL = bpftest.FarPod[v], 1
			in.SrcPort = 80
			drops(t, w, host.FromNetdev, dev, in.TCP("A"), maps.DropTTL)
		})
	}
}

// What is the node's own passes, understood or not.
func TestNodesOwn(t *testing.T) {
	w, dev := outside(t, 1500)
	for v := range versions {
		f := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Outside[v], Dst: bpftest.Node1[v], SrcPort: 1234, DstPort: 25000}
		frames := [][]byte{f.TCP("S"), f.UDP(1), f.EchoRequest(1), f.EchoReply(25000), f.SCTP(), f.Raw(89, 1, 2, 3, 4), f.Unreachable(f.Reverse().UDP(1))}
		first, later := packet.Fragment(f.UDP(make([]byte, 64)...), 32, 3)
		frames = append(frames, first, later)
		broken := f.TCP("S")
		broken[14+[]int{20, 40}[v]+12] = 0xf0
		frames = append(frames, broken)
		for i, frame := range frames {
			verdict, out := drops(t, w, host.FromNetdev, dev, frame)
			if verdict != bpftest.Pass || string(out) != string(frame) {
				t.Errorf("%s: frame %d: verdict %d", versions[v], i, verdict)
			}
		}
	}
	if n := len(w.Connections()); n != 0 {
		t.Errorf("%d connections on record", n)
	}
}
