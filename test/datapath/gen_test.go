package datapath_test

import (
	"math/rand/v2"
	"net/netip"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// mode says what a case wants most of.
type mode struct {
	odd    int // in 100: fragments, extension headers, options, errors, echoes with an id used before
	spoilt int // in 100: broken afterwards
	spoof  int // in 100: sent as somebody else
}

// shot is a packet and the program it comes to.
type shot struct {
	bpftest.Packet
	prog  string
	story string
}

// gen makes random packets. It remembers what passed, to answer it.
type gen struct {
	r     *rand.Rand
	o     *oracle
	prog  string
	mode  mode
	past  [][]byte // as they were on the other side
	queue []shot
}

func newGen(r *rand.Rand, o *oracle, prog string, m mode) *gen {
	return &gen{r: r, o: o, prog: prog, mode: m}
}

func (g *gen) chance(percent int) bool { return g.r.IntN(100) < percent }

// saw remembers a packet that went on.
func (g *gen) saw(s shot, out []byte, f fate) {
	if f.act == reply {
		return
	}
	if len(g.past) < 64 {
		g.past = append(g.past, out)
	} else {
		g.past[g.r.IntN(len(g.past))] = out
	}
}

func (g *gen) next() shot {
	if len(g.queue) > 0 {
		s := g.queue[0]
		g.queue = g.queue[1:]
		return s
	}
	prog := g.prog
	if g.chance(25) {
		prog = pick(g.r, []string{pod.FromPod, pod.FromPod, pod.ToPod, overlay.FromOverlay, overlay.ToOverlay, host.FromNetdev})
	}
	switch n := g.r.IntN(100); {
	case prog == pod.FromPod && n < 4:
		return g.finish(prog, "neighbour", g.neighbour())
	case len(g.past) > 0 && n < 35:
		return g.answer()
	case len(g.past) > 0 && n < 35+g.mode.odd/4:
		return g.complain()
	}
	story, frame := g.fresh(prog)
	return g.finish(prog, story, frame)
}

// finish breaks what is to be broken, and gives the frame its surroundings.
func (g *gen) finish(prog, story string, frame []byte) shot {
	if g.chance(g.mode.odd) {
		var more []byte
		story, frame, more = g.bend(story, frame)
		if more != nil {
			g.queue = append(g.queue, g.dress(prog, story+", rest", more))
		}
	}
	if g.chance(g.mode.spoilt) {
		frame = g.spoil(frame)
		story += ", spoilt"
	}
	return g.dress(prog, story, frame)
}

// address is that of anybody, more often of somebody who matters.
func (g *gen) address(v int) netip.Addr {
	switch n := g.r.IntN(100); {
	case n < 60:
		return pick(g.r, g.o.places).addr[v]
	case n < 78:
		return pick(g.r, [][2]netip.Addr{bpftest.Outside, both("198.51.100.8", "2001:db8:ffff::8"), both("203.0.113.9", "2001:db8:cccc::9")})[v]
	case n < 84:
		return pick(g.r, [][2]netip.Addr{bpftest.NewPod, both("10.0.3.98", "fd00:3::98"), both("10.0.4.97", "fd00:4::97")})[v]
	case n < 87:
		return both("10.0.1.200", "fd00:1::200")[v]
	case n < 95:
		return pick(g.r, special[v])
	}
	b := pick(g.r, g.o.places).addr[v].AsSlice()
	b[g.r.IntN(len(b))] ^= 1 << g.r.IntN(8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

var special = [2][]netip.Addr{addrs("127.0.0.1", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.1.1", "224.0.0.251", "239.1.1.1", "255.255.255.255", "240.0.0.1", "10.0.1.255",
	"192.0.2.255"), addrs("::1", "::", "fe80::1", "fe80::a9fe:a9fe", "ff02::1", "ff02::fb", "ff0e::1", "fd00:ec2::254", "::5", "fec0::1", "2001:db8::")}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// of is the address of somebody in one of these roles, which all have somebody.
func (g *gen) of(v int, roles ...role) netip.Addr {
	want := pick(g.r, roles)
	for {
		if p := pick(g.r, g.o.places); p.role == want {
			return p.addr[v]
		}
	}
}

// ends are who speaks to whom, where a program sees them.
func (g *gen) ends(prog string) (src, dst netip.Addr) {
	v := g.r.IntN(2)
	src, dst = g.address(v), g.address(v)
	if g.chance(g.mode.spoof) {
		return src, dst
	}
	switch prog {
	case pod.FromPod:
		src = g.of(v, local)
	case pod.ToPod:
		dst = g.of(v, local)
		if g.chance(60) {
			src = g.of(v, self)
		}
	case overlay.FromOverlay:
		src = g.of(v, behind)
		if g.chance(20) {
			src = pick(g.r, [][2]netip.Addr{bpftest.NewPod, both("10.0.3.98", "fd00:3::98"), both("10.0.4.97", "fd00:4::97")})[v]
		}
		dst = g.of(v, local, local, local, self)
	case overlay.ToOverlay:
		src, dst = g.of(v, self), g.of(v, behind)
	case host.FromNetdev:
		dst = g.of(v, local, self)
	}
	return src, dst
}

func (g *gen) port() uint16 { return pick(g.r, ports) }

// flags of a TCP segment, likely ones more often.
func (g *gen) flags() string {
	return pick(g.r, []string{"S", "S", "S", "SA", "A", "A", "PA", "FA", "F", "R", "RA", "SF", "SR", "", "SAFRPU"})
}

// fresh is a packet that belongs to nothing.
func (g *gen) fresh(prog string) (story string, frame []byte) {
	src, dst := g.ends(prog)
	f := packet.Flow{SrcMAC: packet.MAC(0x77), DstMAC: packet.MAC(1), Src: src, Dst: dst, SrcPort: g.port(), DstPort: g.port()}
	if g.chance(5) {
		f.TTL = uint8(1 + g.r.IntN(3))
	}
	return "fresh", g.speak(f)
}

func (g *gen) payload() []byte {
	n := g.r.IntN(64)
	if g.chance(3) {
		n = 1200 + g.r.IntN(300)
	}
	return make([]byte, n)
}

var ids = []uint16{7, 8, 128, 0, 20001, 20001, 31000, 2048}

// speak is a packet of some protocol.
func (g *gen) speak(f packet.Flow) []byte {
	switch n := g.r.IntN(100); {
	case n < 40:
		return f.TCP(g.flags(), g.payload()...)
	case n < 65:
		return f.UDP(g.payload()...)
	case n < 70:
		return f.SCTP()
	case n < 80:
		return f.EchoRequest(pick(g.r, ids))
	case n < 86:
		return f.EchoReply(pick(g.r, ids))
	case n < 94:
		return f.ICMP(pick(g.r, []uint8{0, 3, 4, 5, 8, 9, 11, 12, 13, 14, 1, 2, 127, 128, 129, 130, 133, 134, 135, 136, 137, 138, 143, 200}), uint8(g.r.IntN(3)), g.payload()...)
	}
	return f.Raw(pick(g.r, []uint8{47, 50, 4, 41, 59, 136, 253, 1, 58}), g.payload()...)
}

// route is the program that a packet between these two comes to.
func (g *gen) route(src, dst netip.Addr) string {
	from, to := g.o.at(src), g.o.at(dst)
	switch {
	case from == nil || to == nil:
		return host.FromNetdev
	case from.role == local:
		return pod.FromPod
	case from.role == behind:
		return overlay.FromOverlay
	case from.role == self && to.role == local:
		return pod.ToPod
	case from.role == self && to.role == behind:
		return overlay.ToOverlay
	}
	return host.FromNetdev
}

// answer speaks back to, or again of, what has passed.
func (g *gen) answer() shot {
	p, why := read(pick(g.r, g.past))
	if why != 0 || p.src == p.dst {
		story, frame := g.fresh(g.prog)
		return g.finish(g.prog, story, frame)
	}
	f := packet.Flow{SrcMAC: packet.MAC(0x77), DstMAC: packet.MAC(1), Src: p.src, Dst: p.dst, SrcPort: p.sport, DstPort: p.dport}
	story := "again"
	if g.chance(70) {
		f = f.Reverse()
		story = "back"
	}
	f.SrcMAC, f.DstMAC = packet.MAC(0x77), packet.MAC(1)
	if g.chance(4) {
		f.TTL = 1
	}
	is, asks := p.echo()
	var frame []byte
	switch {
	case g.chance(4):
		frame = g.speak(f)
	case is && asks == (story == "again"):
		frame = f.EchoRequest(p.sport)
	case is:
		frame = f.EchoReply(p.sport)
	case p.icmp():
		frame = f.ICMP(p.typ, p.code)
	case p.proto == tcp:
		frame = f.TCP(g.flags(), g.payload()...)
	case p.proto == udp:
		frame = f.UDP(g.payload()...)
	case p.proto == sctp:
		frame = f.SCTP()
	default:
		frame = f.Raw(p.proto, g.payload()...)
	}
	return g.finish(g.route(f.Src, f.Dst), story, frame)
}
