package host_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// Addresses and ports of services, by IP version.
var (
	vip     = [2]netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")}
	vip2    = [2]netip.Addr{netip.MustParseAddr("203.0.113.11"), netip.MustParseAddr("2001:db8:1::11")}
	machine = [2]netip.Addr{netip.MustParseAddr("198.51.100.80"), netip.MustParseAddr("2001:db8:ffff::80")} // a backend outside the cluster
)

const (
	front, back = 80, 8080
	nodePort    = 30080
)

func be(p uint16) uint16 { return p<<8 | p>>8 }

// city is a world with services.
type city struct {
	*bpftest.World
	t      *testing.T
	v      int
	udp    bool
	dev    int
	last   uint32 // service, slot set
	tunnel int
}

// newCity makes a city with services on, for one IP version and protocol.
func newCity(t *testing.T, v int, udp bool, change func(*maps.Config)) *city {
	t.Helper()
	cfg := bpftest.Defaults()
	cfg.Flags &^= maps.ConfigDSRTCP | maps.ConfigDSRUDP
	if change != nil {
		change(&cfg)
	}
	w := bpftest.NewWorld(t, bpftest.Config{Config: cfg})
	c := &city{World: w, t: t, v: v, udp: udp, dev: w.OpenOutside(1500), tunnel: w.Dev[2]}
	c.Put(c.Maps.DevicesV1, cfg.TunnelIfindex, maps.Device{Mtu: 1450})
	for i := range 2 {
		c.Put(c.Maps.LbAddressV1, maps.AddrFrom(bpftest.Node1[i]), maps.LBAddressNode)
	}
	return c
}

// TestServices shares one city, for loading the programs takes longer than all the rest.
func TestServices(t *testing.T) {
	base := newCity(t, 0, false, nil)
	for _, x := range []struct {
		name string
		run  func(*testing.T, *city)
	}{
		{"local backend", serviceLocalBackend},
		{"policy is the backends", servicePolicyIsTheBackends},
		{"remote backend", serviceRemoteBackend},
		{"backend outside", serviceBackendOutside},
		{"backend at the client", serviceBackendAtClient},
		{"from pod", serviceFromPod},
		{"nobody", serviceNobody},
		{"source ranges", serviceSourceRanges},
		{"backends change", serviceBackendsChange},
		{"affinity", serviceAffinity},
		{"collision", serviceCollision},
		{"errors", serviceErrors},
		{"liars", serviceLiars},
		{"host backend", serviceHostBackend},
		{"hairpin", serviceHairpin},
		{"fragments", serviceFragments},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(t, base) })
	}
}

// as is a city without services, for a test with one IP version and protocol.
func (c *city) as(t *testing.T, v int, udp bool) *city {
	t.Helper()
	c.clear()
	one := *c
	one.t, one.v, one.udp = t, v, udp
	return &one
}

// eachOf runs a test for both IP versions and TCP and UDP.
func eachOf(t *testing.T, base *city, run func(*city)) {
	t.Helper()
	for v, name := range versions {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(name+" "+proto, func(t *testing.T) { run(base.as(t, v, proto == "udp")) })
		}
	}
}

// clear forgets services, connections and what a test made of policy.
func (c *city) clear() {
	c.t.Helper()
	for _, m := range []*ebpf.Map{c.Maps.NatV2, c.Maps.CtV1, c.Maps.FragV1, c.Maps.LbFrontendV1, c.Maps.LbSlotV1, c.Maps.LbMemberV1, c.Maps.LbAffinityV1, c.Maps.LbSourceV1} {
		key := make([]byte, m.KeySize())
		for m.NextKey(nil, &key) == nil {
			if err := m.Delete(key); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	for i := range 2 {
		for _, a := range []netip.Addr{vip[i], vip2[i]} {
			if err := c.Maps.LbAddressV1.Delete(maps.AddrFrom(a)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				c.t.Fatal(err)
			}
		}
	}
	if err := c.Maps.PolicyV1.Delete(maps.PolicyKey{Set: 1, Class: 2, Dir: maps.PolicyIngress}); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		c.t.Fatal(err)
	}
	c.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow})
	c.PutState(maps.State{})
	c.Events()
}

func (c *city) proto() uint8 {
	if c.udp {
		return 17
	}
	return 6
}

// serve makes a service, or gives it other backends; change may set more of its row. An invalid address is every one of the node.
func (c *city) serve(at netip.AddrPort, scope uint8, to []netip.AddrPort, change func(*maps.LBFrontend)) {
	c.t.Helper()
	c.last++
	row := maps.LBFrontend{Service: uint32(at.Port()), Slots: c.last, Count: uint32(len(to))}
	addr := maps.AddrFrom(at.Addr())
	if at.Addr() == vip[c.v] || at.Addr() == vip2[c.v] {
		c.Put(c.Maps.LbAddressV1, addr, maps.LBAddressVIP)
	}
	if !at.Addr().IsValid() {
		addr = maps.AddrFrom([2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[c.v])
	}
	for i, x := range to {
		c.Put(c.Maps.LbSlotV1, maps.LBSlotKey{Slots: c.last, Index: uint32(i)}, maps.LBBackend{Addr: maps.AddrFrom(x.Addr()), Port: be(x.Port()), Proto: c.proto()})
		if c.udp {
			c.Put(c.Maps.LbMemberV1, maps.LBMember{Addr: maps.AddrFrom(x.Addr()), Slots: c.last, Port: be(x.Port())}, uint8(1))
		}
	}
	if change != nil {
		change(&row)
	}
	c.Put(c.Maps.LbFrontendV1, maps.LBFrontendKey{Addr: addr, Port: be(at.Port()), Proto: c.proto(), Scope: scope}, row)
}

func (c *city) build(f packet.Flow, flags string) []byte {
	if c.udp {
		return f.UDP(1, 2, 3)
	}
	return f.TCP(flags, 1, 2, 3)
}

// client is a flow of somebody outside.
func (c *city) client(port uint16, to netip.Addr, dport uint16) packet.Flow {
	return packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Outside[c.v], Dst: to, SrcPort: port, DstPort: dport}
}

