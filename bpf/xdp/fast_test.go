package xdp_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/xdp"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

const (
	front, back = 80, 8080
	linkLayer   = 14
)

var (
	vip     = [2]netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")}
	gateway = [2]netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8::fe")}
	nextHop = packet.MAC(0xfe)
)

// lane is a node with native routing and a service whose backend is on another node.
type lane struct {
	*bpftest.World
	t      *testing.T
	v      int
	udp    bool
	direct bool // the backend answers the client itself
	dev    int
	set    uint32 // slot set of the service
}

// newLane makes a lane; which way answers go is the program's constant.
func newLane(t *testing.T, direct bool) *lane {
	t.Helper()
	return newLaneWith(t, direct, 0)
}

// newLaneWith does so with more flags.
func newLaneWith(t *testing.T, direct bool, flags uint32) *lane {
	t.Helper()
	cfg := bpftest.Defaults()
	cfg.Flags &^= maps.ConfigOverlay | maps.ConfigDSRTCP | maps.ConfigDSRUDP | maps.ConfigAccounting
	cfg.Flags |= flags
	if direct {
		cfg.Flags |= maps.ConfigDSRTCP | maps.ConfigDSRUDP
	}
	w := bpftest.NewWorld(t, bpftest.Config{Config: cfg})
	l := &lane{World: w, t: t, direct: direct, dev: w.OpenOutside(1500)}
	l.NS.Run("ip", "link", "set", "lo", "up")
	for v := range 2 {
		l.PutIP(bpftest.FarPod[v], bpftest.IDFar, maps.IPCacheNoMasq, netip.Addr{})
		l.NS.Run("ip", "neigh", "add", gateway[v].String(), "lladdr", nextHop.String(), "dev", "d4", "nud", "permanent")
	}
	l.sends(true)
	return l
}

// sends says whether XDP may send by the device to the outside.
func (l *lane) sends(ok bool) {
	l.t.Helper()
	l.NS.In(func() error {
		if !ok {
			return l.Maps.XdpDevicesV1.Delete(uint32(l.dev))
		}
		return l.Maps.XdpDevicesV1.Put(uint32(l.dev), uint32(l.dev))
	})
}

// eachLane runs a test for both ways of answers, both IP versions, TCP and UDP.
func eachLane(t *testing.T, run func(*lane)) {
	t.Helper()
	for _, way := range []string{"snat", "dsr"} {
		base := newLane(t, way == "dsr")
		for v, version := range []string{"IPv4", "IPv6"} {
			for _, proto := range []string{"tcp", "udp"} {
				t.Run(way+" "+version+" "+proto, func(t *testing.T) {
					one := *base
					one.t, one.v, one.udp = t, v, proto == "udp"
					one.clear()
					run(&one)
				})
			}
		}
	}
}

