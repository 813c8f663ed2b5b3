package host_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// dispatch is a way to send a client's packet on inside another one, written down a second time.
type dispatch struct {
	name string
	flag uint32
	room [2]int
}

var (
	geneve = dispatch{"geneve", maps.ConfigDSRGeneve, [2]int{62, 94}}
	ipip   = dispatch{"ipip", maps.ConfigDSRIPIP, [2]int{20, 40}}
)

// wrap is what a node sends: frame inside an outer packet, for a service where the frame does not say so.
func (d dispatch) wrap(src, dst netip.Addr, front netip.AddrPort, frame []byte) []byte {
	outer := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: src, Dst: dst}
	inner := ipOf(frame)
	proto := map[bool]uint8{true: 4, false: 41}[dst.Is4()]
	if d == geneve {
		proto = 17
		opt := append(front.Addr().AsSlice(), byte(front.Port()>>8), byte(front.Port()), 0, 0)
		b := []byte{0xc0, 1, 6081 >> 8, 6081 & 0xff, 0, 0, 0, 0} // source port, checksum: none
		b = append(b, byte((len(opt)+4)/4), 0x40, 0x65, 0x58, 0, 0, 2, 0)
		b = append(append(b, 0x01, 0x4b, 0x81, byte(len(opt)/4)), opt...)
		b = append(append(b, make([]byte, 12)...), frame[12:14]...)
		inner = append(b, inner...)
		binary.BigEndian.PutUint16(inner[4:], uint16(len(inner)))
	}
	out := outer.Raw(proto, inner...)
	if dst.Is4() { // as the datapath fills it in
		ip := out[packet.EtherLen:]
		ip[4], ip[5], ip[6] = 0, 0, 0x40
		checksum4(ip)
	}
	return out
}

// ipOf is the IP packet of a frame, without what makes a short frame long enough.
func ipOf(frame []byte) []byte {
	ip := frame[packet.EtherLen:]
	if ip[0]>>4 == 4 {
		return ip[:binary.BigEndian.Uint16(ip[2:])]
	}
	return ip[:40+binary.BigEndian.Uint16(ip[4:])]
}

// checksum4 makes the checksum of an IPv4 header without options right.
func checksum4(ip []byte) {
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
}

// newDispatchCity is a city of native routing.
func newDispatchCity(t *testing.T, d dispatch) *city {
	t.Helper()
	c := newCity(t, 0, false, func(cfg *maps.Config) {
		cfg.Flags |= maps.ConfigDSRTCP | maps.ConfigDSRUDP | d.flag
		cfg.Flags &^= maps.ConfigOverlay
		cfg.TunnelPort = 6081
	})
	for v := range 2 {
		c.PutIP(bpftest.FarPod[v], bpftest.IDFar, maps.IPCacheNoMasq, netip.Addr{})
		c.PutPrefix(netip.PrefixFrom(bpftest.FarPod[v], []int{24, 64}[v]), bpftest.IDWorld, maps.IPCacheNoMasq, netip.Addr{})
	}
	return c
}

// sends runs from_netdev, which must send the frame on as want; the source port of a tunnel is anything.
func (c *city) sends(what string, d dispatch, frame, want []byte) {
	c.t.Helper()
	verdict, out := drops(c.t, c.World, host.FromNetdev, c.dev, frame)
	if verdict != bpftest.Redirect {
		c.t.Fatalf("%s: verdict %d", what, verdict)
	}
	got, want := bytes.Clone(ipOf(out)), bytes.Clone(ipOf(want))
	if len(got) != len(want) {
		c.t.Fatalf("%s: %d bytes, want %d:\n% x\n% x", what, len(got), len(want), got, want)
	}
	if at := d.room[c.v] - packet.EtherLen; d == geneve && got[0]>>4 == want[0]>>4 && len(got) > at {
		head := []int{20, 40}[c.v]
		if want[[]int{9, 6}[c.v]] == 17 && want[head] == 0xc0 {
			if got[head]&0xc0 != 0xc0 {
				c.t.Errorf("%s: from port %d", what, binary.BigEndian.Uint16(got[head:]))
			}
			copy(want[head:head+2], got[head:head+2])
		}
	}
	if !bytes.Equal(got, want) {
		c.t.Errorf("%s:\n got % x\nwant % x", what, got, want)
	}
}