// run runs a program; on a kernel that cannot, the test ends here.
func (c *city) run(prog string, dev int, outer *bpftest.Outer, frame []byte) (verdict uint32, out []byte) {
	c.t.Helper()
	verdict, out, _, err := c.RunPacket(prog, bpftest.Packet{Frame: frame, IfIndex: dev, Outer: outer})
	if errors.Is(err, bpftest.ErrNoTunnel) {
		c.t.Skip(err)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return verdict, out
}

// passes runs a program that must send the packet on, whole, and returns what it became.
func (c *city) passes(prog string, dev int, outer *bpftest.Outer, frame []byte) packet.Flow {
	c.t.Helper()
	verdict, out := c.run(prog, dev, outer, frame)
	if evs := c.Events(); verdict != bpftest.Redirect || len(bpftest.Drops(evs)) > 0 {
		c.t.Fatalf("%s: verdict %d, drops %v; events %+v", prog, verdict, bpftest.Drops(evs), evs)
	}
	if err := packet.Check(out); err != nil {
		c.t.Errorf("%s: %v", prog, err)
	}
	return flowOf(out, c.v)
}

func (c *city) refuses(prog string, dev int, frame []byte, why uint8) (verdict uint32, out []byte) {
	c.t.Helper()
	return drops(c.t, c.World, prog, dev, frame, why)
}

func (c *city) same(what string, got packet.Flow, src netip.Addr, sport uint16, dst netip.Addr, dport uint16) {
	c.t.Helper()
	if got.Src != src || got.Dst != dst || got.DstPort != dport || got.SrcPort != sport {
		c.t.Errorf("%s: %s:%d -> %s:%d, want %s:%d -> %s:%d", what, got.Src, got.SrcPort, got.Dst, got.DstPort, src, sport, dst, dport)
	}
}

func ap(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

var fromNode2 = &bpftest.Outer{From: bpftest.Node2[0], VNI: bpftest.IDFar}

// A backend on this node sees its client's own address; what it answers leaves under the service's.
func serviceLocalBackend(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		own := c.Pod1.Addr(c.v)
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
		c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
		for i, at := range []netip.AddrPort{ap(vip[c.v], front), ap(bpftest.Node1[c.v], nodePort)} {
			f := c.client(uint16(5000+i), at.Addr(), at.Port())
			for _, flags := range []string{"S", "A", "A"} {
				got := c.passes(host.FromNetdev, c.dev, nil, c.build(f, flags))
				c.same("request", got, f.Src, f.SrcPort, own, back)
			}
			answer := c.Pod1.Flow(f.Src, back, f.SrcPort)
			for _, flags := range []string{"SA", "A"} {
				got := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(answer, flags))
				c.same("answer", got, at.Addr(), at.Port(), f.Src, f.SrcPort)
			}
		}
		for k, v := range c.Connections() {
			if v.Flags&maps.CTService == 0 || v.SrcIdentity != bpftest.IDWorld || v.DstIdentity != bpftest.IDPod1 {
				t.Errorf("on record: %+v %+v", k, v)
			}
		}
	})
}

// What the backend's policy refuses does not reach it; what it says to others is not translated.
func servicePolicyIsTheBackends(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(c.Pod1.Addr(c.v), back)}, nil)
		port := maps.PolicyEntry{Verdict: maps.VerdictAllow, Proto: c.proto(), PortLo: front, PortHi: front, Rule: 7}
		c.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictDeny}, port)
		f := c.client(5000, vip[c.v], front)
		c.refuses(host.FromNetdev, c.dev, c.build(f, "S"), maps.DropPolicy)
		port.PortLo, port.PortHi = back, back
		c.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictDeny}, port)
		c.passes(host.FromNetdev, c.dev, nil, c.build(f, "S"))
		got := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(f.Src, back, 6000), "S"))
		if got.Src != bpftest.Node1[c.v] {
			t.Errorf("the backend's own connection leaves as %+v", got)
		}
	})
}

// A backend on another node is reached through the overlay under this node's address, and policy there sees the world.
func serviceRemoteBackend(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[c.v], back)}, nil)
		f := c.client(5000, bpftest.Node1[c.v], nodePort)
		sent := c.passes(host.FromNetdev, c.dev, nil, c.build(f, "S"))
		if sent.Src != bpftest.Router1[c.v] || sent.Dst != bpftest.FarPod[c.v] || sent.DstPort != back || sent.SrcPort < 20000 || sent.SrcPort > 29999 {
			t.Fatalf("sent on as %+v", sent)
		}
		if again := c.passes(host.FromNetdev, c.dev, nil, c.build(f, "A")); again.SrcPort != sent.SrcPort {
			t.Errorf("sent on from port %d, then %d", sent.SrcPort, again.SrcPort)
		}
		for _, flags := range []string{"SA", "A"} {
			got := c.passes(overlay.FromOverlay, c.tunnel, fromNode2, c.build(sent.Reverse(), flags))
			c.same("answer", got, bpftest.Node1[c.v], nodePort, f.Src, f.SrcPort)
		}
		// An answer to a connection that is not on record goes nowhere.
		stray := sent.Reverse()
		stray.SrcPort++
		if verdict, _ := c.run(overlay.FromOverlay, c.tunnel, fromNode2, c.build(stray, "A")); verdict != bpftest.Pass {
			t.Errorf("a stray answer: verdict %d, want it left to the node", verdict)
		}

		// The other node's side of it: this node is where the backend is.
		in := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.Router2[c.v], Dst: c.Pod1.Addr(c.v), SrcPort: 20001, DstPort: back}
		c.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictDeny})
		c.PutPolicy(1, 2, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow})
		world := &bpftest.Outer{From: bpftest.Node2[0], VNI: bpftest.IDWorld}
		c.passes(overlay.FromOverlay, c.tunnel, world, c.build(in, "S"))
		c.PutState(maps.State{Epoch: 9}) // policy changes: the answer is judged in the connection's direction, as from the world
		c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(in.Src, back, in.SrcPort), "SA"))
		in.SrcPort++
		node := &bpftest.Outer{From: bpftest.Node2[0], VNI: bpftest.IDRemoteNode}
		verdict, _ := c.run(overlay.FromOverlay, c.tunnel, node, c.build(in, "S"))
		if got := bpftest.Drops(c.Events()); verdict != bpftest.Drop || !slices.Equal(got, []uint8{maps.DropPolicy}) {
			t.Errorf("the node itself: verdict %d, drops %v", verdict, got)
		}
	})
}