// clear forgets flows and services, and makes the service anew.
func (l *lane) clear() {
	l.t.Helper()
	for _, m := range []*ebpf.Map{l.Maps.NatV2, l.Maps.CtV1, l.Maps.LbFrontendV1, l.Maps.LbSourceV1, l.Maps.LbMemberV1, l.Maps.XdpDevicesV1} {
		key := make([]byte, m.KeySize())
		for m.NextKey(nil, &key) == nil {
			if err := m.Delete(key); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	l.forget()
	l.sends(true)
	l.PutState(maps.State{})
	l.serve(nil)
	l.Events()
}

// forget has the program ask the rows again of each flow, as it does after a moment.
func (l *lane) forget() {
	l.t.Helper()
	info, err := l.Prog(xdp.Fast).Info()
	if err != nil {
		l.t.Fatal(err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			l.t.Fatal(err)
		}
		if info, err := m.Info(); err != nil || info.Name != "fast_flows" {
			_ = m.Close()
			continue
		}
		for k := range rows[maps.NATKey, [11]uint64](l.t, m) {
			if err := m.Delete(k); err != nil {
				l.t.Fatal(err)
			}
		}
		_ = m.Close()
	}
}

func (l *lane) proto() uint8 {
	if l.udp {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func swapped(p uint16) uint16 { return p<<8 | p>>8 }

func (l *lane) frontKey() maps.LBFrontendKey {
	return maps.LBFrontendKey{Addr: maps.AddrFrom(vip[l.v]), Port: swapped(front), Proto: l.proto(), Scope: maps.LBExternal}
}

// serve gives the service a new set of slots.
func (l *lane) serve(change func(*maps.LBFrontend)) {
	l.t.Helper()
	l.set++
	l.Put(l.Maps.LbAddressV1, maps.AddrFrom(vip[l.v]), maps.LBAddressVIP)
	l.Put(l.Maps.LbSlotV1, maps.LBSlotKey{Slots: l.set}, maps.LBBackend{Addr: maps.AddrFrom(bpftest.FarPod[l.v]), Port: swapped(back), Proto: l.proto()})
	row := maps.LBFrontend{Service: 1, Slots: l.set, Count: 1}
	if change != nil {
		change(&row)
	}
	l.Put(l.Maps.LbFrontendV1, l.frontKey(), row)
}

func (l *lane) request() packet.Flow {
	return packet.Flow{SrcMAC: packet.MAC(0xee), DstMAC: packet.MAC(1), Src: bpftest.Outside[l.v], Dst: vip[l.v], SrcPort: 5000, DstPort: front}
}

func (l *lane) build(f packet.Flow, flags string, payload ...byte) []byte {
	if l.udp {
		return f.UDP(payload...)
	}
	return f.TCP(flags, payload...)
}

// tc is what from_netdev does to a frame, and what it tells.
func (l *lane) tc(frame []byte) (verdict uint32, out []byte, events []maps.Event) {
	l.t.Helper()
	verdict, out = l.MustRun(host.FromNetdev, l.dev, frame)
	return verdict, out, l.Events()
}

// goes lets from_netdev send a frame on, and returns what it became.
func (l *lane) goes(frame []byte) packet.Flow {
	l.t.Helper()
	verdict, out, events := l.tc(frame)
	if verdict != bpftest.Redirect || len(bpftest.Drops(events)) > 0 {
		l.t.Fatalf("from_netdev: verdict %d, events %+v", verdict, events)
	}
	return l.flow(out)
}

// flow reads the ends of a frame, as plain as the tests make them but for the option of direct answers.
func (l *lane) flow(frame []byte) (f packet.Flow) {
	ip := frame[linkLayer:]
	size, at := 4, 12
	l4 := int(ip[0]&15) * 4
	if l.v == 1 {
		size, at, l4 = 16, 8, 40
		if ip[6] == unix.IPPROTO_DSTOPTS {
			l4 += 24
		}
	}
	f.SrcMAC, f.DstMAC = packet.MAC(0xee), packet.MAC(1)
	f.Src, _ = netip.AddrFromSlice(ip[at : at+size])
	f.Dst, _ = netip.AddrFromSlice(ip[at+size : at+2*size])
	f.SrcPort, f.DstPort = binary.BigEndian.Uint16(ip[l4:]), binary.BigEndian.Uint16(ip[l4+2:])
	return f
}

// settle makes a flow that is known in both directions and of which all has been told.
func (l *lane) settle() (request, answer packet.Flow) {
	l.t.Helper()
	request = l.request()
	sent := l.goes(l.build(request, "S"))
	answer = sent.Reverse()
	if !l.direct {
		l.goes(l.build(answer, "SA"))
	}
	for range 2 {
		l.goes(l.build(request, "PA", 1))
		if !l.direct {
			l.goes(l.build(answer, "PA", 1))
		}
	}
	return request, answer
}

// sent wants a frame to be sent on in XDP as from_netdev would send it, who would tell nothing of it.
func (l *lane) sent(what string, frame []byte) {
	l.t.Helper()
	verdict, out := l.MustRun(xdp.Fast, 0, frame)
	if verdict != bpftest.XDPRedirect {
		l.t.Errorf("%s: verdict %d, want it sent on", what, verdict)
		return
	}
	l.alike(what, frame, out)
	if err := packet.Check(out); err != nil {
		l.t.Errorf("%s: %v", what, err)
	}
	if !slices.Equal(out[:6], nextHop) {
		l.t.Errorf("%s: to %x, want the next hop", what, out[:6])
	}
}

// alike compares what XDP made of a frame with what from_netdev makes of it.
func (l *lane) alike(what string, frame, out []byte) {
	l.t.Helper()
	verdict, want, events := l.tc(frame)
	if verdict != bpftest.Redirect || len(events) > 0 {
		l.t.Errorf("%s: XDP sends what from_netdev answers with verdict %d, events %+v", what, verdict, events)
	}
	if !slices.Equal(out[12:], want[12:]) {
		l.t.Errorf("%s:\nXDP         %x\nfrom_netdev %x", what, out, want)
	}
}

// left wants a frame to pass untouched.
func (l *lane) left(what string, frame []byte) {
	l.t.Helper()
	if verdict, out := l.MustRun(xdp.Fast, 0, frame); verdict != bpftest.XDPPass || !slices.Equal(out, frame) {
		l.t.Errorf("%s: verdict %d, bytes changed: %v; want it left to tc", what, verdict, !slices.Equal(out, frame))
	}
}

// accelerated says whether this kind of flow is: datagrams that are to be answered directly say each time for which service they are.
func (l *lane) accelerated() bool { return !l.direct || !l.udp }

// A flow is sent on in XDP once from_netdev has seen it in both directions, and not before.
func TestFastSends(t *testing.T) {
	eachLane(t, func(l *lane) {
		request := l.request()
		l.left("nobody's first packet", l.build(request, "S"))
		sent := l.goes(l.build(request, "S"))
		answer := sent.Reverse()
		if !l.udp {
			l.left("the same again, opening", l.build(request, "S"))
			l.left("a flag that has not been told", l.build(request, "A"))
		}
		if l.direct {
			l.goes(l.build(request, "A"))
			l.left("an answer, which goes another way", l.build(answer, "SA"))
		} else {
			l.left("the first answer", l.build(answer, "SA"))
			l.goes(l.build(answer, "SA"))
		}
		request, answer = l.settle()
		if !l.accelerated() {
			l.left("a datagram that has to say its service", l.build(request, ""))
			return
		}
		before, forwarded := l.counts(), l.Metric(0)
		var bytes, n uint64
		for _, payload := range [][]byte{nil, {1}, {1, 2}, []byte("an odd payload of bytes"), make([]byte, 1400)} {
			frames := [][]byte{l.build(request, "A", payload...)}
			if !l.direct {
				frames = append(frames, l.build(answer, "PA", payload...))
			}
			for _, frame := range frames {
				l.sent(fmt.Sprintf("%d bytes", len(payload)), frame)
				padded := append(slices.Clone(frame), make([]byte, 20)...)
				l.padded("padded", padded, frame)
				bytes, n = bytes+uint64(len(frame)+len(padded)), n+2
			}
		}
		if got := l.counts(); got[0].Count-before[0].Count != n || got[0].Bytes-before[0].Bytes != bytes {
			t.Errorf("counted %+v from %+v, want %d packets of %d bytes more", got, before, n, bytes)
		}
		if got := l.Metric(0) - forwarded; got != 2*n { // half of them by from_netdev
			t.Errorf("%d packets forwarded, want %d", got, 2*n)
		}
	})
}

// padded is sent of a frame that is longer than its packet.
func (l *lane) padded(what string, frame, packet []byte) {
	l.t.Helper()
	verdict, out := l.MustRun(xdp.Fast, 0, frame)
	if verdict != bpftest.XDPRedirect || len(out) != len(frame) {
		l.t.Errorf("%s: verdict %d, %d bytes of %d", what, verdict, len(out), len(packet))
		return
	}
	l.alike(what, frame, out)
}

func (l *lane) counts() (sum [maps.FastLeft + 1]maps.Metric) {
	l.t.Helper()
	for key := range sum {
		var cpus []maps.Metric
		if err := l.Maps.XdpCountV1.Lookup(uint32(key), &cpus); err != nil {
			l.t.Fatal(err)
		}
		for _, c := range cpus {
			sum[key].Count, sum[key].Bytes = sum[key].Count+c.Count, sum[key].Bytes+c.Bytes
		}
	}
	return sum
}

// rows are the rows of a map.
func rows[K comparable, V any](t *testing.T, m *ebpf.Map) map[K]V {
	t.Helper()
	out := map[K]V{}
	var k K
	var v V
	for it := m.Iterate(); it.Next(&k, &v); {
		out[k] = v
	}
	return out
}

// conn changes the row of the lane's only connection.
func (l *lane) conn(change func(*maps.CTValue)) {
	l.t.Helper()
	for k, v := range l.Connections() {
		change(&v)
		l.Put(l.Maps.CtV1, k, v)
	}
}

// nat changes, or with nil deletes, the row of the lane's flow in one direction.
func (l *lane) nat(dir uint8, change func(*maps.NATValue)) {
	l.t.Helper()
	for k, v := range rows[maps.NATKey, maps.NATValue](l.t, l.Maps.NatV2) {
		if k.Dir != dir {
			continue
		}
		if change == nil {
			if err := l.Maps.NatV2.Delete(k); err != nil {
				l.t.Fatal(err)
			}
			continue
		}
		change(&v)
		l.Put(l.Maps.NatV2, k, v)
	}
}

// What the rows do not say of a packet, or not any more, is not for XDP to decide.
func TestFastLeaves(t *testing.T) {
	eachLane(t, func(l *lane) {
		if !l.accelerated() {
			return
		}
		states := []struct {
			what   string
			change func(l *lane)
			only   string // "request": answers go on; "datagrams", "segments": only those are left
		}{
			{"policy has changed", func(l *lane) { l.PutState(maps.State{Epoch: 7}) }, ""},
			{"the connection has expired", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Expires = 1 }) }, ""},
			{"the connection is closing", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Flags |= maps.CTFinOrig }) }, ""},
			{"the connection is closed", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Flags |= maps.CTRst }) }, ""},
			{"the connection is not on record", func(l *lane) {
				for k := range l.Connections() {
					if err := l.Maps.CtV1.Delete(k); err != nil {
						l.t.Fatal(err)
					}
				}
			}, ""},
			{"it is time to tell of it again", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Reported = [2]uint64{} }) }, ""},
			{"nobody knows who the client is", func(l *lane) { l.conn(func(v *maps.CTValue) { v.SrcIdentity = 0 }) }, ""},
			{"the backend is the node", func(l *lane) { l.conn(func(v *maps.CTValue) { v.DstIdentity = bpftest.IDHost }) }, ""},
			{"an end is a workload of this node", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Flags |= maps.CTHere << 1 }) }, ""},
			{"the backend is behind the overlay", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Flags |= maps.CTThere << 1 }) }, ""},
			{"the connection was no service's", func(l *lane) { l.conn(func(v *maps.CTValue) { v.Flags &^= maps.CTService }) }, "request"},
			{"the translation is not on record", func(l *lane) { l.nat(maps.NATForward, nil) }, ""},
			{"its other half is not", func(l *lane) { l.nat(maps.NATReverse, nil) }, ""},
			{"the halves are of two flows", func(l *lane) { l.nat(maps.NATReverse, func(v *maps.NATValue) { v.Created++ }) }, ""},
			{"no service has the address", func(l *lane) {
				if err := l.Maps.LbAddressV1.Delete(maps.AddrFrom(vip[l.v])); err != nil {
					l.t.Fatal(err)
				}
			}, "request"},
			{"the service has other backends", func(l *lane) { l.serve(nil) }, "datagrams"},
			{"the service is gone", func(l *lane) {
				if err := l.Maps.LbFrontendV1.Delete(l.frontKey()); err != nil {
					l.t.Fatal(err)
				}
			}, "datagrams"},
			{"the service is not for the client", func(l *lane) {
				l.set--
				l.serve(func(f *maps.LBFrontend) { f.Ranges = 3 })
			}, "datagrams"},
			{"XDP must not send by the device", func(l *lane) { l.sends(false) }, ""},
		}
		for _, x := range states {
			l.clear()
			request, answer := l.settle()
			l.sent("before", l.build(request, "A", 1))
			x.change(l)
			if x.what != "policy has changed" && x.what != "XDP must not send by the device" { // these count at once
				l.forget()
			}
			if x.only == "datagrams" && !l.udp {
				l.sent(x.what, l.build(request, "A", 1))
			} else {
				before := l.counts()[maps.FastLeft].Count
				l.left(x.what, l.build(request, "A", 1))
				if l.counts()[maps.FastLeft].Count == before && x.what != "no service has the address" {
					t.Errorf("%s: not counted as left to tc", x.what)
				}
			}
			if !l.direct {
				if x.only != "" {
					l.sent(x.what+", an answer", l.build(answer, "A", 1))
				} else {
					l.left(x.what+", an answer", l.build(answer, "A", 1))
				}
			}
		}
	})
}

