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
	state := DeniedState{Revision: 7, Exact: true, Prefix6: true}
	must(t, m.PutDenied(ps))
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
	must(t, m.DeleteDenied(slices.Concat(ps[:5], ps[:1]))) // one of them is gone by then
	check(ps[5:]...)
}

// A list of more than 100,000, both maps nearly full: written and removed in a few calls.
func TestDeniedMany(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	ps := make([]netip.Prefix, 0, 200000)
	for i := range cap(ps) / 2 {
		ps = append(ps, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&0xff, i&0xff)),
			netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x:%x::/64", i>>16, i&0xffff)))
	}
	must(t, m.PutDenied(ps))
	got, err := m.Denied()
	must(t, err)
	if len(got) != len(ps) {
		t.Errorf("%d rows, want %d", len(got), len(ps))
	}
	must(t, m.DeleteDenied(ps))
	if got, err := m.Denied(); err != nil || len(got) != 0 {
		t.Errorf("%d rows left, %v", len(got), err)
	}
}
