package service

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// writes is how many rows have been written or deleted in the maps of services.
func writes(t *testing.T, m *maps.Maps) (n uint64) {
	t.Helper()
	all, err := m.List()
	must(t, err)
	for _, s := range all {
		n += s.Writes
	}
	return n
}

// rows are all rows of the maps of services, as text.
func rows(t *testing.T, m *maps.Maps) map[string]map[string]bool {
	t.Helper()
	out := map[string]map[string]bool{}
	for _, name := range []string{maps.LBAddress, maps.LBFrontend, maps.LBSlot, maps.LBMaglev, maps.LBMember, maps.LBSource} {
		out[name] = map[string]bool{}
		must(t, m.Dump(name, func(cols []maps.Column) bool {
			text := ""
			for _, c := range cols {
				text += c.Name + "=" + c.Value + " "
			}
			out[name][text] = true
			return true
		}))
	}
	return out
}

// town is a mixture of services.
func town() []model.Balance {
	var all []model.Balance
	for i := range 40 {
		v := i % 2
		f := front(vip[v], uint16(80+i), []uint8{tcp, udp}[i/2%2])
		b := balance(f, model.ServiceID(i+1), 1, 2, 1+i%3)
		b.Type, b.Local = model.ServiceType(i%5), i%7 == 0
		switch i % 5 {
		case 1:
			b.Table = make([]uint16, 100) // not a multiple of a piece
			for j := range b.Table {
				b.Table[j] = uint16(j % 3)
			}
		case 2:
			b.Affinity, b.Keep = 90*time.Minute, []model.Backend{backend(f, 7)}
		case 3:
			b.Ranges, b.RangesDeny = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/16")}, i%2 == 0
		case 4:
			b.Slots = nil
		}
		all = append(all, b)
	}
	for v := range 2 {
		all = append(all, balance(front(anyAddr[v], 30080, tcp), model.ServiceID(100+v), 3))
	}
	return all
}

func wanted(all []model.Balance) map[model.Frontend]model.Balance {
	out := map[model.Frontend]model.Balance{}
	for _, b := range all {
		out[b.Frontend] = b
	}
	return out
}

// A new agent takes over what it finds: no change means no write, and what nobody wants any more goes.
func TestTakeOver(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	all := town()
	r.put(all...)
	before, n := rows(t, r.m), writes(t, r.m)
	for name, have := range before {
		if len(have) == 0 {
			t.Fatalf("%s is empty: the test shows nothing", name)
		}
	}
	next, err := New(Config{Node: node[:]}, r.m)
	must(t, err)
	must(t, next.Look(t.Context()))
	for _, b := range all {
		must(t, next.Update(t.Context(), b.Frontend, b))
	}
	must(t, next.Prune(t.Context(), wanted(all)))
	if d := cmp.Diff(before, rows(t, r.m)); d != "" {
		t.Error(d)
	}
	if got := writes(t, r.m); got != n {
		t.Errorf("%d writes though nothing changed", got-n)
	}
	// A restart while things changed: what is new is written, under numbers that nothing has, what is gone goes.
	changed := all[5:]
	changed[0].Slots = changed[0].Slots[:1]
	if next, err = New(Config{Node: node[:1]}, r.m); err != nil {
		t.Fatal(err)
	}
	for _, b := range changed {
		must(t, next.Update(t.Context(), b.Frontend, b))
	}
	must(t, next.Prune(t.Context(), wanted(changed)))
	time.Sleep(grace + 100*time.Millisecond)
	must(t, next.Look(t.Context()))
	fresh := newRig(t, maps.Config{}, 0)
	fresh.at(node[1]).node = false
	must(t, fresh.settle(node[1]))
	fresh.put(changed...)
	want, got := rows(t, fresh.m), rows(t, r.m)
	for _, name := range []string{maps.LBAddress, maps.LBSlot, maps.LBMember, maps.LBMaglev, maps.LBSource, maps.LBFrontend} {
		if name == maps.LBAddress {
			if d := cmp.Diff(want[name], got[name]); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		} else if len(want[name]) != len(got[name]) { // numbers differ
			t.Errorf("%s: %d rows, want %d", name, len(got[name]), len(want[name]))
		}
	}
	must(t, next.Prune(t.Context(), nil))
	time.Sleep(grace + 100*time.Millisecond)
	must(t, next.Look(t.Context()))
	for name, left := range rows(t, r.m) {
		if name == maps.LBAddress && len(left) == 1 { // the node's
			continue
		}
		if len(left) != 0 {
			t.Errorf("%s: %d rows are left", name, len(left))
		}
	}
}