// hop is a frame one hop on.
func hop(frame []byte) []byte {
	out := bytes.Clone(frame)
	ip := out[packet.EtherLen:]
	if ip[0]>>4 == 4 {
		ip[8]--
		checksum4(ip)
	} else {
		ip[7]--
	}
	return out
}

// TestDispatchSends: the node that is asked.
func TestDispatchSends(t *testing.T) {
	for _, d := range []dispatch{geneve, ipip} {
		base := newDispatchCity(t, d)
		t.Run(d.name, func(t *testing.T) {
			eachOf(t, base, func(c *city) {
				far, own := bpftest.FarPod[c.v], bpftest.Node1[c.v]
				at := ap(own, nodePort)
				c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(far, back)}, nil)
				f := c.client(5000, own, nodePort)
				to := f
				to.Dst, to.DstPort = far, back
				inside := func(frame, plain []byte) []byte {
					if d == ipip {
						return d.wrap(own, far, at, hop(frame))
					}
					return d.wrap(own, far, at, hop(plain))
				}
				for range 2 {
					c.sends("first", d, c.build(f, "S"), inside(c.build(f, "S"), c.build(to, "S")))
				}
				want := inside(c.build(f, "A"), c.build(to, "A"))
				if d == geneve && !c.udp {
					want = hop(c.build(to, "A"))
				}
				c.sends("next", d, c.build(f, "A"), want)

				// An error about an answer, which the client had from the service.
				e := c.client(0, own, 0)
				answer := c.build(f.Reverse(), "SA")
				if d == ipip {
					c.sends("error", d, e.Unreachable(answer), d.wrap(own, far, at, hop(e.Unreachable(answer))))
				} else {
					_, out := drops(t, c.World, host.FromNetdev, c.dev, e.Unreachable(answer))
					if got := flowOf(out, c.v); got.Dst != far {
						t.Errorf("error: to %s", got.Dst)
					}
				}
				if !c.udp {
					return
				}
				// What does not fit with the outer header: the client hears how long a packet may be.
				head := []int{20, 40}[c.v]
				_, out := c.refuses(host.FromNetdev, c.dev, f.UDP(make([]byte, 1500-8-head)...), maps.DropFragment)
				if mtu := int(binary.BigEndian.Uint16(out[14+head+6:])); mtu != 1500-d.room[c.v] {
					t.Errorf("told an MTU of %d, want %d", mtu, 1500-d.room[c.v])
				}
				c.same("quote", flowOf(out[head+8:], c.v), f.Src, 5000, own, nodePort)
				largest := make([]byte, 1500-8-head-d.room[c.v])
				c.sends("largest", d, f.UDP(largest...), inside(f.UDP(largest...), to.UDP(largest...)))
				// Each fragment by itself; of Geneve the first says where to, and the others follow.
				first, later := packet.Fragment(f.UDP(make([]byte, 64)...), 32, 77)
				first2, later2 := packet.Fragment(to.UDP(make([]byte, 64)...), 32, 77)
				if d == ipip {
					later2 = d.wrap(own, far, at, hop(later))
				} else {
					later2 = hop(later2)
				}
				c.sends("first fragment", d, first, inside(first, first2))
				c.sends("later fragment", d, later, later2)
			})
		})
	}
}

