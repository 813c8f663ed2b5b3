package event

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func record(r layout.Event) []byte {
	b := make([]byte, recordSize)
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&r)), recordSize))
	return b
}

var full = layout.Event{
	Type: layout.EventDrop, Code: 133, Flags: layout.EventL4 | layout.EventIngress, Reason: 2, Proto: 6, TcpFlags: 2,
	EthProto: be16(0x86dd), Sport: be16(40000), Dport: be16(80), SrcEp: 3, DstEp: 7, SrcIdentity: 1001, DstIdentity: 1002,
	Rule: 300, Ifindex: 42, Len: 74, Vni: 1001, Src: layout.AddrFrom(netip.MustParseAddr("10.0.0.3")),
	Dst: layout.AddrFrom(netip.MustParseAddr("fd00::7")), Tunnel: layout.AddrFrom(netip.MustParseAddr("192.0.2.1")),
	SrcMac: [6]byte{2, 3}, DstMac: [6]byte{2, 7}, Line: 123, File: 4,
}

func TestDecode(t *testing.T) {
	r := full
	r.Time = maps.Now()
	want := model.Event{
		Type: 1, Code: 133, Flags: model.EventL4 | model.EventIngress, Reason: 2, Proto: 6, TCPFlags: 2, EthProto: 0x86dd,
		SrcPort: 40000, DstPort: 80, SrcEndpoint: 3, DstEndpoint: 7, SrcIdentity: 1001, DstIdentity: 1002, Rule: 300, IfIndex: 42,
		Len: 74, VNI: 1001, Src: netip.MustParseAddr("10.0.0.3"), Dst: netip.MustParseAddr("fd00::7"), Tunnel: netip.MustParseAddr("192.0.2.1"),
		SrcMAC: [6]byte{2, 3}, DstMAC: [6]byte{2, 7}, Line: 123, File: 4, CPU: 5,
	}
	d := decoder{cpu: 5}
	got := model.Event{Xlated: netip.MustParseAddr("1.2.3.4")} // of an earlier event
	if !d.decode(record(r), &got) {
		t.Fatal("not decoded")
	}
	if age := time.Since(got.Time); age < -time.Second || age > time.Second {
		t.Errorf("time is off by %v", age)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.IgnoreFields(model.Event{}, "Time")); diff != "" {
		t.Error(diff)
	}
	for _, n := range []int{0, 1, recordSize - 1, recordSize + 1} {
		if d.decode(make([]byte, n), &got) {
			t.Errorf("a record of %d bytes was taken", n)
		}
	}
}

func sockRecord(r layout.SockEvent) []byte {
	b := make([]byte, sockSize)
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&r)), sockSize))
	return b
}

var talk = layout.SockEvent{
	Type: layout.EventTraceSock, Flags: layout.EventL4, Proto: 6, Front: layout.AddrFrom(netip.MustParseAddr("172.20.0.1")), FrontPort: be16(80),
	Back: layout.AddrFrom(netip.MustParseAddr("10.0.0.3")), BackPort: be16(8080), Socket: 11, Cgroup: 12, Netns: 13, Service: 14,
}

// Of a socket one end is known: the service or the backend, before or behind the socket.
func TestDecodeSocket(t *testing.T) {
	front, back := netip.MustParseAddr("172.20.0.1"), netip.MustParseAddr("10.0.0.3")
	for code, want := range map[uint8]model.Event{
		layout.SockPreFwd:  {Dst: front, DstPort: 80},
		layout.SockPostFwd: {Dst: back, DstPort: 8080},
		layout.SockPreRev:  {Src: back, SrcPort: 8080},
		layout.SockPostRev: {Src: front, SrcPort: 80},
	} {
		want.Type, want.Code, want.Flags, want.Proto, want.CPU = model.EventSock, code, model.EventL4, 6, 3
		want.Front, want.Socket, want.Cgroup, want.Netns = netip.AddrPortFrom(front, 80), 11, 12, 13
		r := talk
		r.Code = code
		d := decoder{cpu: 3}
		var got model.Event
		if !d.decode(sockRecord(r), &got) {
			t.Fatal("not decoded")
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.IgnoreFields(model.Event{}, "Time")); diff != "" {
			t.Errorf("point %d: %s", code, diff)
		}
	}
	r := talk
	r.Type, r.Code, r.Back, r.File, r.Line = layout.EventDrop, layout.DropNoService, layout.Addr{}, 16, 77
	var got model.Event
	if d := (decoder{}); !d.decode(sockRecord(r), &got) || got.Type != model.EventDrop || got.Code != 158 || got.Dst != front || got.DstPort != 80 || got.Line != 77 {
		t.Errorf("a refusal: %+v", got)
	}
}

func decoded(t testing.TB, b []byte) {
	var d decoder
	var e model.Event
	if d.decode(b, &e) != (len(b) == recordSize || len(b) == sockSize) {
		t.Error("a record is one by its size alone")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(record(full))
	f.Add(sockRecord(talk))
	f.Fuzz(func(t *testing.T, b []byte) { decoded(t, b) })
}

// TestCase37Records: records of the kernel's rings, of any length and content.
func TestCase37Records(t *testing.T) {
	c := score.Start(t, "37", "fuzz the kernel's records")
	r, good := c.Rand(), [][]byte{record(full), sockRecord(talk)}
	cost := mutate.Each(t, score.Size(50_000, 10_000_000), time.Minute, func() []byte {
		b := mutate.Text(r, good)
		if r.IntN(2) == 0 {
			size := []int{recordSize, sockSize}[r.IntN(2)]
			b = append(b, make([]byte, size)...)[:size]
		}
		return b
	}, func(b []byte) { decoded(t, b) })
	c.Count(cost.Tried, "records")
	c.Say("%v", cost)
}

func TestDecodeAllocatesNothing(t *testing.T) {
	d, b := decoder{}, record(full)
	var e model.Event
	if n := testing.AllocsPerRun(1000, func() { d.decode(b, &e) }); n != 0 {
		t.Errorf("%v allocations per event", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	d, r := decoder{}, record(full)
	var e model.Event
	b.ReportAllocs()
	for b.Loop() {
		d.decode(r, &e)
	}
}