// What is not a plain packet in the middle of a flow is from_netdev's.
func TestFastLeavesOddPackets(t *testing.T) {
	eachLane(t, func(l *lane) {
		if !l.accelerated() {
			return
		}
		request, _ := l.settle()
		plain := l.build(request, "A", make([]byte, 64)...)
		l.sent("a plain one", plain)
		odd := func(what string, change func(b []byte) []byte) { l.left(what, change(slices.Clone(plain))) }
		odd("with a VLAN tag", func(b []byte) []byte { return tagged(b, vlan) })
		odd("of no IP version", func(b []byte) []byte { return typed(b, 0x0806) })
		odd("of the other IP version", func(b []byte) []byte { return typed(b, [2]uint16{0x86dd, 0x0800}[l.v]) })
		for n := linkLayer; n < len(plain); n++ {
			l.left(fmt.Sprintf("cut off after %d bytes", n), plain[:n])
		}
		last := request
		last.TTL = 1
		l.left("at its last hop", l.build(last, "A"))
		first, later := packet.Fragment(plain, 40, 7)
		l.left("a first fragment", first)
		l.left("a later fragment", later)
		if !l.udp {
			for _, flags := range []string{"S", "SA", "FA", "RA", "R", "SF", "U"} {
				l.left("with flags "+flags, l.build(request, flags))
			}
		}
		odd("whose sum is left to the device", func(b []byte) []byte {
			at, l4 := 16, linkLayer+20+20*l.v
			if l.udp {
				at = 6
			}
			binary.BigEndian.PutUint16(b[l4+at:], l.pseudo(b, l4))
			return b
		})
		other := request
		other.SrcPort++
		l.left("of a flow that is not known", l.build(other, "A"))
		l.left("too big for the way", l.build(request, "A", make([]byte, 1481)...))
		l.left("an echo", request.EchoRequest(1))
		l.left("an error", request.Unreachable(plain))
		if l.v == 0 {
			odd("with options", func(b []byte) []byte { b[linkLayer] = 0x46; return b })
		}
		l.NS.Run("ip", "neigh", "del", gateway[l.v].String(), "dev", "d4")
		l.forget()
		l.left("whose next hop is not known", plain)
		l.NS.Run("ip", "neigh", "add", gateway[l.v].String(), "lladdr", nextHop.String(), "dev", "d4", "nud", "permanent")
		l.goes(plain) // on a slow machine it is time to tell of the flow again
		l.sent("after all that", plain)
	})
}