// A backend outside the cluster is reached by the route, under the address of the device it leaves by.
func serviceBackendOutside(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(machine[c.v], back)}, nil)
		f := c.client(5000, vip[c.v], front)
		sent := c.passes(host.FromNetdev, c.dev, nil, c.build(f, "S"))
		if sent.Src != bpftest.Node1[c.v] || sent.Dst != machine[c.v] || sent.DstPort != back {
			t.Fatalf("sent on as %+v", sent)
		}
		got := c.passes(host.FromNetdev, c.dev, nil, c.build(sent.Reverse(), "SA"))
		c.same("answer", got, vip[c.v], front, f.Src, f.SrcPort)

		// A workload whose socket is out of reach: translated, then masqueraded.
		f = c.Pod1.Flow(vip[c.v], 5000, front)
		sent = c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(f, "S"))
		if sent.Src != bpftest.Node1[c.v] || sent.Dst != machine[c.v] {
			t.Fatalf("sent on as %+v", sent)
		}
		c.same("answer", c.passesIn(host.FromNetdev, c.build(sent.Reverse(), "SA")), vip[c.v], front, f.Src, f.SrcPort)
	})
}

// A node that asks for a service by another node, which chooses a backend in the asker's own stack: client and backend have one address, and
// ports alone tell them apart.
func serviceBackendAtClient(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(bpftest.Outside[c.v], back)}, nil)
		for _, port := range []uint16{back - 1, back + 1} { // below and above the backend's
			f := c.client(port, vip[c.v], front)
			for _, flags := range []string{"S", "A"} {
				sent := c.passes(host.FromNetdev, c.dev, nil, c.build(f, flags))
				if sent.Src != bpftest.Node1[c.v] || sent.Dst != f.Src || sent.DstPort != back {
					t.Fatalf("sent on as %+v", sent)
				}
				got := c.passesIn(host.FromNetdev, c.build(sent.Reverse(), strings.Replace(flags, "S", "SA", 1)))
				c.same("answer", got, vip[c.v], front, f.Src, f.SrcPort)
			}
		}
	})
}

func (c *city) passesIn(prog string, frame []byte) packet.Flow {
	c.t.Helper()
	return c.passes(prog, c.dev, nil, frame)
}

// Workloads whose sockets are out of reach: to a backend on this node and on another, and back.
func serviceFromPod(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBInternal, []netip.AddrPort{ap(c.Pod2.Addr(c.v), back)}, nil)
		f := c.Pod1.Flow(vip[c.v], 5000, front)
		for _, flags := range []string{"S", "A"} {
			c.same("request", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(f, flags)), f.Src, 5000, c.Pod2.Addr(c.v), back)
			c.same("answer", c.passes(pod.FromPod, c.Pod2.Dev, nil, c.build(c.Pod2.Flow(f.Src, back, 5000), "SA")), vip[c.v], front, f.Src, 5000)
		}
		// The same two directly: nothing is translated.
		d := c.Pod1.Flow(c.Pod2.Addr(c.v), 5001, back)
		c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(d, "S"))
		c.same("direct answer", c.passes(pod.FromPod, c.Pod2.Dev, nil, c.build(c.Pod2.Flow(f.Src, back, 5001), "SA")), c.Pod2.Addr(c.v), back, f.Src, 5001)

		c.serve(ap(vip2[c.v], front), maps.LBInternal, []netip.AddrPort{ap(bpftest.FarPod[c.v], back)}, nil)
		f = c.Pod1.Flow(vip2[c.v], 5000, front)
		for _, flags := range []string{"S", "A"} {
			c.same("request", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(f, flags)), f.Src, 5000, bpftest.FarPod[c.v], back)
			in := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.FarPod[c.v], Dst: f.Src, SrcPort: back, DstPort: 5000}
			c.same("answer", c.passes(overlay.FromOverlay, c.tunnel, fromNode2, c.build(in, "SA")), vip2[c.v], front, f.Src, 5000)
		}
	})
}

