package datapath_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// complain is an ICMP error about what has passed, mostly by whom it was for.
func (g *gen) complain() shot {
	about := pick(g.r, g.past)
	p, _ := read(about)
	f := packet.Flow{SrcMAC: packet.MAC(0x77), DstMAC: packet.MAC(1), Src: p.dst, Dst: p.src}
	if !f.Src.IsValid() || !f.Dst.IsValid() || f.Src.Is4In6() || f.Dst.Is4In6() {
		story, frame := g.fresh(g.prog)
		return g.finish(g.prog, story, frame)
	}
	if g.chance(25) {
		f.Src = g.address(p.v)
	}
	if g.chance(5) {
		f.Dst = g.address(p.v)
	}
	quote := slices.Clone(about[ether:])
	if len(quote) > 28 && g.chance(40) {
		quote = quote[:28+g.r.IntN(len(quote)-28)]
	}
	if g.chance(5) {
		quote[g.r.IntN(len(quote))] ^= 1 << g.r.IntN(8)
	}
	typ := pick(g.r, [2][]uint8{{3, 3, 3, 11, 12, 4, 5}, {1, 1, 2, 3, 4, 100}}[p.v])
	return g.finish(g.route(f.Src, f.Dst), "complaint", f.ICMP(typ, uint8(g.r.IntN(5)), append([]byte{0, 0, 5, 0}, quote...)...))
}

// bend makes a packet an unusual one; more is a second piece of it.
func (g *gen) bend(story string, frame []byte) (_ string, out, more []byte) {
	p, why := read(frame)
	if why != 0 || !p.plain || p.first || p.rest {
		return story, frame, nil
	}
	switch n := g.r.IntN(3); {
	case n == 0 && p.n >= 16:
		at := 8 * (1 + g.r.IntN(p.n/8-1))
		if g.chance(60) {
			at = min(24, (p.n-1)/8*8)
		}
		first, later := packet.Fragment(frame, at, uint32(g.r.IntN(8)))
		if g.chance(15) {
			first, later = later, first
		}
		return story + ", in pieces", first, later
	case n == 1 && p.v == 1:
		return story + ", with extensions", g.extend(frame), nil
	case n == 1 && p.v == 0:
		return story + ", with options", g.option(frame), nil
	}
	return story, frame, nil
}

// extend puts extension headers in.
func (g *gen) extend(frame []byte) []byte {
	next := frame[ether+6]
	var heads []byte
	for range 1 + g.r.IntN(3) + g.r.IntN(2)*g.r.IntN(5) {
		kind := pick(g.r, []byte{0, 60, 60, 43, 44, 51})
		h := []byte{next, 0, 1, 4, 0, 0, 0, 0}
		switch kind {
		case 43:
			h[2], h[3] = 4, byte(g.r.IntN(4)/3)
		case 44:
			h[1], h[2], h[3] = 0, byte(g.r.IntN(10)/9), byte(g.r.IntN(2))
			h[7] = byte(g.r.IntN(8))
		case 51:
			h[1] = byte(g.r.IntN(3))
			h = append(h, make([]byte, int(h[1])*4)...)
		default:
			h[1] = byte(g.r.IntN(6) / 5)
			h = append(h, make([]byte, int(h[1])*8)...)
		}
		heads = append(h, heads...)
		next = kind
	}
	out := slices.Insert(slices.Clone(frame), ether+40, heads...)
	out[ether+6] = next
	binary.BigEndian.PutUint16(out[ether+4:], uint16(be16(frame[ether+4:])+len(heads)))
	return out
}

// option puts IPv4 options in.
func (g *gen) option(frame []byte) []byte {
	opts := pick(g.r, [][]byte{{1, 1, 1, 0}, {148, 4, 0, 0}, {131, 7, 4, 198, 51, 100, 7, 0}, {137, 7, 4, 198, 51, 100, 7, 0}, {1, 131, 3, 4},
		{7, 7, 4, 0, 0, 0, 0, 1}, {131, 0, 0, 0}, {68, 40, 0, 0}, {0, 131, 7, 4}, {130, 2, 148, 1}})
	out := slices.Insert(slices.Clone(frame), ether+20, opts...)
	out[ether] += byte(len(opts) / 4)
	binary.BigEndian.PutUint16(out[ether+2:], uint16(len(out)-ether))
	out[ether+10], out[ether+11] = 0, 0
	binary.BigEndian.PutUint16(out[ether+10:], checksum(out[ether:ether+20+len(opts)]))
	return out
}