// TestDispatchTakes: the backend's node.
func TestDispatchTakes(t *testing.T) {
	for _, d := range []dispatch{geneve, ipip} {
		base := newDispatchCity(t, d)
		t.Run(d.name, func(t *testing.T) {
			eachOf(t, base, func(c *city) {
				own, node := c.Pod1.Addr(c.v), bpftest.Node2[c.v]
				c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(own, back), ap(c.Pod2.Addr(c.v), back), ap(bpftest.FarPod[c.v], back)}, nil)
				c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
				for i, at := range []netip.AddrPort{ap(vip[c.v], front), ap(node, nodePort)} {
					f := c.client(uint16(5000+i), at.Addr(), at.Port())
					to := f
					to.Dst, to.DstPort = own, back
					inside := func(frame, plain []byte) []byte {
						if d == ipip {
							return d.wrap(node, own, at, frame)
						}
						return d.wrap(node, own, at, plain)
					}
					answers := func(when string) {
						t.Helper()
						got := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(f.Src, back, f.SrcPort), "A"))
						c.same("answer "+when, got, at.Addr(), at.Port(), f.Src, f.SrcPort)
					}
					for _, flags := range []string{"S", "A"} {
						frame := inside(c.build(f, flags), c.build(to, flags))
						if d == geneve && flags == "A" && !c.udp {
							frame = c.build(to, flags)
						}
						c.same("delivered", c.passes(host.FromNetdev, c.dev, nil, frame), f.Src, f.SrcPort, own, back)
						answers("after " + flags)
					}
					// The client's error about an answer.
					head := []int{20, 40}[c.v]
					answer := c.build(f.Reverse(), "A")
					frame := c.client(0, at.Addr(), 0).Unreachable(answer)
					if d == ipip {
						frame = d.wrap(node, own, at, frame)
					} else {
						frame = c.client(0, own, 0).Unreachable(c.build(to.Reverse(), "A"))
					}
					_, out := drops(t, c.World, host.FromNetdev, c.dev, frame)
					if err := packet.Check(out); err != nil {
						t.Error(err)
					}
					c.same("quote", flowOf(out[head+8:], c.v), own, back, f.Src, f.SrcPort)
					if d == ipip { // every packet says all that is needed: a row that was evicted is made again
						deleteNAT(t, c.World, maps.NATForward)
						c.same("again", c.passes(host.FromNetdev, c.dev, nil, inside(c.build(f, "A"), nil)), f.Src, f.SrcPort, own, back)
						answers("after its row was gone")
					}
					if !c.udp {
						continue
					}
					first, later := packet.Fragment(f.UDP(make([]byte, 64)...), 32, 77)
					first2, later2 := packet.Fragment(to.UDP(make([]byte, 64)...), 32, 77)
					if d == ipip {
						later2 = d.wrap(node, own, at, later)
					}
					for _, frame := range [][]byte{inside(first, first2), later2} {
						if _, out := drops(t, c.World, host.FromNetdev, c.dev, frame); flowOf(out, c.v).Dst != own {
							t.Errorf("fragment: to %s", flowOf(out, c.v).Dst)
						}
					}
				}
			})
		})
	}
}

// TestDispatchCollision: nodes that are asked for two services each send the same client's datagrams to one backend. The later flow
// comes from another port, and answers find their way. The node that is asked for both sends the second under its own address.
func TestDispatchCollision(t *testing.T) {
	for _, d := range []dispatch{geneve, ipip} {
		base := newDispatchCity(t, d)
		for v, name := range versions {
			t.Run(d.name+" "+name, func(t *testing.T) {
				c := base.as(t, v, true)
				own, node := c.Pod1.Addr(v), bpftest.Node2[v]
				var ports [2]uint16
				for range 2 {
					for i, at := range []netip.AddrPort{ap(vip[v], front), ap(vip2[v], front)} {
						c.serve(at, maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
						f := c.client(5000, at.Addr(), at.Port())
						if d == geneve {
							f.Dst, f.DstPort = own, back
						}
						got := c.passesIn(host.FromNetdev, d.wrap(node, own, at, f.UDP(1, 2, 3)))
						if ports[i] == 0 {
							ports[i] = got.SrcPort
						}
						c.same("delivered", got, f.Src, ports[i], own, back)
						answer := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.Pod1.Flow(f.Src, back, ports[i]).UDP(1, 2, 3))
						c.same("answer", answer, at.Addr(), at.Port(), f.Src, 5000)
					}
				}
				if ports[0] != 5000 || ports[1] == 5000 {
					t.Errorf("known by the ports %v", ports)
				}
				for _, at := range []netip.AddrPort{ap(vip[v], front), ap(vip2[v], front)} {
					c.serve(at, maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[v], back)}, nil)
				}
				if verdict, _ := drops(t, c.World, host.FromNetdev, c.dev, c.client(7000, vip[v], front).UDP(1, 2, 3)); verdict != bpftest.Redirect {
					t.Errorf("verdict %d", verdict)
				}
				sent := c.passesIn(host.FromNetdev, c.client(7000, vip2[v], front).UDP(1, 2, 3))
				if sent.Src != bpftest.Node1[v] || sent.Dst != bpftest.FarPod[v] || sent.DstPort != back {
					t.Errorf("the second flow leaves as %+v", sent)
				}
			})
		}
	}
}