// A VIP is nothing but the place of its services; other ports of the node's address stay the node's.
func serviceNobody(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, nil, nil)
		c.refuses(host.FromNetdev, c.dev, c.build(c.client(5000, vip[c.v], front+1), "S"), maps.DropNoService)
		c.refuses(pod.FromPod, c.Pod1.Dev, c.build(c.Pod1.Flow(vip[c.v], 5000, front+1), "S"), maps.DropNoService)
		c.refuses(host.FromNetdev, c.dev, c.client(5000, vip[c.v], 0).EchoRequest(1), maps.DropNoService)
		if verdict, _ := drops(t, c.World, host.FromNetdev, c.dev, c.build(c.client(5000, bpftest.Node1[c.v], 22), "S")); verdict != bpftest.Pass {
			t.Errorf("the node's own port: verdict %d", verdict)
		}
		// No backend: the client is told, by the service's address, about the packet as it sent it.
		for _, from := range []struct {
			prog  string
			dev   int
			f     packet.Flow
			tells netip.Addr
		}{{host.FromNetdev, c.dev, c.client(5000, vip[c.v], front), vip[c.v]}, {pod.FromPod, c.Pod1.Dev, c.Pod1.Flow(vip[c.v], 5000, front), bpftest.Router1[c.v]}} {
			verdict, out := c.refuses(from.prog, from.dev, c.build(from.f, "S"), maps.DropNoService)
			if verdict != bpftest.Redirect {
				t.Fatalf("%s: verdict %d, want an answer", from.prog, verdict)
			}
			if err := packet.Check(out); err != nil {
				t.Error(err)
			}
			head := []int{20, 40}[c.v]
			got, quote := flowOf(out, c.v), flowOf(out[head+8:], c.v)
			want := [2][2]byte{{3, 3}, {1, 4}}[c.v]
			if [2]byte(out[14+head:]) != want || got.Src != from.tells || got.Dst != from.f.Src {
				t.Errorf("%s: answer %v by %s to %s", from.prog, out[14+head:14+head+2], got.Src, got.Dst)
			}
			c.same("quote", quote, from.f.Src, 5000, vip[c.v], front)
		}
	})
	t.Run("drop", func(t *testing.T) {
		c := newCity(t, 0, false, func(cfg *maps.Config) { cfg.Flags &^= maps.ConfigReject })
		c.serve(ap(vip[0], front), maps.LBExternal, nil, nil)
		if verdict, _ := c.refuses(host.FromNetdev, c.dev, c.build(c.client(5000, vip[0], front), "S"), maps.DropNoService); verdict != bpftest.Drop {
			t.Errorf("verdict %d", verdict)
		}
	})
	t.Run("off", func(t *testing.T) {
		c := newCity(t, 0, false, func(cfg *maps.Config) { cfg.Flags &^= maps.ConfigServices })
		c.serve(ap(vip[0], front), maps.LBExternal, []netip.AddrPort{ap(c.Pod1.V4, back)}, nil)
		if verdict, out := drops(t, c.World, host.FromNetdev, c.dev, c.build(c.client(5000, vip[0], front), "S")); verdict != bpftest.Pass || flowOf(out, 0).Dst != vip[0] {
			t.Errorf("services are off: verdict %d, to %v", verdict, flowOf(out, 0))
		}
	})
}

// Source ranges are for who comes from outside; scopes tell the two apart.
func serviceSourceRanges(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		to := []netip.AddrPort{ap(c.Pod1.Addr(c.v), back)}
		bits := bpftest.Outside[c.v].BitLen()
		list := func(set uint32, p netip.Prefix) {
			k := maps.IPCacheKeyFrom(p)
			c.Put(c.Maps.LbSourceV1, maps.LBSourceKey{Prefixlen: k.Prefixlen, Ranges: set, Addr: k.Addr}, uint8(1))
		}
		list(1, netip.PrefixFrom(bpftest.Outside[c.v], bits-8).Masked())
		list(2, netip.PrefixFrom(machine[c.v], bits))
		for _, x := range []struct {
			set    uint32
			deny   bool
			passes bool
		}{{1, false, true}, {2, false, false}, {1, true, false}, {2, true, true}} {
			c.serve(ap(vip[c.v], front), maps.LBExternal, to, func(f *maps.LBFrontend) {
				f.Ranges = x.set
				if x.deny {
					f.Flags = maps.LBRangesDeny
				}
			})
			frame := c.build(c.client(uint16(5000+x.set), vip[c.v], front), "S")
			if x.passes {
				c.passes(host.FromNetdev, c.dev, nil, frame)
			} else {
				c.refuses(host.FromNetdev, c.dev, frame, maps.DropSourceRange)
			}
			c.passes(pod.FromPod, c.Pod2.Dev, nil, c.build(c.Pod2.Flow(vip[c.v], 5000, front), "S"))
		}
	})
}

// A connection keeps its backend whatever becomes of the service; who opens one anew, and datagrams, get one that is left.
func serviceBackendsChange(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		one, two := ap(c.Pod1.Addr(c.v), back), ap(c.Pod2.Addr(c.v), back)
		at := ap(vip[c.v], front)
		c.serve(at, maps.LBExternal, []netip.AddrPort{one}, nil)
		f := c.client(5000, vip[c.v], front)
		c.passesIn(host.FromNetdev, c.build(f, "S"))
		c.serve(at, maps.LBExternal, []netip.AddrPort{two, two, two, two, two, two, two, one}, nil)
		if got := c.passesIn(host.FromNetdev, c.build(f, "A")); got.Dst != one.Addr() {
			t.Errorf("its backend is one of several now: went to %s", got.Dst)
		}
		c.serve(at, maps.LBExternal, []netip.AddrPort{two}, nil)
		want := one
		if c.udp {
			want = two
		}
		if got := c.passesIn(host.FromNetdev, c.build(f, "A")); got.Dst != want.Addr() {
			t.Errorf("its backend is gone: went to %s", got.Dst)
		}
		if got := c.passesIn(host.FromNetdev, c.build(f, "S")); got.Dst != two.Addr() {
			t.Errorf("opened anew: went to %s", got.Dst)
		}
	})
}

