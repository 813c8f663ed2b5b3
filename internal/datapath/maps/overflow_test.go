package maps

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
)

// firstMatch is what a list means.
func firstMatch(list []model.PolicyEntry, proto uint8, port uint16) (model.PolicyEntry, bool) {
	for _, e := range list {
		if e.Proto == 0 || e.Proto == proto && e.PortLo <= port && port <= e.PortHi {
			return e, true
		}
	}
	return model.PolicyEntry{}, false
}

var listGen = rapid.Custom(func(t *rapid.T) model.PolicyList {
	entry := rapid.Custom(func(t *rapid.T) model.PolicyEntry {
		port := rapid.OneOf(rapid.Uint16(), rapid.Uint16Range(0, 40), rapid.SampledFrom([]uint16{0, 1, 255, 256, 65534, 65535}))
		a, b := port.Draw(t, "port"), port.Draw(t, "port")
		e := model.PolicyEntry{Proto: rapid.SampledFrom([]uint8{6, 6, 6, 17, 17, 132, 1, 0}).Draw(t, "proto"), PortLo: min(a, b), PortHi: max(a, b),
			Verdict: rapid.SampledFrom([]uint8{layout.VerdictDeny, layout.VerdictAllow, layout.VerdictDeny | layout.VerdictAudit}).Draw(t, "verdict"),
			Rule:    model.RuleID(rapid.Uint32Range(256, 300).Draw(t, "rule"))}
		if rapid.IntRange(0, 9).Draw(t, "wide") == 0 {
			e.PortLo, e.PortHi = 0, 65535
		}
		if e.Proto == 0 && rapid.Bool().Draw(t, "few") { // one of these ends the list
			e.Proto = 6
		}
		return e
	})
	return model.PolicyList{Entries: rapid.SliceOfN(entry, 0, 40).Draw(t, "entries"), DefaultVerdict: layout.VerdictAllow,
		DefaultRule: model.RuleID(rapid.Uint32().Draw(t, "default"))}
})

// The kernel's rows decide as the list does, for lists of any length, also where one takes another's place.
func TestListMeansFirstMatch(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	rapid.Check(t, func(t *rapid.T) {
		k := model.PolicyKey{Set: 3, Class: 9, Dir: model.Direction(rapid.IntRange(0, 1).Draw(t, "dir"))}
		for range rapid.IntRange(1, 3).Draw(t, "writes") {
			l := listGen.Draw(t, "list")
			if err := m.PutLists(map[model.PolicyKey]model.PolicyList{k: l}); err != nil {
				t.Fatal(err)
			}
			ports := []uint16{0, 65535}
			for _, e := range l.Entries {
				ports = append(ports, e.PortLo-1, e.PortLo, e.PortLo+1, e.PortHi-1, e.PortHi, e.PortHi+1)
			}
			for _, proto := range []uint8{1, 6, 17, 47, 132} {
				for _, port := range ports {
					want, wantOK := firstMatch(l.Entries, proto, port)
					got, ok, err := m.Judge(k, proto, port)
					if err != nil || ok != wantOK || got != want {
						t.Fatalf("proto %d port %d: %+v %v %v, want %+v %v", proto, port, got, ok, err, want, wantOK)
					}
				}
			}
			lists, err := m.Lists()
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Entries) == 0 {
				l.Entries = nil
			}
			if d := cmp.Diff(map[model.PolicyKey]model.PolicyList{k: l}, lists); d != "" {
				t.Fatal(d)
			}
		}
		if err := m.DeleteLists([]model.PolicyKey{k}); err != nil {
			t.Fatal(err)
		}
		if n, err := m.count(m.overflow); n != 0 || err != nil {
			t.Fatalf("%d overflow rows left, %v", n, err)
		}
	})
}

// Rows that a cut-short write left go when the maps are opened, before another list could meet them.
func TestStrayOverflowRowsGo(t *testing.T) {
	cfg := small(pintest.Dir(t))
	m := open(t, cfg)
	k := model.PolicyKey{Set: 1, Class: 1}
	l := model.PolicyList{}
	for i := range 20 {
		l.Entries = append(l.Entries, model.PolicyEntry{Proto: 6, PortLo: uint16(10 * i), PortHi: uint16(10*i + 3), Verdict: 1})
	}
	keep := model.PolicyKey{Set: 2, Class: 1, Dir: model.Egress}
	must(t, m.PutLists(map[model.PolicyKey]model.PolicyList{k: l, keep: l}))
	lk := keyTo(k)
	must(t, m.policy.Delete(&lk))
	must(t, m.Close())
	m = open(t, cfg)
	lists, err := m.Lists()
	must(t, err)
	if d := cmp.Diff(map[model.PolicyKey]model.PolicyList{keep: l}, lists); d != "" {
		t.Error(d)
	}
	if len(m.long) != 1 {
		t.Errorf("rows of %d lists in the overflow map, want 1", len(m.long))
	}
}
