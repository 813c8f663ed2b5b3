package app

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// However the table and the subjects change, the engine comes to know who lives where; a subject that comes lives there with who
// was there before, until it is in.
func TestHomesFollow(t *testing.T) {
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
	rapid.Check(t, func(t *rapid.T) {
		h := newHomes()
		h.table = table.New[netip.Addr, []model.IdentityID]("homes", table.Addr)
		mine := map[int]model.IdentityID{}
		engine := map[netip.Addr][]model.IdentityID{}
		tell := func(coming ...model.Endpoint) {
			changed, gone := h.news(coming...)
			h.given(changed, gone)
			maps.Copy(engine, changed)
			for _, a := range gone {
				if _, ok := engine[a]; !ok {
					t.Fatalf("%s goes, and was not there", a)
				}
				delete(engine, a)
			}
		}
		want := func(coming ...model.Endpoint) map[netip.Addr][]model.IdentityID {
			out := map[netip.Addr][]model.IdentityID{}
			for a, ids := range h.table.Snapshot().All() {
				out[a] = slices.Clone(ids)
			}
			for n, id := range mine {
				out[addr(n)] = append(out[addr(n)], id)
			}
			for _, e := range coming {
				out[e.IPv4] = append(out[e.IPv4], e.Identity)
			}
			for a, ids := range out {
				slices.Sort(ids)
				out[a] = slices.Compact(ids)
			}
			return out
		}
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			n, id := rapid.IntRange(1, 4).Draw(t, "address"), model.IdentityID(rapid.IntRange(1000, 1002).Draw(t, "identity"))
			e := model.Endpoint{ID: uint16(n), Identity: id, IPv4: addr(n)}
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				h.table.Set(addr(n), []model.IdentityID{id})
			case 1:
				h.table.Delete(addr(n))
			case 2, 3: // as introduce does, with the rest of the news
				h.follow()
				tell(e)
				if d := cmp.Diff(want(e), engine, cmpopts.EquateComparable(netip.Addr{})); d != "" {
					t.Fatal("while a subject comes: ", d)
				}
				h.dirty[addr(n)] = true
				if rapid.Bool().Draw(t, "stays") {
					h.put(e)
					mine[n] = id
				}
			case 4:
				if old, ok := mine[n]; ok {
					h.drop(model.Endpoint{ID: uint16(n), Identity: old, IPv4: addr(n)})
					delete(mine, n)
				}
			case 5:
				h.follow()
				tell()
				clear(h.dirty)
				if d := cmp.Diff(want(), engine, cmpopts.EquateComparable(netip.Addr{})); d != "" {
					t.Fatal(d)
				}
			}
		}
	})
}