// Affinity is by address.
func serviceAffinity(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		one, two := ap(c.Pod1.Addr(c.v), back), ap(c.Pod2.Addr(c.v), back)
		sets := []netip.AddrPort{one, two}
		c.serve(ap(vip[c.v], front), maps.LBExternal, sets, func(f *maps.LBFrontend) { f.Affinity = 100 })
		for _, x := range sets {
			c.Put(c.Maps.LbMemberV1, maps.LBMember{Addr: maps.AddrFrom(x.Addr()), Slots: c.last, Port: be(x.Port())}, uint8(1))
		}
		first := c.passesIn(host.FromNetdev, c.build(c.client(5000, vip[c.v], front), "S"))
		for port := range uint16(30) {
			if got := c.passesIn(host.FromNetdev, c.build(c.client(5001+port, vip[c.v], front), "S")); got.Dst != first.Dst {
				t.Fatalf("went to %s, then to %s", first.Dst, got.Dst)
			}
		}
	})
}

// Half of a pair is evicted: it is mended, or both are gone; nothing is delivered under a wrong address (case 17).
func TestCase17HalfEvicted(t *testing.T) {
	sc := score.Start(t, "17", "half of a service flow's translation evicted, its backend here or on another node")
	torn, wrong, mended := 0, 0, 0
	eachOf(t, newCity(t, 0, false, nil), func(c *city) {
		at := ap(vip[c.v], front)
		for _, x := range []struct {
			name    string
			backend netip.AddrPort
			answer  func(packet.Flow) (uint32, packet.Flow)
		}{
			{"backend here", ap(c.Pod1.Addr(c.v), back), func(sent packet.Flow) (uint32, packet.Flow) {
				verdict, out := c.MustRun(pod.FromPod, c.Pod1.Dev, c.build(c.Pod1.Flow(sent.Src, sent.DstPort, sent.SrcPort), "A"))
				c.Events()
				return verdict, flowOf(out, c.v)
			}},
			{"backend elsewhere", ap(bpftest.FarPod[c.v], back), func(sent packet.Flow) (uint32, packet.Flow) {
				verdict, out := c.run(overlay.FromOverlay, c.tunnel, fromNode2, c.build(sent.Reverse(), "A"))
				c.Events()
				return verdict, flowOf(out, c.v)
			}},
		} {
			c.serve(at, maps.LBExternal, []netip.AddrPort{x.backend}, nil)
			for _, dir := range []uint8{maps.NATForward, maps.NATReverse} {
				f := c.client(5000+uint16(dir), vip[c.v], front)
				sent := c.passesIn(host.FromNetdev, c.build(f, "S"))
				deleteNAT(t, c.World, dir)
				torn++
				if verdict, got := x.answer(sent); verdict == bpftest.Redirect {
					wrong++
					t.Errorf("%s, half %d gone: an answer went on as %+v", x.name, dir, got)
				}
				again := c.passesIn(host.FromNetdev, c.build(f, "A"))
				verdict, got := x.answer(again)
				if verdict != bpftest.Redirect || got.Src != vip[c.v] || got.SrcPort != front || got.Dst != f.Src || got.DstPort != f.SrcPort {
					t.Errorf("%s, half %d mended: verdict %d, answer %+v", x.name, dir, verdict, got)
				} else {
					mended++
				}
			}
		}
	})
	sc.Count(torn, "pairs torn")
	sc.Say("%d answers delivered meanwhile, %d pairs mended by the client's next packet", wrong, mended)
}

// One client port, two services, one backend: the backend could not tell the two apart. Who opens a connection has given up the one
// before it; of datagrams the later flow comes from another port, both ways, its errors too.
func serviceCollision(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		own := ap(c.Pod1.Addr(c.v), back)
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{own}, nil)
		c.serve(ap(vip2[c.v], front), maps.LBExternal, []netip.AddrPort{own}, nil)
		f, g := c.client(5000, vip[c.v], front), c.client(5000, vip2[c.v], front)
		c.passesIn(host.FromNetdev, c.build(f, "S"))
		if !c.udp {
			c.refuses(host.FromNetdev, c.dev, c.build(g, "A"), maps.DropNATNoMapping)
			c.passesIn(host.FromNetdev, c.build(g, "S"))
			c.same("answer", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(g.Src, back, 5000), "SA")), vip2[c.v], front, g.Src, 5000)
			c.refuses(host.FromNetdev, c.dev, c.build(f, "A"), maps.DropNATNoMapping)
			return
		}
		head := []int{20, 40}[c.v]
		first := c.passesIn(host.FromNetdev, c.build(g, "A"))
		if first.Src != g.Src || first.SrcPort == 5000 || first.SrcPort < 20000 || first.SrcPort > 29999 || first.Dst != own.Addr() {
			t.Fatalf("the second flow comes as %+v", first)
		}
		for range 2 {
			c.same("first flow", c.passesIn(host.FromNetdev, c.build(f, "A")), f.Src, 5000, own.Addr(), back)
			c.same("its answer", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(f.Src, back, 5000), "A")), vip[c.v], front, f.Src, 5000)
			c.same("second flow", c.passesIn(host.FromNetdev, c.build(g, "A")), g.Src, first.SrcPort, own.Addr(), back)
			c.same("its answer", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(g.Src, back, first.SrcPort), "A")), vip2[c.v], front, g.Src, 5000)
		}
		// The client's error about an answer, and the backend's about a request.
		_, out := drops(t, c.World, host.FromNetdev, c.dev, c.client(0, vip2[c.v], 0).Unreachable(c.build(g.Reverse(), "A")))
		c.same("quote of the client's error", flowOf(out[head+8:], c.v), own.Addr(), back, g.Src, first.SrcPort)
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		_, out = drops(t, c.World, pod.FromPod, c.Pod1.Dev, c.Pod1.Flow(g.Src, 0, 0).Unreachable(c.build(first, "A")))
		c.same("quote of the backend's error", flowOf(out[head+8:], c.v), g.Src, 5000, vip2[c.v], front)
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}

		// A workload that asks both.
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(c.Pod2.Addr(c.v), back)}, nil)
		c.serve(ap(vip2[c.v], front), maps.LBExternal, []netip.AddrPort{ap(c.Pod2.Addr(c.v), back)}, nil)
		c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(vip[c.v], 6000, front), ""))
		sent := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(vip2[c.v], 6000, front), ""))
		if sent.SrcPort == 6000 || sent.Src != c.Pod1.Addr(c.v) {
			t.Fatalf("a workload's second flow comes as %+v", sent)
		}
		c.same("answer", c.passes(pod.FromPod, c.Pod2.Dev, nil, c.build(c.Pod2.Flow(sent.Src, back, sent.SrcPort), "")), vip2[c.v], front, sent.Src, 6000)
	})
}

