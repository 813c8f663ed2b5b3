package xdp_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/xdp"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// deny puts a list into the maps, and the state that goes with it.
func deny(t *testing.T, e *bpftest.Env, cidrs ...string) {
	t.Helper()
	state := maps.PrefilterState{Revision: 1}
	var exact []maps.Addr
	for _, c := range cidrs {
		switch p := netip.MustParsePrefix(c); {
		case p.IsSingleIP():
			exact = append(exact, maps.AddrFrom(p.Addr()))
		case p.Addr().Is4():
			state.Flags |= maps.PrefilterPrefix4
			e.Put(e.Maps.PrefilterV1, maps.PrefilterKeyFrom(p), uint8(0))
		default:
			state.Flags |= maps.PrefilterPrefix6
			e.Put(e.Maps.PrefilterV1, maps.PrefilterKeyFrom(p), uint8(0))
		}
	}
	e.Put(e.Maps.PrefilterStateV1, uint32(0), state)
	if len(exact) > 0 {
		denyAddrs(t, e, exact)
	}
}

// denyAddrs puts a hash of these addresses, of a size of its own, where the program looks for one.
func denyAddrs(t *testing.T, e *bpftest.Env, addrs []maps.Addr) {
	t.Helper()
	set, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 16, ValueSize: 1, MaxEntries: 64, Flags: unix.BPF_F_NO_PREALLOC})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = set.Close() }()
	for _, a := range addrs {
		e.Put(set, a, uint8(0))
	}
	e.Put(e.Maps.PrefilterExactV1, uint32(0), set)
}

// from is a frame that an address sent to the node.
func from(src string) []byte {
	f := packet.Flow{SrcMAC: packet.MAC(0x77), DstMAC: packet.MAC(1), Src: netip.MustParseAddr(src), Dst: bpftest.Node1[0], SrcPort: 1000, DstPort: 80}
	if f.Src.Is6() {
		f.Dst = bpftest.Node1[1]
	}
	return f.TCP("S", 1, 2, 3)
}

// tagged puts VLAN tags behind the MAC addresses, outermost first.
func tagged(frame []byte, types ...uint16) []byte {
	out := slices.Clone(frame[:12])
	for i, typ := range types {
		out = binary.BigEndian.AppendUint16(out, typ)
		out = binary.BigEndian.AppendUint16(out, uint16(100+i))
	}
	return append(out, frame[12:]...)
}

// typed changes what the frame says that it carries.
func typed(frame []byte, typ uint16) []byte {
	out := slices.Clone(frame)
	binary.BigEndian.PutUint16(out[12:], typ)
	return out
}

const (
	vlan    = 0x8100
	service = 0x88a8
)

// mapped is an IPv6 packet whose source is an IPv4 address in disguise.
func mapped(v4 string) []byte {
	frame := from("2001:db8:9::9")
	a := netip.MustParseAddr(v4).As16()
	copy(frame[14+8:], a[:])
	return frame
}

func TestPrefilter(t *testing.T) {
	v4, v6 := from("203.0.113.7"), from("2001:db8:7::7")
	for _, x := range []struct {
		what  string
		deny  []string
		frame []byte
		drop  bool
	}{
		{"nothing is denied", nil, v4, false},
		{"IPv4 address", []string{"203.0.113.7/32"}, v4, true},
		{"another IPv4 address", []string{"203.0.113.6/32", "203.0.113.8/32"}, v4, false},
		{"IPv6 address", []string{"2001:db8:7::7/128"}, v6, true},
		{"another IPv6 address", []string{"2001:db8:7::8/128"}, v6, false},
		{"IPv4 prefix", []string{"203.0.113.0/24"}, v4, true},
		{"the last address of a prefix", []string{"203.0.113.0/29"}, v4, true},
		{"the first address behind a prefix", []string{"203.0.113.0/30", "203.0.113.4/31", "203.0.113.6/32"}, v4, false},
		{"IPv4 /31", []string{"203.0.113.6/31"}, v4, true},
		{"IPv6 prefix", []string{"2001:db8:7::/48"}, v6, true},
		{"another IPv6 prefix", []string{"2001:db8:8::/48"}, v6, false},
		{"IPv6 /127", []string{"2001:db8:7::6/127"}, v6, true},
		{"all of IPv4", []string{"0.0.0.0/0"}, v4, true},
		{"all of IPv4 is no IPv6", []string{"0.0.0.0/0"}, v6, false},
		{"all of IPv6", []string{"::/0"}, v6, true},
		{"all of IPv6 is no IPv4", []string{"::/0"}, v4, false},
		{"all of IPv6, IPv4 denied elsewhere", []string{"::/0", "198.51.100.0/24"}, v4, false},
		{"a prefix and an address, by the prefix", []string{"203.0.113.0/24", "203.0.113.8/32"}, v4, true},
		{"IPv4-mapped: nobody's on the wire", []string{"203.0.113.7/32", "203.0.113.0/24", "0.0.0.0/0"}, mapped("203.0.113.7"), false},
		{"IPv4-mapped under all of IPv6", []string{"::/0"}, mapped("203.0.113.7"), false},
		{"VLAN, IPv4", []string{"203.0.113.0/24"}, tagged(v4, vlan), true},
		{"VLAN, IPv6", []string{"2001:db8:7::7/128"}, tagged(v6, vlan), true},
		{"VLAN, allowed", []string{"203.0.114.0/24"}, tagged(v4, vlan), false},
		{"VLAN in VLAN", []string{"203.0.113.0/24"}, tagged(v4, service, vlan), true},
		{"three tags are not understood", []string{"203.0.113.0/24"}, tagged(v4, service, vlan, vlan), false},
		{"neither IPv4 nor IPv6", []string{"0.0.0.0/0", "::/0"}, typed(v4, 0x0806), false},
		{"the other IP version's header", []string{"203.0.113.7/32"}, typed(v4, 0x86dd), false},
	} {
		t.Run(x.what, func(t *testing.T) {
			e := bpftest.Load(t, bpftest.Config{Devices: 1})
			deny(t, e, x.deny...)
			run(t, e, xdp.Prefilter, x.frame, x.drop)
			counted(t, e, x.frame, x.drop)
		})
	}
}

