package maps

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hypha-net/hypha/internal/datapath/pintest"
)

// Rows and state of denied sources read back as written, also by the next agent.
func TestDenied(t *testing.T) {
	dir := pintest.Dir(t)
	m := open(t, small(dir))
	if s, err := m.DeniedState(); err != nil || s != (DeniedState{}) {
		t.Errorf("state of a new map: %+v, %v", s, err)
	}
	var ps []netip.Prefix
	for _, c := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/32", "::/0", "::/128", "2001:db8::/32", "2001:db8::1/128"} {
		ps = append(ps, netip.MustParsePrefix(c))
	}
	state := DeniedState{Revision: 7, Prefix6: true}
	must(t, m.Deny(ps, nil, ps))
	must(t, m.PutDeniedState(state))
	must(t, m.Close())
	m = open(t, small(dir))
	check := func(want ...netip.Prefix) {
		t.Helper()
		got, err := m.Denied()
		must(t, err)
		order := func(a, b netip.Prefix) bool { return a.String() < b.String() }
		if d := cmp.Diff(want, got, cmpopts.SortSlices(order), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Error(d)
		}
	}
	check(ps...)
	if s, err := m.DeniedState(); err != nil || s != state {
		t.Errorf("state %+v, %v", s, err)
	}
	must(t, m.Deny(ps[5:], slices.Concat(ps[:5], ps[:1]), nil)) // one of them is gone by then
	check(ps[5:]...)
	must(t, m.Deny(ps[5:6], ps[6:], nil)) // no whole address is left
	check(ps[5])
	if set, err := m.deniedSet(); set != nil || err != nil {
		t.Errorf("a hash without addresses is left, %v", err)
	}
}

// A list of more than 100,000 takes a few calls, and the hash grows and shrinks with it.
func TestDeniedMany(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	ps := make([]netip.Prefix, 0, 220000)
	for i := range cap(ps) / 2 {
		ps = append(ps, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&0xff, i&0xff)),
			netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x:%x::/64", i>>16, i&0xffff)))
	}
	have := 0
	for _, x := range []struct {
		n    int
		room uint32
	}{{2, 64}, {128, 64}, {130, 128}, {len(ps), 131072}, {len(ps) - 2, 131072}, {40000, 131072}, {10000, 8192}, {100, 64}, {0, 0}} {
		gone, come := ps[min(x.n, have):have], ps[min(x.n, have):x.n]
		must(t, m.Deny(ps[:x.n], gone, come))
		have = x.n
		got, err := m.Denied()
		must(t, err)
		set, err := m.deniedSet()
		must(t, err)
		var room uint32
		if set != nil {
			room = set.MaxEntries()
			must(t, set.Close())
		}
		if len(got) != x.n || room != x.room {
			t.Errorf("%d rows, want %d; room for %d addresses, want %d", len(got), x.n, room, x.room)
		}
	}
}