// What a row says of its set is true whenever one looks, and no number comes back while its set is there.
func TestRowsAgree(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := map[uint32]maps.SlotSet{}
	for range 300 {
		must(t, r.Look(t.Context()))
		f := front(vip[0], uint16(80+rnd.IntN(3)), []uint8{tcp, udp}[rnd.IntN(2)])
		if rnd.IntN(8) == 0 {
			r.remove(f)
		} else {
			b := balance(f, 1)
			for range rnd.IntN(5) {
				b.Slots = append(b.Slots, backend(f, 1+rnd.IntN(3)))
			}
			r.put(b)
		}
		fronts, err := r.m.Frontends()
		must(t, err)
		sets, err := r.m.SlotSets()
		must(t, err)
		for f, row := range fronts {
			if got := len(sets[row.Slots].Slots); got != int(row.Count) {
				t.Fatalf("%v: %d slots, the row says %d", f, got, row.Count)
			}
		}
		for id, s := range sets {
			if was, ok := seen[id]; ok && slotsKey(was) != slotsKey(s) {
				t.Fatalf("set %d has changed from %v to %v", id, was, s)
			}
			seen[id] = s
		}
	}
}

// A full map refuses what is new and keeps what is in force; the VIP of what found no room is refused, not routed.
func TestFull(t *testing.T) {
	r := newRig(t, maps.Config{Services: 8}, 0) // 8 frontends, 32 slots
	r.serve(1)
	f := front(vip[0], 80, tcp)
	r.put(balance(f, 1, 1))
	large := balance(f, 1, 1)
	for range 100 {
		large.Slots = append(large.Slots, backend(f, 2))
	}
	if err := r.Update(t.Context(), f, large); !errors.Is(err, maps.ErrFull) {
		t.Fatalf("101 slots where 32 fit: %v", err)
	}
	for i := range 7 {
		r.put(balance(front(vip[0], uint16(1000+i), tcp), model.ServiceID(i+2), 1))
	}
	late := balance(front(vip[0], 2000, tcp), 50, 1)
	if err := r.Update(t.Context(), late.Frontend, late); !errors.Is(err, maps.ErrFull) {
		t.Fatalf("a ninth frontend where 8 fit: %v", err)
	}
	if got, err := r.call(netip.AddrPortFrom(vip[0], 80), tcp); err != nil || got.from != place(0, 1).String() {
		t.Errorf("what was in force: %+v, %v", got, err)
	}
	if got, err := r.call(netip.AddrPortFrom(vip[0], 2000), tcp); !errors.Is(err, refused()) {
		t.Errorf("what found no room: %+v, %v", got, err)
	}
	// Also where it would have been the only one.
	alone := balance(front(vip[1], 80, tcp), 51, 1)
	if err := r.Update(t.Context(), alone.Frontend, alone); !errors.Is(err, maps.ErrFull) {
		t.Fatalf("a ninth frontend where 8 fit: %v", err)
	}
	if got, err := r.call(netip.AddrPortFrom(vip[1], 80), tcp); !errors.Is(err, refused()) {
		t.Errorf("what found no room: %+v, %v", got, err)
	}
	r.remove(alone.Frontend)
	if got, err := r.m.FrontendAddrs(); err != nil || got[vip[1]].VIP {
		t.Errorf("rows of addresses: %v, %v", got, err)
	}
	r.remove(front(vip[0], 1000, tcp))
	r.put(late)
	if _, err := r.call(netip.AddrPortFrom(vip[0], 2000), tcp); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// There is room for as many VIPs as frontends, beside the node's own addresses; one more is refused for want of a frontend.
func TestFullOfVIPs(t *testing.T) {
	const most = 64
	r := newRig(t, maps.Config{Services: most}, 0)
	at := vip[0]
	for i := range most + 1 {
		at = at.Next()
		b := balance(front(at, 80, tcp), model.ServiceID(i+1), 1)
		if err := r.Update(t.Context(), b.Frontend, b); (err == nil) != (i < most) || err != nil && !errors.Is(err, maps.ErrFull) {
			t.Fatalf("frontend %d of %d, each with a VIP of its own: %v", i+1, most, err)
		}
	}
	got, err := r.m.Frontends()
	must(t, err)
	if len(got) != most {
		t.Errorf("%d frontends", len(got))
	}
}

// What the datapath cannot do is refused with the reason, and changes nothing.
func TestBadBalance(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	f := front(vip[0], 80, tcp)
	good := balance(f, 1, 1)
	r.put(good)
	before := rows(t, r.m)
	for name, b := range map[string]model.Balance{
		"other IP version": {Slots: []model.Backend{{Addr: place(1, 1), Port: 80, Proto: tcp}}},
		"other protocol":   {Slots: []model.Backend{{Addr: place(0, 1), Port: 80, Proto: udp}}},
		"no port":          {Keep: []model.Backend{{Addr: place(0, 1), Proto: tcp}}},
		"no address":       {Slots: []model.Backend{{Port: 80, Proto: tcp}}},
		"table":            {Slots: good.Slots, Table: []uint16{0, 1}},
	} {
		if err := r.Update(t.Context(), f, b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := r.Update(t.Context(), model.Frontend{Addr: vip[0], Port: 80}, good); err == nil {
		t.Error("no protocol: no error")
	}
	if d := cmp.Diff(before, rows(t, r.m)); d != "" {
		t.Error(d)
	}
}