// Ports run out: said so, and those who have one keep it.
func TestServicePortsRunOut(t *testing.T) {
	base := newCity(t, 0, false, func(cfg *maps.Config) { cfg.MasqPortMin, cfg.MasqPortMax = 20000, 20003 })
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			c := base.as(t, v, false)
			c.serve(ap(vip[v], front), maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[v], back)}, nil)
			used := map[uint16]bool{}
			for port := range uint16(4) {
				used[c.passesIn(host.FromNetdev, c.build(c.client(5000+port, vip[v], front), "S")).SrcPort] = true
			}
			if len(used) != 4 {
				t.Errorf("four clients leave under ports %v", used)
			}
			c.refuses(host.FromNetdev, c.dev, c.build(c.client(6000, vip[v], front), "S"), maps.DropNATNoMapping)
			c.passesIn(host.FromNetdev, c.build(c.client(5000, vip[v], front), "A"))
		})
	}
}

// Later fragments go where their first one went.
func serviceFragments(t *testing.T, base *city) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			c := base.as(t, v, true)
			for i, to := range []netip.Addr{c.Pod1.Addr(v), bpftest.FarPod[v]} {
				c.serve(ap(vip[v], front), maps.LBExternal, []netip.AddrPort{ap(to, back)}, nil)
				whole := c.client(uint16(5000+i), vip[v], front).UDP(make([]byte, 64)...)
				first, later := packet.Fragment(whole, 32, 77)
				for _, frame := range [][]byte{first, later} {
					verdict, out := drops(t, c.World, host.FromNetdev, c.dev, frame)
					if got := flowOf(out, v); verdict != bpftest.Redirect || got.Dst != to {
						t.Errorf("verdict %d, to %s, want %s", verdict, got.Dst, to)
					}
				}
			}
		})
	}
}

// Errors about translated packets reach who sent those, and quote them as they knew them.
func serviceErrors(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		head := []int{20, 40}[c.v]
		quoted := func(out []byte) packet.Flow { return flowOf(out[head+8:], c.v) }
		f := c.client(5000, vip[c.v], front)
		own := c.Pod1.Addr(c.v)

		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(own, back)}, nil)
		sent := c.passesIn(host.FromNetdev, c.build(f, "S"))
		_, out := drops(t, c.World, pod.FromPod, c.Pod1.Dev, c.Pod1.Flow(f.Src, 0, 0).Unreachable(c.build(sent, "S")))
		if got := flowOf(out, c.v); got.Src != vip[c.v] || got.Dst != f.Src {
			t.Errorf("the backend's error is from %s to %s", got.Src, got.Dst)
		}
		c.same("quote of the backend's error", quoted(out), f.Src, f.SrcPort, vip[c.v], front)
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		// The client's own about an answer.
		answer := c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(f.Src, back, f.SrcPort), "SA"))
		_, out = drops(t, c.World, host.FromNetdev, c.dev, c.client(0, vip[c.v], 0).Unreachable(c.build(answer, "SA")))
		if got := flowOf(out, c.v); got.Dst != own {
			t.Errorf("the client's error goes to %s", got.Dst)
		}
		c.same("quote of the client's error", quoted(out), own, back, f.Src, f.SrcPort)

		// With the backend on another node.
		c.serve(ap(vip2[c.v], front), maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[c.v], back)}, nil)
		f = c.client(6000, vip2[c.v], front)
		sent = c.passesIn(host.FromNetdev, c.build(f, "S"))
		e := packet.Flow{SrcMAC: lan, DstMAC: packet.MAC(1), Src: bpftest.FarPod[c.v], Dst: sent.Src}
		_, out = c.run(overlay.FromOverlay, c.tunnel, fromNode2, e.Unreachable(c.build(sent, "S")))
		if drops := bpftest.Drops(c.Events()); len(drops) > 0 {
			t.Fatalf("far error: drops %v", drops)
		}
		c.same("quote of the far backend's error", quoted(out), f.Src, f.SrcPort, vip2[c.v], front)
		if got := flowOf(out, c.v); got.Src != vip2[c.v] || got.Dst != f.Src {
			t.Errorf("the far backend's error is from %s to %s", got.Src, got.Dst)
		}
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		answer = c.passes(overlay.FromOverlay, c.tunnel, fromNode2, c.build(sent.Reverse(), "SA"))
		_, out = drops(t, c.World, host.FromNetdev, c.dev, c.client(0, vip2[c.v], 0).Unreachable(c.build(answer, "SA")))
		if got := flowOf(out, c.v); got.Dst != bpftest.FarPod[c.v] || got.Src != sent.Src {
			t.Errorf("the client's error goes from %s to %s", got.Src, got.Dst)
		}
		c.same("quote of the client's error", quoted(out), bpftest.FarPod[c.v], back, sent.Src, sent.SrcPort)
		// About nothing that is on record.
		c.refuses(host.FromNetdev, c.dev, c.client(0, vip2[c.v], 0).Unreachable(c.build(c.client(7777, vip2[c.v], front).Reverse(), "A")), maps.DropNATNoMapping)
	})
}

