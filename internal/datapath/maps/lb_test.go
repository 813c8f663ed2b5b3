package maps

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
)

var (
	frontend = model.Frontend{Addr: netip.MustParseAddr("172.20.0.1"), Port: 80, Proto: 6}
	slotSet  = SlotSet{
		Slots: []Slot{{To: netip.MustParseAddrPort("10.0.0.1:8080"), Proto: 6}, {To: netip.MustParseAddrPort("10.0.0.2:8080"), Proto: 6},
			{To: netip.MustParseAddrPort("10.0.0.1:8080"), Proto: 6}},
		Table:   append(make([]uint16, 127), 2),
		Members: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("10.0.0.9:8080")},
	}
)

// What was written about services is what is read.
func TestServicesRoundTrip(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	fronts := map[model.Frontend]Frontend{
		frontend: {Service: 7, Type: model.ServiceLoadBalancer, Slots: 3, Count: 3, Table: 128, Affinity: 10800, Ranges: 2, RangesDeny: true, Local: true},
		{Addr: netip.MustParseAddr("0.0.0.0"), Port: 30080, Proto: 17, Scope: model.ScopeInternal}: {Service: 8},
		{Addr: netip.MustParseAddr("::"), Port: 30080, Proto: 132}:                                 {Service: 9},
	}
	for f, v := range fronts {
		must(t, m.PutFrontend(f, v))
	}
	addrs := map[netip.Addr]FrontendAddr{netip.MustParseAddr("0.0.0.0"): {}, netip.MustParseAddr("::"): {Node: true}, frontend.Addr: {VIP: true}}
	for a, v := range addrs {
		must(t, m.PutFrontendAddr(a, v))
	}
	must(t, m.PutSlots(3, slotSet))
	ranges := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	must(t, m.PutRanges(2, ranges))
	gotFronts, err := m.Frontends()
	must(t, err)
	gotAddrs, err := m.FrontendAddrs()
	must(t, err)
	gotSlots, err := m.SlotSets()
	must(t, err)
	gotRanges, err := m.Ranges()
	must(t, err)
	type all struct {
		Fronts map[model.Frontend]Frontend
		Addrs  map[netip.Addr]FrontendAddr
		Slots  map[uint32]SlotSet
		Ranges map[uint32][]netip.Prefix
	}
	want := all{fronts, addrs, map[uint32]SlotSet{3: slotSet}, map[uint32][]netip.Prefix{2: ranges}}
	opts := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}, model.Frontend{}),
		cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.Compare(b) < 0 })}
	if d := cmp.Diff(want, all{gotFronts, gotAddrs, gotSlots, gotRanges}, opts); d != "" {
		t.Error(d)
	}
	must(t, m.DeleteSlots(3, slotSet))
	must(t, m.DeleteRanges(2, ranges))
	if left, err := m.SlotSets(); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, err := m.Ranges(); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A set that does not fit is not there in part.
func TestSlotsFull(t *testing.T) {
	cfg := small(pintest.Dir(t))
	cfg.Services = 2 // two pieces of tables, eight slots
	m := open(t, cfg)
	must(t, m.PutSlots(1, slotSet))
	if err := m.PutSlots(2, slotSet); !errors.Is(err, ErrFull) {
		t.Fatalf("a third piece of a table of two: %v", err)
	}
	left, err := m.SlotSets()
	must(t, err)
	if d := cmp.Diff(map[uint32]SlotSet{1: slotSet}, left, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Error(d)
	}
	bad := slotSet
	bad.Table = []uint16{3}
	if err := m.PutSlots(3, bad); err == nil {
		t.Error("a table that leads to a slot that is not there was written")
	}
}
