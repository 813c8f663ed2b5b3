package service

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

var _ table.Batcher[model.Frontend, model.Balance] = (*Target)(nil)

// city is so many services that they are loaded together, of all kinds, some with the same backends.
func city(n int) []model.Balance {
	var all []model.Balance
	for i := 0; len(all) < n; i++ {
		for _, b := range town() {
			b.ID += model.ServiceID(1000 * i)
			switch b.Frontend.Addr {
			case vip[0]:
				b.Frontend.Addr = netip.AddrFrom4([4]byte{172, 20, 1, byte(i)})
			case vip[1]:
				b.Frontend.Addr = netip.MustParseAddr(fmt.Sprintf("fd20::1:%x", i))
			default:
				b.Frontend.Port += uint16(i)
			}
			all = append(all, b)
		}
	}
	return all
}

func rowsFor(all []model.Balance) []row {
	out := make([]row, len(all))
	for i, b := range all {
		out[i] = row{Key: b.Frontend, Row: b}
	}
	return out
}

// agree says how the kernel and a target's memory of it differ from what is wanted: what a new target would write.
func agree(t *testing.T, r *rig, all []model.Balance) {
	t.Helper()
	before, n := rows(t, r.m), writes(t, r.m)
	next, err := New(Config{Node: node[:]}, r.m)
	must(t, err)
	for _, b := range all {
		must(t, next.Update(t.Context(), b.Frontend, b))
	}
	must(t, next.Prune(t.Context(), wanted(all)))
	if got := writes(t, r.m); got != n {
		t.Errorf("%d writes were missing", got-n)
	}
	if d := cmp.Diff(before, rows(t, r.m)); d != "" {
		t.Error(d)
	}
	if len(next.rows) != len(all) || !cmp.Equal(next.rows, r.rows, cmp.Comparer(func(a, b maps.Frontend) bool { return a == b })) {
		t.Errorf("%d rows, remembered %d, want %d", len(next.rows), len(r.rows), len(all))
	}
	if !cmp.Equal(next.addrs, r.addrs, cmp.Comparer(func(a, b address) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Error("addresses are remembered otherwise than the kernel has them")
	}
	refs := func(x *Target) map[uint32]int {
		out := map[uint32]int{}
		for id, s := range x.slots.byID {
			if s.refs > 0 {
				out[id] = s.refs
			}
		}
		return out
	}
	if d := cmp.Diff(refs(next), refs(r.Target)); d != "" {
		t.Errorf("references to sets: %s", d)
	}
}

// sweep removes all sets that nothing refers to, however short that is.
func (r *rig) sweep() {
	r.t.Helper()
	if n := len(r.slots.idle); n > 0 {
		must(r.t, r.slots.sweep(r.slots.idle[n-1].at.Add(grace)))
	}
}

// Many services at once come into force as one by one, beside some that are there and change; and while they do, no frontend
// is ahead of its backends.
func TestLoad(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2, 3)
	all := city(2000)
	r.put(all[:20]...)
	all[3].Slots, all[7].Affinity = all[3].Slots[:1], 0
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			fronts, err := r.m.Frontends()
			sets, serr := r.m.SlotSets()
			if err = errors.Join(err, serr); err != nil {
				ended <- err
				return
			}
			for f, row := range fronts {
				if got := sets[row.Slots]; len(got.Slots) != int(row.Count) || len(got.Table) < int(row.Table) {
					ended <- fmt.Errorf("%v: %d slots and %d places, the row says %d and %d", f, len(got.Slots), len(got.Table), row.Count, row.Table)
					return
				}
			}
		}
	}()
	if errs := r.UpdateAll(t.Context(), rowsFor(all)); len(errs) != 0 {
		t.Fatal(errs)
	}
	close(stop)
	must(t, <-ended)
	agree(t, r, all)
	late := all[len(all)-42] // of two backends that anybody may reach
	if got, err := r.call(netip.AddrPortFrom(late.Frontend.Addr, late.Frontend.Port), late.Frontend.Proto); err != nil {
		t.Errorf("%v: %+v, %v", late, got, err)
	}
	n := writes(t, r.m)
	if errs := r.UpdateAll(t.Context(), rowsFor(all)); len(errs) != 0 || writes(t, r.m) != n {
		t.Errorf("again: %v, %d writes", errs, writes(t, r.m)-n)
	}
}