// Who comes from outside under an address from inside, or of the node, leaves no row behind.
func serviceLiars(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(c.Pod1.Addr(c.v), back)}, nil)
		c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(bpftest.FarPod[c.v], back)}, nil)
		for _, who := range []netip.Addr{c.Pod2.Addr(c.v), bpftest.FarPod[c.v], bpftest.Node1[c.v], bpftest.Router1[c.v], bpftest.NewPod[c.v]} {
			for _, to := range []netip.AddrPort{ap(vip[c.v], front), ap(bpftest.Node1[c.v], nodePort)} {
				f := c.client(5000, to.Addr(), to.Port())
				f.Src = who
				c.refuses(host.FromNetdev, c.dev, c.build(f, "S"), maps.DropSourceIP)
			}
		}
		var k maps.NATKey
		var v maps.NATValue
		if c.Maps.NatV2.Iterate().Next(&k, &v) {
			t.Errorf("on record: %+v %+v", k, v)
		}
	})
}

// A backend in the node's own stack: the packet goes up, and the answer leaves under the service's address.
func serviceHostBackend(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		c.serve(ap(vip[c.v], front), maps.LBExternal, []netip.AddrPort{ap(bpftest.Node1[c.v], back)}, nil)
		f := c.client(5000, vip[c.v], front)
		verdict, out := drops(t, c.World, host.FromNetdev, c.dev, c.build(f, "S"))
		if verdict != bpftest.Pass {
			t.Fatalf("verdict %d", verdict)
		}
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		got := flowOf(out, c.v)
		c.same("request", got, f.Src, f.SrcPort, bpftest.Node1[c.v], back)
		verdict, out = drops(t, c.World, host.ToNetdev, c.dev, c.build(got.Reverse(), "SA"))
		if verdict != bpftest.Pass {
			t.Fatalf("answer: verdict %d", verdict)
		}
		if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		c.same("answer", flowOf(out, c.v), vip[c.v], front, f.Src, f.SrcPort)
		// What the node says to others, and what others say by way of it, is left alone.
		own := got.Reverse()
		own.SrcPort++
		for _, ingress := range []int{0, c.Dev[0]} {
			frame := c.build(own, "A")
			if ingress != 0 {
				frame = c.build(got.Reverse(), "A")
			}
			verdict, out, _, err := c.RunPacket(host.ToNetdev, bpftest.Packet{Frame: frame, IfIndex: c.dev, Ingress: ingress})
			if errors.Is(err, bpftest.ErrNoIngress) {
				continue
			}
			if err != nil || verdict != bpftest.Pass || string(out) != string(frame) {
				t.Errorf("the node's own: verdict %d, %v, changed %v", verdict, err, string(out) != string(frame))
			}
		}
		// The same backend for a workload.
		c.serve(ap(vip2[c.v], front), maps.LBInternal, []netip.AddrPort{ap(bpftest.Node1[c.v], back)}, nil)
		g := c.Pod1.Flow(vip2[c.v], 6000, front)
		verdict, out = drops(t, c.World, pod.FromPod, c.Pod1.Dev, c.build(g, "S"))
		if got := flowOf(out, c.v); verdict != bpftest.Pass || got.Dst != bpftest.Node1[c.v] || got.DstPort != back {
			t.Fatalf("from a workload: verdict %d, to %+v", verdict, got)
		}
		_, out = drops(t, c.World, pod.ToPod, c.Pod1.Dev, c.build(packet.Flow{SrcMAC: c.Pod1.HostMAC, DstMAC: c.Pod1.MAC, Src: bpftest.Node1[c.v], Dst: g.Src, SrcPort: back, DstPort: 6000}, "SA"))
		c.same("answer to a workload", flowOf(out, c.v), vip2[c.v], front, g.Src, 6000)
	})
}

// A workload that is its own backend hears from its gateway; nobody else can answer there.
func serviceHairpin(t *testing.T, base *city) {
	eachOf(t, base, func(c *city) {
		own := c.Pod1.Addr(c.v)
		c.serve(ap(vip[c.v], front), maps.LBInternal, []netip.AddrPort{ap(own, back)}, nil)
		for _, dir := range []uint32{maps.PolicyIngress, maps.PolicyEgress} {
			c.PutPolicy(1, maps.ClassAny, dir, maps.PolicyValue{DefaultVerdict: maps.VerdictDeny})
		}
		defer c.PutPolicy(1, maps.ClassAny, maps.PolicyEgress, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow})
		var sent packet.Flow
		for _, flags := range []string{"S", "A"} {
			sent = c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(c.Pod1.Flow(vip[c.v], 5000, front), flags))
			if sent.Src != bpftest.Router1[c.v] || sent.Dst != own || sent.DstPort != back {
				t.Fatalf("came as %+v", sent)
			}
			answer := c.Pod1.Flow(sent.Src, back, sent.SrcPort)
			c.same("answer", c.passes(pod.FromPod, c.Pod1.Dev, nil, c.build(answer, "SA")), vip[c.v], front, own, 5000)
		}
		other := c.Pod2.Flow(sent.Src, back, sent.SrcPort)
		verdict, out := drops(t, c.World, pod.FromPod, c.Pod2.Dev, c.build(other, "A"))
		if got := flowOf(out, c.v); verdict != bpftest.Pass || got.Dst != sent.Src {
			t.Errorf("another workload's packet to that port: verdict %d, to %+v; it is for the node", verdict, got)
		}
	})
}