// run runs a program and checks verdict and bytes.
func run(t *testing.T, e *bpftest.Env, prog string, frame []byte, drop bool) {
	t.Helper()
	verdict, out := e.MustRun(prog, e.Dev[0], frame)
	want := bpftest.XDPPass
	if drop {
		want = bpftest.XDPDrop
	}
	if verdict != want || !slices.Equal(out, frame) {
		t.Errorf("%d bytes: verdict %d, want %d; bytes changed: %v", len(frame), verdict, want, !slices.Equal(out, frame))
	}
}

// counted checks that a packet was counted if, and only if, it was dropped.
func counted(t *testing.T, e *bpftest.Env, frame []byte, dropped bool) {
	t.Helper()
	var cpus []maps.Metric
	if err := e.Maps.PrefilterCountV1.Lookup(uint32(0), &cpus); err != nil {
		t.Fatal(err)
	}
	var got, want maps.Metric
	for _, c := range cpus {
		got.Count, got.Bytes = got.Count+c.Count, got.Bytes+c.Bytes
	}
	if dropped {
		want = maps.Metric{Count: 1, Bytes: uint64(len(frame))}
	}
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// A frame cut anywhere is judged once its IP header is whole, and passes before that.
func TestPrefilterTruncated(t *testing.T) {
	e := bpftest.Load(t, bpftest.Config{Devices: 1})
	deny(t, e, "203.0.113.0/24", "2001:db8:7::7/128")
	const eth = 14 // the kernel runs nothing on less
	for _, x := range []struct {
		frame []byte
		whole int
	}{
		{from("203.0.113.7"), eth + 20}, {from("2001:db8:7::7"), eth + 40},
		{tagged(from("203.0.113.7"), vlan), eth + 4 + 20}, {tagged(from("2001:db8:7::7"), service, vlan), eth + 8 + 40},
	} {
		for n := eth; n <= len(x.frame); n++ {
			run(t, e, xdp.Prefilter, x.frame[:n], n >= x.whole)
		}
	}
}

// Where packets begin with their IP header.
func TestPrefilterWithoutLinkLayer(t *testing.T) {
	e := bpftest.Load(t, bpftest.Config{Devices: 1})
	deny(t, e, "203.0.113.0/24", "2001:db8:7::7/128", "8.0.0.0/8")
	for src, drop := range map[string]bool{"203.0.113.7": true, "203.0.114.7": false, "2001:db8:7::7": true, "2001:db8:7::8": false,
		"8.0.69.0": true /* where another frame would have its type: 0x0800, IPv4 */} {
		run(t, e, xdp.PrefilterL3, from(src)[14:], drop)
	}
	odd := from("203.0.113.7")[14:]
	odd[0] = 0x75 // of no known version
	run(t, e, xdp.PrefilterL3, odd, false)
}

// The trie is not asked for what the state says it does not have: that keeps it out of the way.
func TestPrefilterState(t *testing.T) {
	e := bpftest.Load(t, bpftest.Config{Devices: 1})
	deny(t, e, "203.0.113.7/32", "198.51.100.0/24", "2001:db8:7::/48")
	frames := map[uint32][]byte{maps.PrefilterPrefix4: from("198.51.100.9"), maps.PrefilterPrefix6: from("2001:db8:7::7")}
	for _, flags := range []uint32{0, maps.PrefilterPrefix4, maps.PrefilterPrefix6, maps.PrefilterPrefix4 | maps.PrefilterPrefix6} {
		e.Put(e.Maps.PrefilterStateV1, uint32(0), maps.PrefilterState{Flags: flags})
		for bit, frame := range frames {
			run(t, e, xdp.Prefilter, frame, flags&bit != 0)
		}
		run(t, e, xdp.Prefilter, from("203.0.113.7"), true) // addresses are there or not
	}
}
