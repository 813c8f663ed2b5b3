package datapath_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	layout "github.com/hypha-net/hypha/bpf/maps"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// permit puts policies in force that let everybody do everything: what is dropped then is dropped for its sender.
func (w *town) permit() {
	w.law = law{}
	for _, p := range w.pods {
		for dir := range uint32(2) {
			w.enact(about{p.Set, layout.ClassAny, dir}, chapter{verdict: layout.VerdictAllow, rule: 1})
		}
	}
	w.epoch = epochAtStart
	w.e.PutState(layout.State{Epoch: w.epoch})
}

// forger makes packets that lie about their sender, or go where no workload may.
type forger struct {
	*gen
	me *bpftest.Pod
}

// forgeries are the ways to lie.
var forgeries = map[string]func(forger) shot{
	"another's address": func(g forger) shot {
		v := g.r.IntN(2)
		src := g.address(v)
		for src == g.me.Addr(v) {
			src = g.address(v)
		}
		return g.send(pod.FromPod, g.flow(src, g.address(v)), g.me.MAC)
	},
	"another's MAC": func(g forger) shot {
		v := g.r.IntN(2)
		return g.send(pod.FromPod, g.flow(g.me.Addr(v), g.address(v)), g.mac())
	},
	"ARP for another": func(g forger) shot {
		as, mac := g.address(0), g.me.MAC
		if as == g.me.V4 {
			mac = g.mac()
		}
		frame := packet.ARP(uint16(1+g.r.IntN(2)), mac, as, g.address(0))
		copy(frame[6:], g.me.MAC)
		return g.by(pod.FromPod, frame)
	},
	"advertisement for another": func(g forger) shot {
		target := g.address(1)
		f := g.flow(g.me.V6, g.address(1))
		f.SrcMAC = g.me.MAC
		if target == g.me.V6 {
			f.SrcMAC = g.mac()
		}
		return g.by(pod.FromPod, f.Neighbour(136, target))
	},
	"router advertisement, redirect": func(g forger) shot {
		f := g.flow(pick(g.r, []netip.Addr{g.me.V6, netip.MustParseAddr("fe80::11"), g.address(1)}), g.address(1))
		f.SrcMAC = g.me.MAC
		return g.by(pod.FromPod, f.Neighbour(pick(g.r, []uint8{134, 137}), g.address(1)))
	},
	"VXLAN to a node": func(g forger) shot {
		v := g.r.IntN(2)
		f := g.flow(g.me.Addr(v), g.of(v, self, peer))
		if g.chance(30) {
			f.Dst = [2]netip.Addr{bpftest.Outside[0], bpftest.Outside[1]}[v]
		}
		f.SrcMAC, f.DstPort = g.me.MAC, tunnelPort
		inner := g.flow(g.address(0), g.o.pods[1].V4).UDP(1, 2, 3)
		return g.bent(pod.FromPod, f.UDP(append([]byte{8, 0, 0, 0, 0, 0, byte(g.r.IntN(8)), 0}, inner...)...))
	},
	"identity not the sender's": func(g forger) shot {
		v := g.r.IntN(2)
		src := g.of(v, behind)
		s := g.send(overlay.FromOverlay, g.flow(src, g.of(v, local, self)), nil)
		who := g.o.exact[src]
		o := bpftest.Outer{From: who.node, VNI: who.id}
		for o.VNI == who.id || o.VNI == who.was || o.VNI == idNode && who.id == idLabelled || outside(o.VNI) && itself(who.id) {
			o.VNI = pick(g.r, []uint32{0, 1, 2, 3, 5, 6, 7, 8, 1001, 1002, 2001, 2002, 2003, idStranger, uint32(g.r.IntN(1 << 24))})
		}
		s.Outer = &o
		return s
	},
	"not the sender's node": func(g forger) shot {
		v := g.r.IntN(2)
		src := g.of(v, behind, local, self)
		s := g.send(overlay.FromOverlay, g.flow(src, g.of(v, local, self)), nil)
		who := g.o.exact[src]
		o := bpftest.Outer{From: g.address(g.r.IntN(2)), VNI: who.id}
		for o.From == who.node || o.From == src {
			o.From = g.address(g.r.IntN(2))
		}
		s.Outer = &o
		return s
	},
	"from outside as one inside": func(g forger) shot {
		v := g.r.IntN(2)
		src := g.of(v, local, self, behind)
		if g.chance(20) {
			src = pick(g.r, []netip.Addr{bpftest.NewPod[v], both("10.0.1.200", "fd00:1::200")[v], both("127.0.0.1", "::1")[v], both("224.0.0.1", "ff02::1")[v]})
		}
		return g.send(host.FromNetdev, g.flow(src, g.of(v, local)), nil)
	},
	"forwarded as one inside": func(g forger) shot {
		v := g.r.IntN(2)
		f := g.flow(g.of(v, local, self, behind), g.of(v, local))
		s := g.send(pod.ToPod, f, nil)
		s.Ingress, s.IfIndex = g.o.dev, g.o.podAt(f.Dst).Dev
		return s
	},
	"forwarded into the overlay": func(g forger) shot {
		v := g.r.IntN(2)
		s := g.send(overlay.ToOverlay, g.flow(g.address(v), g.of(v, behind)), nil)
		s.Ingress = g.o.dev
		return s
	},
	"metadata, link-local": func(g forger) shot {
		v := g.r.IntN(2)
		dst := netip.AddrFrom4([4]byte{169, 254, byte(g.r.IntN(256)), byte(g.r.IntN(256))})
		switch {
		case v == 1:
			b := [16]byte{0xfe, 0x80 | byte(g.r.IntN(64)), 15: byte(g.r.IntN(256))}
			dst = netip.AddrFrom16(b)
		case g.chance(50):
			dst = netip.MustParseAddr("169.254.169.254")
		}
		return g.send(pod.FromPod, g.flow(g.me.Addr(v), dst), g.me.MAC)
	},
}