// pseudo is the sum of a packet's pseudo header alone.
func (l *lane) pseudo(frame []byte, l4 int) uint16 {
	addrs := frame[linkLayer+12 : linkLayer+20]
	if l.v == 1 {
		addrs = frame[linkLayer+8 : linkLayer+40]
	}
	s := uint32(l.proto()) + uint32(len(frame)-l4)
	for i := 0; i < len(addrs); i += 2 {
		s += uint32(binary.BigEndian.Uint16(addrs[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// A datagram without a checksum keeps having none.
func TestFastWithoutChecksum(t *testing.T) {
	l := newLane(t, false)
	l.udp = true
	l.clear()
	request, answer := l.settle()
	for _, f := range []packet.Flow{request, answer} {
		frame := l.build(f, "", 1, 2, 3)
		copy(frame[linkLayer+20+6:], []byte{0, 0})
		verdict, out := l.MustRun(xdp.Fast, 0, frame)
		if verdict != bpftest.XDPRedirect {
			t.Fatalf("verdict %d", verdict)
		}
		l.alike("no checksum", frame, out)
	}
}

// Carried in XDP alone, a connection does not expire, and is accounted for.
func TestFastKeepsAlive(t *testing.T) {
	l := newLaneWith(t, false, maps.ConfigAccounting)
	l.clear()
	request, answer := l.settle()
	l.conn(func(v *maps.CTValue) { v.Expires -= 3600e9; v.Packets, v.Bytes = [2]uint64{}, [2]uint64{} })
	var was maps.CTValue
	l.conn(func(v *maps.CTValue) { was = *v })
	frames := [2][]byte{l.build(request, "A", 1, 2), l.build(answer, "A")}
	for _, frame := range frames {
		if verdict, _ := l.MustRun(xdp.Fast, 0, frame); verdict != bpftest.XDPRedirect {
			t.Fatalf("verdict %d", verdict)
		}
	}
	l.conn(func(v *maps.CTValue) {
		if v.Expires < was.Expires+3599e9 {
			t.Errorf("expires at %d, was %d", v.Expires, was.Expires)
		}
		if v.Packets != [2]uint64{1, 1} || v.Bytes != [2]uint64{uint64(len(frames[0])), uint64(len(frames[1]))} {
			t.Errorf("%v packets, %v bytes", v.Packets, v.Bytes)
		}
	})
}

// What the rows have said counts for a moment, and no longer: of the flow that it was said of.
func TestFastAsksAgain(t *testing.T) {
	eachLane(t, func(l *lane) {
		if !l.accelerated() {
			return
		}
		request, _ := l.settle()
		frame := l.build(request, "A", 1)
		began := time.Now()
		l.sent("first", frame)
		l.nat(maps.NATForward, nil)
		if verdict, out := l.MustRun(xdp.Fast, 0, frame); verdict != bpftest.XDPRedirect {
			if took := time.Since(began); took < 80*time.Millisecond { // an emulated machine takes longer than the moment lasts
				t.Errorf("right after, %v: verdict %d", took, verdict)
			}
		} else if err := packet.Check(out); err != nil {
			t.Error(err)
		}
		other := request
		other.SrcPort++
		l.left("of another flow", l.build(other, "A", 1))
		l.left("longer than any before", l.build(request, "A", 1, 2))
		if !l.udp {
			l.left("with a flag that has not been told", l.build(request, "UA", 1))
		}
		if !l.udp {
			l.left("with what ends or opens a connection", l.build(request, "S"))
			l.left("behind that", frame)
			return
		}
		time.Sleep(150 * time.Millisecond)
		l.left("a moment later", frame)
	})
}

// What a workload sent under the node's address is answered by way of tc.
func TestFastLeavesMasquerade(t *testing.T) {
	for v := range 2 {
		l := newLane(t, false)
		l.v = v
		l.clear()
		for dir, k := range map[uint8]maps.NATKey{
			maps.NATForward: {Src: maps.AddrFrom(l.Pod1.Addr(v)), Dst: maps.AddrFrom(bpftest.Outside[v]), Sport: swapped(4000), Dport: swapped(443), Proto: 6},
			maps.NATReverse: {Src: maps.AddrFrom(bpftest.Outside[v]), Dst: maps.AddrFrom(bpftest.Node1[v]), Sport: swapped(443), Dport: swapped(20001), Proto: 6},
		} {
			k.Dir = dir
			to := maps.NATValue{Src: maps.AddrFrom(bpftest.Node1[v]), Dst: k.Dst, Sport: swapped(20001), Dport: k.Dport, Created: 1}
			if dir == maps.NATReverse {
				to = maps.NATValue{Src: k.Src, Dst: maps.AddrFrom(l.Pod1.Addr(v)), Sport: k.Sport, Dport: swapped(4000), Created: 1}
			}
			l.Put(l.Maps.NatV2, k, to)
		}
		f := packet.Flow{SrcMAC: packet.MAC(0xee), DstMAC: packet.MAC(1), Src: bpftest.Outside[v], Dst: bpftest.Node1[v], SrcPort: 443, DstPort: 20001}
		l.left("an answer to a workload", f.TCP("A"))
	}
}

// Where each packet has to say for which service it is, by going inside another one, none is sent on in XDP.
func TestFastLeavesDispatched(t *testing.T) {
	l := newLaneWith(t, true, maps.ConfigDSRIPIP)
	for v := range 2 {
		l.v = v
		l.clear()
		request := l.request()
		for _, flags := range []string{"S", "PA", "PA"} {
			if verdict, _, _ := l.tc(l.build(request, flags)); verdict != bpftest.Redirect {
				t.Fatalf("%s: verdict %d of from_netdev", flags, verdict)
			}
		}
		l.left("a segment that goes inside another packet", l.build(request, "PA", 1))
	}
}

// Denied sources end in the same program.
func TestFastDenies(t *testing.T) {
	l := newLane(t, false)
	l.clear()
	request, _ := l.settle()
	l.sent("allowed", l.build(request, "A"))
	deny(t, l.Env, request.Src.String()+"/32")
	if verdict, _ := l.MustRun(xdp.Fast, 0, l.build(request, "A")); verdict != bpftest.XDPDrop {
		t.Errorf("denied: verdict %d", verdict)
	}
}

// Whatever a packet is: what XDP sends, from_netdev would have sent, the same bytes and without a word.
func TestFastDecidesNothing(t *testing.T) {
	const seed, each = 20, 1500
	eachLane(t, func(l *lane) {
		r := rand.New(rand.NewPCG(seed, uint64(l.v)))
		var corpus [][]byte
		sent := 0
		for i := range each {
			if i%100 == 0 { // what was sent may have ended the flow
				l.clear()
				request, answer := l.settle()
				corpus = [][]byte{l.build(request, "A", 1, 2, 3), l.build(request, "PA"), l.build(answer, "A", make([]byte, 100)...)}
			}
			frame := slices.Clone(corpus[r.IntN(len(corpus))])
			for range r.IntN(3) {
				frame[linkLayer+r.IntN(min(64, len(frame)-linkLayer))] ^= 1 << r.IntN(8)
			}
			if r.IntN(8) == 0 {
				frame = frame[:linkLayer+40+r.IntN(len(frame)-linkLayer-40)] // of less the kernel makes no packet
			}
			verdict, out := l.MustRun(xdp.Fast, 0, frame)
			switch verdict {
			case bpftest.XDPRedirect:
				sent++
				l.alike(fmt.Sprintf("%x", frame), frame, out)
			case bpftest.XDPPass:
				if !slices.Equal(out, frame) {
					l.t.Errorf("passes, but changed: %x to %x", frame, out)
				}
				if r.IntN(4) == 0 {
					l.tc(frame) // rows change
				}
			default:
				l.t.Errorf("verdict %d of %x", verdict, frame)
			}
			if l.t.Failed() {
				return
			}
		}
		if l.accelerated() && sent < each/20 {
			l.t.Errorf("only %d of %d were sent on", sent, each)
		}
	})
}