// saidOf reads which service a packet says that it is for, and takes that out of a copy.
func (c *city) saidOf(frame []byte) (front netip.AddrPort, plain []byte) {
	c.t.Helper()
	ip := frame[14:]
	plain = append([]byte(nil), frame[:14]...)
	if c.v == 0 {
		if ip[0] != 0x47 || ip[20] != 0x9e || ip[21] != 8 {
			c.t.Fatalf("no option in % x", ip)
		}
		front = ap(netip.AddrFrom4([4]byte(ip[24:28])), uint16(ip[22])<<8|uint16(ip[23]))
		plain = append(append(plain, ip[:20]...), ip[28:]...)
		plain[14] = 0x45
		plain[17] -= 8
		plain[24], plain[25] = 0, 0
		var sum uint32
		for i := 14; i < 34; i += 2 {
			sum += uint32(plain[i])<<8 | uint32(plain[i+1])
		}
		sum = sum>>16 + sum&0xffff
		sum = ^(sum>>16 + sum&0xffff)
		plain[24], plain[25] = byte(sum>>8), byte(sum)
		return front, plain
	}
	if ip[6] != 60 || ip[41] != 2 || ip[42] != 0x1e || ip[43] != 18 || ip[62] != 1 || ip[63] != 0 {
		c.t.Fatalf("no option in % x", ip)
	}
	front = ap(netip.AddrFrom16([16]byte(ip[46:62])), uint16(ip[44])<<8|uint16(ip[45]))
	plain = append(append(plain, ip[:40]...), ip[64:]...)
	plain[14+6] = ip[40]
	plain[14+5] -= 24
	return front, plain
}

// Direct server return: the node that is asked sends on under the client's address and says for which service; the backend's node
// answers under that. Nobody else is believed to say such a thing, nor anything of what is no service.
func TestServiceDirectReturn(t *testing.T) {
	base := newCity(t, 0, false, func(cfg *maps.Config) { cfg.Flags |= maps.ConfigDSRTCP | maps.ConfigDSRUDP })
	eachOf(t, base, func(c *city) {
		far := bpftest.FarPod[c.v]
		c.serve(ap(netip.Addr{}, nodePort), maps.LBExternal, []netip.AddrPort{ap(far, back)}, nil)
		f := c.client(5000, bpftest.Node1[c.v], nodePort)
		verdict, first := drops(t, c.World, host.FromNetdev, c.dev, c.build(f, "S"))
		if verdict != bpftest.Redirect {
			t.Fatalf("verdict %d", verdict)
		}
		front, plain := c.saidOf(first)
		if front != ap(bpftest.Node1[c.v], nodePort) {
			t.Errorf("said to be for %s", front)
		}
		if err := packet.Check(plain); err != nil {
			t.Error(err)
		}
		c.same("sent on", flowOf(plain, c.v), f.Src, 5000, far, back)
		_, second := drops(t, c.World, host.FromNetdev, c.dev, c.build(f, "A"))
		if c.udp {
			_, second = c.saidOf(second)
		}
		c.same("sent on again", flowOf(second, c.v), f.Src, 5000, far, back)
		// Too big with what is to be said: the client hears how long a packet may be.
		if c.udp {
			_, out := c.refuses(host.FromNetdev, c.dev, f.UDP(make([]byte, 1450-8-[]int{20, 40}[c.v])...), maps.DropFragment)
			head := []int{20, 40}[c.v]
			mtu := int(out[14+head+6])<<8 | int(out[14+head+7])
			if want := 1450 - []int{8, 24}[c.v]; mtu != want {
				t.Errorf("told an MTU of %d, want %d", mtu, want)
			}
			c.same("quote", flowOf(out[head+8:], c.v), f.Src, 5000, bpftest.Node1[c.v], nodePort)
		}

		// Now this is the backend's node.
		for _, m := range []*ebpf.Map{c.Maps.NatV2, c.Maps.CtV1} {
			key := make([]byte, m.KeySize())
			for m.NextKey(nil, &key) == nil {
				if err := m.Delete(key); err != nil {
					t.Fatal(err)
				}
			}
		}
		backend := c.Pod2
		backend.V4, backend.V6 = bpftest.FarPod[0], bpftest.FarPod[1]
		c.PutPod(backend)
		defer func() {
			for v := range 2 {
				if err := c.Maps.EndpointsV1.Delete(maps.AddrFrom(bpftest.FarPod[v])); err != nil {
					t.Error(err)
				}
				c.PutIP(bpftest.FarPod[v], bpftest.IDFar, maps.IPCacheTunnel|maps.IPCacheNoMasq, bpftest.Node2[0])
			}
		}()
		world := &bpftest.Outer{From: bpftest.Node2[0], VNI: bpftest.IDWorld}
		answers := func(port uint16) netip.AddrPort {
			t.Helper()
			got := c.passes(pod.FromPod, backend.Dev, nil, c.build(backend.Flow(f.Src, back, port), "A"))
			return ap(got.Src, got.SrcPort)
		}
		for _, frame := range [][]byte{first, c.build(flowOf(second, c.v), "A")} {
			c.same("delivered", c.passes(overlay.FromOverlay, c.tunnel, world, frame), f.Src, 5000, far, back)
			if got := answers(5000); got != front {
				t.Errorf("answered as %s, want %s", got, front)
			}
			if c.udp {
				break
			}
		}
		// Said by who may not: a workload of another node under its own address, and about what is no service.
		liar := append([]byte(nil), first...)
		src, at := bpftest.NewPod[c.v].AsSlice(), []int{26, 22}[c.v]
		copy(liar[at:], src)
		verdict, _ = c.run(overlay.FromOverlay, c.tunnel, world, liar)
		if got := bpftest.Drops(c.Events()); verdict != bpftest.Drop || len(got) != 1 || got[0] != maps.DropSourceIP {
			t.Errorf("a client with an address of the cluster: verdict %d, %v", verdict, got)
		}
		other := append([]byte(nil), first...)
		other[[]int{14 + 23, 14 + 45}[c.v]]++ // another port
		other[[]int{14 + 28, 14 + 64}[c.v]+1]++
		c.run(overlay.FromOverlay, c.tunnel, world, other)
		c.Events()
		if got := answers(5001); got.Port() == nodePort+1 {
			t.Errorf("answered as %s, which is no service", got)
		}
	})
}