// Of many that do not all fit, as many come into force as fit, the others are told; nothing is left of these but that their VIPs
// are refused, and once there is room they come.
func TestLoadFull(t *testing.T) {
	for _, c := range []struct {
		name  string
		slots int // of each service
	}{{"frontends", 1}, {"slots", 6}} {
		t.Run(c.name, func(t *testing.T) {
			const fit = 100 // frontends; four slots each
			r := newRig(t, maps.Config{Services: fit}, 0)
			var all []model.Balance
			for i := range 2 * fit {
				b := balance(front(netip.AddrFrom4([4]byte{172, 20, 1, byte(i / 20)}), uint16(80+i%20), tcp), model.ServiceID(i+1))
				for range c.slots {
					b.Slots = append(b.Slots, backend(b.Frontend, i+1))
				}
				all = append(all, b)
			}
			r.put(all[:5]...)
			errs := r.UpdateAll(t.Context(), rowsFor(all))
			r.sweep()
			there := map[model.Frontend]bool{}
			fronts, err := r.m.Frontends()
			must(t, err)
			sets, err := r.m.SlotSets()
			must(t, err)
			for f, row := range fronts {
				there[f] = true
				if len(sets[row.Slots].Slots) != c.slots {
					t.Errorf("%v: %d slots", f, len(sets[row.Slots].Slots))
				}
			}
			if want := min(fit, 4*fit/c.slots); len(fronts) != want || len(sets) != want || len(errs) != len(all)-want {
				t.Errorf("%d frontends, %d sets, %d told; want %d and %d", len(fronts), len(sets), len(errs), want, len(all)-want)
			}
			for _, b := range all {
				err := errs[b.Frontend]
				if there[b.Frontend] == (err != nil) || err != nil && !errors.Is(err, maps.ErrFull) {
					t.Errorf("%v: there %v, %v", b.Frontend, there[b.Frontend], err)
				}
			}
			for i := range 5 {
				if !there[all[i].Frontend] {
					t.Errorf("%v was in force", all[i].Frontend)
				}
			}
			var in, out []model.Balance
			for _, b := range all {
				if there[b.Frontend] {
					in = append(in, b)
				} else {
					out = append(out, b)
				}
			}
			if got, err := r.call(netip.AddrPortFrom(out[0].Frontend.Addr, out[0].Frontend.Port), tcp); !errors.Is(err, refused()) {
				t.Errorf("what found no room: %+v, %v", got, err)
			}
			for _, b := range in[:40] {
				r.remove(b.Frontend)
			}
			r.sweep()
			if errs := r.UpdateAll(t.Context(), rowsFor(out[:40])); len(errs) != 0 {
				t.Errorf("with room again: %v", errs)
			}
		})
	}
}

// One that cannot be served keeps none of the others out.
func TestLoadBad(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	all := city(200)
	bad := balance(front(netip.MustParseAddr("172.20.9.9"), 80, tcp), 9999)
	bad.Slots = []model.Backend{{Addr: place(1, 1), Port: 80, Proto: tcp}}
	nobody := row{Key: model.Frontend{Addr: vip[0], Port: 80}}
	errs := r.UpdateAll(t.Context(), append(rowsFor(slices.Concat(all[:150], []model.Balance{bad})), nobody))
	if len(errs) != 2 || errs[bad.Frontend] == nil || errs[nobody.Key] == nil {
		t.Errorf("%v", errs)
	}
	r.remove(bad.Frontend)
	agree(t, r, all[:150])
}
