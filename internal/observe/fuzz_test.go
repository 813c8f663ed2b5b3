package observe

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// decoded: no event, however wrong, may crash the agent or yield a flow that cannot be sent.
func decoded(t testing.TB, o *Observer, e model.Event) {
	o.Handle(e)
	r, ok := o.Flows().Get(o.Flows().Written() - 1)
	if !ok {
		t.Fatal("no flow")
	}
	if _, err := proto.Marshal(r.Flow()); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(1), uint8(133), uint8(0), uint8(0xff), uint8(6), uint32(1001), []byte{10, 0, 1, 1}, []byte{10, 0, 1, 2})
	f.Add(uint8(4), uint8(0), uint8(1), uint8(0), uint8(58), uint32(0), make([]byte, 16), []byte(nil))
	f.Fuzz(func(t *testing.T, typ, code, reason, flags, p uint8, rule uint32, src, dst []byte) {
		s, _ := netip.AddrFromSlice(src)
		d, _ := netip.AddrFromSlice(dst)
		decoded(t, newObserver(t, Config{Capacity: 1}), model.Event{Type: typ, Code: code, Reason: reason, Flags: model.EventFlags(flags), Proto: p, Rule: model.RuleID(rule), Src: s, Dst: d, Tunnel: s, Line: 1})
	})
}

// TestCase37Events: random events.
func TestCase37Events(t *testing.T) {
	c := score.Start(t, "37", "fuzz events to flows")
	r, o := c.Rand(), newObserver(t, Config{Capacity: 15})
	addr := func() netip.Addr {
		known := []netip.Addr{app1, app2, app2b, out, {}}
		if n := r.IntN(len(known) + 1); n < len(known) {
			return known[n]
		}
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return netip.AddrFrom16(b)
	}
	byte8 := func() uint8 { return uint8(r.Uint32()) }
	cost := mutate.Each(t, score.Size(20_000, 10_000_000), 2*time.Minute, func() model.Event {
		return model.Event{Type: []uint8{1, 4, 5, byte8()}[r.IntN(4)], Code: byte8(), Reason: byte8(), Flags: model.EventFlags(byte8()), Proto: []uint8{1, 6, 17, 58, 132, byte8()}[r.IntN(6)],
			TCPFlags: byte8(), EthProto: uint16(r.Uint32()), SrcPort: uint16(r.Uint32()), DstPort: uint16(r.Uint32()), SrcEndpoint: uint16(r.Uint32()), DstEndpoint: uint16(r.Uint32()),
			SrcIdentity: model.IdentityID(r.Uint32()), DstIdentity: model.IdentityID(2001 + r.IntN(3)), Rule: model.RuleID(999 + r.IntN(5)), IfIndex: r.Uint32N(9), Len: r.Uint32(), VNI: r.Uint32(),
			Src: addr(), Dst: addr(), Xlated: addr(), Tunnel: addr(), File: byte8(), Line: uint16(r.Uint32()), Time: time.Unix(r.Int64N(1<<40)-1<<39, 0)}
	}, func(e model.Event) { decoded(t, o, e) })
	c.Count(cost.Tried, "events")
	c.Say("%v", cost)
}