// TestDispatchPort: IPIP names a backend by its address alone. Its port is found wherever in the set it is; of several, both nodes take
// the one that the hash leads to; and a backend that only keeps its clients has the port of the others.
func TestDispatchPort(t *testing.T) {
	base := newDispatchCity(t, ipip)
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			c := base.as(t, v, false)
			own, node := c.Pod1.Addr(v), bpftest.Node2[v]
			at := ap(vip[v], front)
			lands := func(port uint16) packet.Flow {
				t.Helper()
				return c.passesIn(host.FromNetdev, ipip.wrap(node, own, at, c.client(port, at.Addr(), at.Port()).TCP("S")))
			}
			for _, place := range []int{0, 37, 99} { // where in a set of 100
				crowd := make([]netip.AddrPort, 100)
				crowd[place] = ap(own, uint16(8000+place))
				for i := place - 1; i >= 0; i-- {
					crowd[i] = ap(crowd[i+1].Addr().Prev(), back)
				}
				for i := place + 1; i < len(crowd); i++ {
					crowd[i] = ap(crowd[i-1].Addr().Next(), back)
				}
				c.serve(at, maps.LBExternal, crowd, nil)
				for port := range uint16(20) {
					if got := lands(5000 + uint16(place)*20 + port); got.DstPort != uint16(8000+place) {
						t.Fatalf("backend %d: port %d", place, got.DstPort)
					}
				}
			}
			// Two ports: what this node would take itself, were it asked.
			two := []netip.AddrPort{ap(own, 8001), ap(own, 8002)}
			c.serve(at, maps.LBExternal, two, nil)
			seen := map[uint16]bool{}
			for port := range uint16(20) {
				asked := c.passesIn(host.FromNetdev, c.client(6000+port, at.Addr(), at.Port()).TCP("S"))
				deleteNAT(t, c.World, maps.NATForward)
				if got := lands(6000 + port); got.DstPort != asked.DstPort {
					t.Errorf("port %d, where the client's hash leads to %d", got.DstPort, asked.DstPort)
				}
				seen[asked.DstPort] = true
			}
			if len(seen) != 2 {
				t.Errorf("all clients got the port %v", seen)
			}
			c.serve(at, maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[v], back)}, nil)
			c.refuses(host.FromNetdev, c.dev, ipip.wrap(node, own, at, c.client(7000, at.Addr(), at.Port()).TCP("S")), maps.DropNoService)
			c.Put(c.Maps.LbMemberV1, maps.LBMember{Addr: maps.AddrFrom(own), Slots: c.last, Port: be(back)}, uint8(1))
			if got := lands(7000); got.DstPort != back {
				t.Errorf("port %d, want %d", got.DstPort, back)
			}
		})
	}
}