// spoil breaks a frame.
func (g *gen) spoil(frame []byte) []byte {
	b := slices.Clone(frame)
	switch g.r.IntN(6) {
	case 0: // cut
		return b[:ether+g.r.IntN(len(b)-ether+1)]
	case 1: // bytes behind it
		return append(b, make([]byte, g.r.IntN(40))...)
	case 2: // a length
		at := ether + 2 + 2*g.r.IntN(2)
		binary.BigEndian.PutUint16(b[at:], uint16(g.r.IntN(len(b)+20)))
	case 3: // somewhere in the headers
		b[ether+g.r.IntN(min(len(b)-ether, 60))] = byte(g.r.Uint32())
	default:
		for range 1 + g.r.IntN(8) {
			b[12+g.r.IntN(len(b)-12)] ^= 1 << g.r.IntN(8)
		}
	}
	return b
}

// neighbour is ARP or neighbour discovery of a workload, true or not.
func (g *gen) neighbour() []byte {
	p := pick(g.r, g.o.pods)
	mac := p.MAC
	if g.chance(10) {
		mac = net.HardwareAddr{2, 0, 0, 0, 0, byte(g.r.IntN(256))}
	}
	v := g.r.IntN(2)
	as, target := p.Addr(v), g.address(v)
	if g.chance(20) {
		as = g.address(v)
	}
	if g.chance(30) {
		target = p.Addr(v)
	}
	if v == 0 {
		b := packet.ARP(uint16(1+g.r.IntN(3)), mac, as, target)
		copy(b[6:], p.MAC)
		return append(b, make([]byte, g.r.IntN(2)*18)...)
	}
	f := packet.Flow{SrcMAC: mac, DstMAC: p.HostMAC, Src: as, Dst: g.address(1)}
	if g.chance(10) {
		f.Src = netip.MustParseAddr("fe80::11")
	}
	if g.chance(30) {
		f.Dst, f.DstMAC = packet.SolicitedNode(target), net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 1}
	}
	if g.chance(5) {
		f.TTL = uint8(1 + g.r.IntN(255))
	}
	return f.Neighbour(pick(g.r, []uint8{133, 134, 135, 135, 135, 136, 136, 137}), target)
}

// dress gives a frame the device, the MACs and the rest that go with it, mostly.
func (g *gen) dress(prog, story string, frame []byte) shot {
	s := shot{prog: prog, story: story}
	s.Frame, s.IfIndex = frame, g.o.dev
	if len(frame) < ether+20 {
		s.IfIndex = g.o.pods[0].Dev
		if prog == overlay.FromOverlay {
			s.Outer = &bpftest.Outer{From: bpftest.Node2[0], VNI: 2001}
		}
		return s
	}
	p, _ := read(frame)
	switch prog {
	case pod.FromPod:
		who := g.o.podAt(p.src)
		arp := be16(frame[12:]) == ethARP
		if arp {
			who = g.o.podAt(netip.AddrFrom4([4]byte(frame[28:32])))
		}
		if who == nil || g.chance(2) {
			who = pick(g.r, g.o.pods)
		}
		s.IfIndex = who.Dev
		if !arp && p.typ != 135 && p.typ != 136 && !g.chance(2) {
			s.Frame = slices.Clone(frame)
			copy(s.Frame[6:], who.MAC)
		}
	case pod.ToPod:
		who := g.o.podAt(p.dst)
		if who == nil || g.chance(2) {
			who = pick(g.r, g.o.pods)
		}
		s.IfIndex = who.Dev
	case overlay.FromOverlay:
		s.Outer = g.outer(p.src)
	}
	if prog == pod.ToPod || prog == overlay.ToOverlay {
		if g.chance(10) {
			s.Ingress = g.o.dev
		}
		if g.chance(2) {
			s.Mark = pick(g.r, []uint32{markDeliver, markOverlay, 0x10000400, 0x0300})
		}
	}
	return s
}

// outer is what the tunnel says of a packet: mostly what its sender's node would.
func (g *gen) outer(src netip.Addr) *bpftest.Outer {
	if g.chance(1) {
		return nil
	}
	o := &bpftest.Outer{From: bpftest.Node2[0], VNI: 2001}
	if src.IsValid() {
		if who := g.o.at(src); who != nil && who.node.IsValid() {
			o.From, o.VNI = who.node, who.id
			if who.net[0].IsValid() || who.id == idLabelled {
				o.VNI = pick(g.r, []uint32{2001, 2002, 2003, idNode, idNode, idWorld, 9, idStranger, 1001, 5, 3})
			}
		}
	}
	if g.chance(4 + g.mode.spoof) {
		o.From = g.address(g.r.IntN(2))
	}
	if g.chance(4 + g.mode.spoof) {
		o.VNI = pick(g.r, []uint32{0, 1, 2, 3, 5, 6, 7, 8, 1001, 1002, 2001, 2002, 2003, 2005, idStranger, 1<<24 - 1})
	}
	return o
}
