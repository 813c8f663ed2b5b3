package policy_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hypha-net/hypha/internal/datapath/ipcache"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/model"
)

var log = slog.New(slog.DiscardHandler)

const cidr = model.IdentityScopeLocal + 1

func setup(t *testing.T, policyMax uint32) (*maps.Maps, *policy.Applier) {
	t.Helper()
	m, err := maps.Open(maps.Config{Dir: pintest.Dir(t), CT: 4096, NAT: 4096, Ring: 4096, Policy: policyMax}, maps.Deps{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	c, err := ipcache.New(ipcache.Config{}, ipcache.Deps{Log: log, Kernel: m})
	if err != nil {
		t.Fatal(err)
	}
	for a, id := range map[string]uint16{"10.0.0.7": 7, "fd00::7": 7, "10.0.0.8": 8} {
		if err := m.PutEndpoint(netip.MustParseAddr(a), maps.Endpoint{ID: id, Set: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return m, policy.New(policy.Deps{Log: log, Maps: m, Prefixes: c})
}

func list(n int, verdict uint8) model.PolicyList {
	l := model.PolicyList{DefaultRule: 300}
	for i := range n {
		l.Entries = append(l.Entries, model.PolicyEntry{Proto: 6, PortLo: uint16(10 * i), PortHi: uint16(10*i + 5), Verdict: verdict, Rule: 301})
	}
	return l
}

func TestPlanAndReadBack(t *testing.T) {
	m, a := setup(t, 0)
	first := model.PolicyPlan{Revision: 1, Steps: []model.PolicyStep{
		{Lists: map[model.PolicyKey]model.PolicyList{{Set: 2}: list(3, 1), {Set: 2, Class: 5, Dir: model.Egress}: list(40, 1), {Set: 1}: list(0, 0)},
			Classes: map[model.Peer]model.ClassID{{Identity: 1}: 1, {Identity: 1000}: 5, {Identity: cidr}: 6, {Identity: 1000, Area: 2}: 7, {Identity: 1000, Area: 3}: 5}},
		{Prefixes: map[netip.Prefix]model.IdentityID{netip.MustParsePrefix("192.0.2.0/24"): cidr},
			Areas:        map[netip.Prefix]model.Area{netip.MustParsePrefix("0.0.0.0/0"): {ID: 2, Strict: true}, netip.MustParsePrefix("::/0"): {ID: 3}},
			EndpointSets: map[uint16]model.SetID{7: 2}, BumpEpoch: true},
	}}
	if err := a.Apply(context.Background(), first, nil); err != nil {
		t.Fatal(err)
	}
	want := model.PolicyState{
		Lists: first.Steps[0].Lists, Classes: first.Steps[0].Classes, Prefixes: first.Steps[1].Prefixes, Areas: first.Steps[1].Areas,
		EndpointSets: map[uint16]model.SetID{7: 2, 8: 1},
	}
	compare(t, a, want)
	if e, err := m.Epoch(); e != 1 || err != nil {
		t.Errorf("epoch %d, %v", e, err)
	}
	for _, addr := range []string{"10.0.0.7", "fd00::7"} {
		if e, _, _ := m.Endpoint(netip.MustParseAddr(addr)); e.Set != 2 {
			t.Errorf("%s has set %d", addr, e.Set)
		}
	}
	second := model.PolicyPlan{Revision: 2, Steps: []model.PolicyStep{{
		DeletePrefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, DeleteClasses: []model.Peer{{Identity: cidr}, {Identity: 9999}, {Identity: 1000, Area: 2}},
		DeleteAreas: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		DeleteLists: []model.PolicyKey{{Set: 2, Class: 5, Dir: model.Egress}, {Set: 77}}}}}
	told := 0
	err := a.Apply(context.Background(), second, func() {
		told++
		if lists, err := m.Lists(); len(lists) != 3 || err != nil {
			t.Errorf("in force with lists %v, %v: they are not to be deleted yet", lists, err)
		}
	})
	if told != 1 || err != nil {
		t.Fatalf("in force told %d times, %v", told, err)
	}
	want.Lists = map[model.PolicyKey]model.PolicyList{{Set: 2}: list(3, 1), {Set: 1}: list(0, 0)}
	want.Classes = map[model.Peer]model.ClassID{{Identity: 1}: 1, {Identity: 1000}: 5, {Identity: 1000, Area: 3}: 5}
	want.Areas = map[netip.Prefix]model.Area{netip.MustParsePrefix("::/0"): {ID: 3}}
	want.Prefixes = map[netip.Prefix]model.IdentityID{}
	compare(t, a, want)
}

func compare(t *testing.T, a *policy.Applier, want model.PolicyState) {
	t.Helper()
	got, err := a.ReadState()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// When the map is full nothing is switched over to what is not there: the old policy stays whole.
func TestFullMapStopsBeforeTheFlip(t *testing.T) {
	m, a := setup(t, 32)
	lists := map[model.PolicyKey]model.PolicyList{}
	for i := range 100 {
		lists[model.PolicyKey{Set: 2, Class: model.ClassID(i)}] = list(1, 1)
	}
	plan := model.PolicyPlan{Revision: 1, Steps: []model.PolicyStep{{Lists: lists, EndpointSets: map[uint16]model.SetID{7: 2}, BumpEpoch: true,
		DeleteLists: []model.PolicyKey{{Set: 1}}}}}
	if err := a.Apply(context.Background(), plan, nil); !errors.Is(err, maps.ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	e, _, err := m.Endpoint(netip.MustParseAddr("10.0.0.7"))
	if epoch, _ := m.Epoch(); e.Set != 1 || epoch != 0 || err != nil {
		t.Errorf("set %d, epoch %d, %v", e.Set, epoch, err)
	}
	// Once there is room the same plan goes through.
	var half []model.PolicyKey
	for k := range lists {
		half = append(half, k)
	}
	if err := m.DeleteLists(half); err != nil {
		t.Fatal(err)
	}
	plan.Steps[0].Lists = map[model.PolicyKey]model.PolicyList{{Set: 2}: list(1, 1)}
	if err := a.Apply(context.Background(), plan, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCommitComesBetweenWritesAndDeletions(t *testing.T) {
	m, a := setup(t, 0)
	if err := m.PutLists(map[model.PolicyKey]model.PolicyList{{Set: 1}: {}}); err != nil {
		t.Fatal(err)
	}
	step := model.PolicyStep{Lists: map[model.PolicyKey]model.PolicyList{{Set: 2}: {}}, BumpEpoch: true, DeleteLists: []model.PolicyKey{{Set: 1}}}
	refused := errors.New("refused")
	err := a.Step(step, func() error {
		lists, err := m.Lists()
		if len(lists) != 2 || err != nil {
			t.Errorf("at commit: %v %v", lists, err)
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	lists, err := m.Lists()
	if epoch, _ := m.Epoch(); len(lists) != 2 || epoch != 0 || err != nil {
		t.Errorf("after a refused commit: %v, epoch %d, %v", lists, epoch, err)
	}
}