// TestDispatchHostile: who may not say such a thing, and what must not be said.
func TestDispatchHostile(t *testing.T) {
	for _, d := range []dispatch{geneve, ipip} {
		base := newDispatchCity(t, d)
		t.Run(d.name, func(t *testing.T) {
			eachOf(t, base, func(c *city) {
				own, node := c.Pod1.Addr(c.v), bpftest.Node2[c.v]
				at := ap(vip[c.v], front)
				c.serve(at, maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
				f := c.client(5000, at.Addr(), at.Port())
				if d == geneve {
					f.Dst, f.DstPort = own, back
				}
				good := c.build(f, "S")
				refused := func(what string, frame []byte, why uint8) {
					t.Helper()
					verdict, out, err := c.Run(host.FromNetdev, c.dev, frame)
					if err != nil {
						t.Fatal(err)
					}
					if got := bpftest.Drops(c.Events()); verdict == bpftest.Redirect && flowOf(out, c.v).Src != at.Addr() || len(got) != 1 || got[0] != why {
						t.Errorf("%s: verdict %d, drops %v, want %d", what, verdict, got, why)
					}
				}
				for _, who := range []netip.Addr{bpftest.Outside[c.v], machine[c.v], bpftest.FarPod[c.v], bpftest.NewPod[c.v]} {
					refused("from "+who.String(), d.wrap(who, own, at, good), maps.DropUnknownSender)
				}
				refused("from this node", d.wrap(bpftest.Node1[c.v], own, at, good), maps.DropUnknownSender)
				for _, who := range []netip.Addr{own, c.Pod2.Addr(c.v), bpftest.Node1[c.v], bpftest.Router1[c.v]} {
					liar := f
					liar.Src = who
					refused("for "+who.String(), d.wrap(node, own, at, c.build(liar, "S")), maps.DropSourceIP)
				}
				other := f
				if d == ipip {
					other.DstPort++
				}
				refused("no service", d.wrap(node, own, ap(at.Addr(), front+1), c.build(other, "S")), maps.DropNoService)
				refused("at no service's address", d.wrap(node, own, ap(bpftest.Outside[c.v], front), c.build(packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: f.Src,
					Dst: map[dispatch]netip.Addr{geneve: own, ipip: machine[c.v]}[d], SrcPort: 5000, DstPort: front}, "S")), maps.DropNoService)
				if d == geneve {
					elsewhere := f
					elsewhere.Dst = c.Pod2.Addr(c.v)
					refused("inside to somebody else", d.wrap(node, own, at, c.build(elsewhere, "S")), maps.DropInvalid)
				} else {
					refused("a ping", d.wrap(node, own, at, f.EchoRequest(7)), maps.DropNoService)
				}
				nested := d.wrap(node, own, at, d.wrap(node, map[dispatch]netip.Addr{geneve: own, ipip: at.Addr()}[d], at, good))
				if d == ipip || !c.udp {
					refused("nested", nested, maps.DropNoService)
				} else { // a datagram to the workload's port 6081, of the node as the client; not opened again
					verdict, out := drops(t, c.World, host.FromNetdev, c.dev, nested)
					if got := flowOf(out, c.v); verdict != bpftest.Redirect || got.Dst != own || got.DstPort != 6081 || got.Src != node {
						t.Errorf("nested: verdict %d, came as %+v", verdict, got)
					}
					deleteNAT(t, c.World, maps.NATForward)
					deleteNAT(t, c.World, maps.NATReverse)
				}
				// Cut short, with the outer length made to agree.
				whole := d.wrap(node, own, at, good)
				whole = whole[:packet.EtherLen+len(ipOf(whole))]
				for end := packet.EtherLen + d.room[c.v] + 1; end < len(whole); end++ {
					cut := bytes.Clone(whole[:end])
					ip := cut[packet.EtherLen:]
					if c.v == 0 {
						binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
						checksum4(ip)
					} else {
						binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
					}
					verdict, _, err := c.Run(host.FromNetdev, c.dev, cut)
					if err != nil {
						t.Fatal(err)
					}
					if got := bpftest.Drops(c.Events()); verdict != bpftest.Drop || len(got) != 1 {
						t.Fatalf("cut to %d of %d bytes: verdict %d, drops %v", end, len(whole), verdict, got)
					}
				}
				// Inside of the other IP version.
				mixed := c.client(5000, at.Addr(), at.Port())
				mixed.Src, mixed.Dst = bpftest.Outside[1-c.v], vip[1-c.v]
				long := append([]byte{1, 2, 3}, make([]byte, 20)...) // an IPv6 header's length at least
				strange := d.wrap(node, own, at, mixed.UDP(long...))
				if d == ipip {
					refused("of the other version", strange, maps.DropInvalid)
				} else if verdict, out := drops(t, c.World, host.FromNetdev, c.dev, strange); verdict != bpftest.Redirect || len(out) != len(strange) {
					t.Errorf("of the other version: verdict %d, %d bytes; want it let to the workload as it is", verdict, len(out))
				}
				plain := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Outside[c.v], Dst: own, SrcPort: 5000, DstPort: 6081}.UDP(1, 2, 3)
				if verdict, out := drops(t, c.World, host.FromNetdev, c.dev, plain); verdict != bpftest.Redirect || len(out) != len(plain) {
					t.Errorf("a datagram to port 6081: verdict %d, %d bytes", verdict, len(out))
				}

				var k maps.NATKey
				var v maps.NATValue
				c.serve(at, maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
				if c.Maps.NatV2.Iterate().Next(&k, &v) {
					t.Errorf("on record: %+v %+v", k, v)
				}
			})
		})
	}
}