func (g forger) flow(src, dst netip.Addr) packet.Flow {
	return packet.Flow{SrcMAC: packet.MAC(0x77), DstMAC: g.me.HostMAC, Src: src, Dst: dst, SrcPort: g.port(), DstPort: g.port()}
}

// mac is not the workload's.
func (g forger) mac() net.HardwareAddr {
	if g.chance(50) {
		return pick(g.r, []net.HardwareAddr{g.o.pods[1].MAC, g.me.HostMAC, packet.MAC(0)})
	}
	return net.HardwareAddr{2, byte(1 + g.r.IntN(255)), 0, 0, 0, byte(g.r.IntN(256))}
}

// send is a packet of some protocol, but for those that machines speak to their neighbours.
func (g forger) send(prog string, f packet.Flow, mac net.HardwareAddr) shot {
	if mac != nil {
		f.SrcMAC = mac
	}
	for {
		frame := g.speak(f)
		if p, _ := read(frame); p.proto == icmp6 && p.typ >= 133 && p.typ <= 137 {
			continue
		}
		return g.bent(prog, frame)
	}
}

func (g forger) bent(prog string, frame []byte) shot {
	if g.chance(20) {
		_, frame, _ = g.bend("", frame)
	}
	return g.by(prog, frame)
}

func (g forger) by(prog string, frame []byte) shot {
	s := shot{prog: prog}
	s.Frame, s.IfIndex = frame, g.o.dev
	if prog == pod.FromPod {
		s.IfIndex = g.me.Dev
	}
	return s
}

// TestCase32SpoofedByProgram: nothing that lies about its sender is delivered, though every policy would let it.
func TestCase32SpoofedByProgram(t *testing.T) {
	c := score.Start(t, "32", "spoofed IP, MAC, ARP, NDP, RA, VXLAN and VNI, metadata addresses, by BPF_PROG_RUN")
	n := score.Size(12_000, 1_000_000)
	w := newTown(t)
	w.permit()
	for _, p := range []string{pod.FromPod, overlay.FromOverlay, host.FromNetdev} {
		w.e.Prog(p)
	}
	g := forger{newGen(c.Rand(), &oracle{town: w, memory: newMemory()}, "", mode{}), w.pods[0]}
	delivered := map[string]int{}
	err := w.e.Runner(func(run *bpftest.Runner) error {
		if err := honest(run, g); err != nil {
			return err
		}
		names := slices.Sorted(maps.Keys(forgeries))
		for i := range n {
			name := names[i%len(names)]
			s := forgeries[name](g)
			res, err := run.Run(s.prog, s.Packet)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if res.Verdict != bpftest.Drop {
				if delivered[name]++; delivered[name] == 1 {
					t.Errorf("%s: verdict %d, by %s, outer %+v\n%s", name, res.Verdict, s.prog, s.Outer, hex.Dump(s.Frame))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, d := range delivered {
		sum += d
	}
	c.Count(n, "packets")
	c.Say("%d delivered, in %d ways to lie: %s", sum, len(forgeries), strings.Join(slices.Sorted(maps.Keys(forgeries)), "; "))
}

// honest: the same way, and true, packets are delivered; or the test would see nothing.
func honest(run *bpftest.Runner, g forger) error {
	for v := range 2 {
		far := bpftest.FarPod[v]
		for name, s := range map[string]shot{
			"from a workload": g.by(pod.FromPod, packet.Flow{SrcMAC: g.me.MAC, DstMAC: g.me.HostMAC, Src: g.me.Addr(v), Dst: far}.UDP(1)),
			"from outside":    g.by(host.FromNetdev, g.flow(bpftest.Outside[v], g.me.Addr(v)).UDP(1)),
			"from the overlay": func() shot {
				s := g.by(overlay.FromOverlay, g.flow(far, g.me.Addr(v)).UDP(1))
				s.Outer = &bpftest.Outer{From: bpftest.Node2[0], VNI: 2001}
				return s
			}(),
		} {
			if res, err := run.Run(s.prog, s.Packet); err != nil || res.Verdict != bpftest.Redirect {
				return fmt.Errorf("a true packet %s: verdict %d, drops %v, %w", name, res.Verdict, bpftest.Drops(res.Events), err)
			}
		}
	}
	return nil
}
