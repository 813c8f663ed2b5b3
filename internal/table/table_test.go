package table

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

// A table against a plain map: same rows, key order, old snapshots unchanged.
func TestTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := New[uint32, int]("t", Uint[uint32])
		model := map[uint32]int{}
		last := rapid.SampledFrom([]uint32{8, 5000}).Draw(t, "last key")
		type shot struct {
			snap Snapshot[uint32, int]
			want map[uint32]int
		}
		var shots []shot
		for range rapid.IntRange(0, 50).Draw(t, "ops") {
			k := rapid.Uint32Range(0, last).Draw(t, "k")
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0:
				v := rapid.Int().Draw(t, "v")
				old, ok := tab.Set(k, v)
				if w, had := model[k]; had != ok || w != old {
					t.Fatalf("Set(%d) returned %d %v, want %d %v", k, old, ok, w, had)
				}
				model[k] = v
			case 1:
				tab.Delete(k)
				delete(model, k)
			case 2:
				tab.Update(func(x *Txn[uint32, int]) {
					for i := k / 2; i <= k; i++ {
						x.Set(i, 1)
						model[i] = 1
					}
					x.Delete(k + 1)
				})
				delete(model, k+1)
			case 4:
				want := rapid.MapOf(rapid.Uint32Range(0, 8), rapid.IntRange(0, 1)).Draw(t, "rows")
				was, changed := tab.Snapshot().Revision(), false
				tab.Update(func(x *Txn[uint32, int]) { changed = Replace(x, want, func(a, b int) bool { return a == b }) })
				if same := maps.Equal(want, model); changed == same || (tab.Snapshot().Revision() == was) != same {
					t.Fatalf("%v replaced by %v: changed %v", model, want, changed)
				}
				model = maps.Clone(want)
			case 3:
				shots = append(shots, shot{tab.Snapshot(), maps.Clone(model)})
			}
		}
		shots = append(shots, shot{tab.Snapshot(), model})
		for _, s := range shots {
			since, ok := tab.Since(s.snap.Revision())
			if !ok && last == 8 {
				t.Fatal("so few changes are remembered")
			}
			for k := range last + 2 {
				was, had := s.want[k]
				if v, has := model[k]; ok && (had != has || v != was) && !slices.Contains(since, k) {
					t.Fatalf("%d has changed and is not among %v", k, since)
				}
			}
			got := maps.Collect(s.snap.All())
			if !maps.Equal(got, s.want) || s.snap.Len() != len(s.want) {
				t.Fatalf("snapshot holds %v, want %v", got, s.want)
			}
			var keys []uint32
			for k := range s.snap.All() {
				keys = append(keys, k)
			}
			if !slices.IsSorted(keys) {
				t.Fatalf("keys out of order: %v", keys)
			}
		}
	})
}

// A table remembers a bounded number of changes, and says when one asks for more.
func TestSince(t *testing.T) {
	tab := New[uint32, int]("t", Uint[uint32])
	tab.Set(1, 1)
	was := tab.Snapshot().Revision()
	for i := range uint32(logFloor) {
		tab.Set(10+i, 1)
	}
	if keys, ok := tab.Since(was); !ok || len(keys) != logFloor || keys[0] != 10 || slices.Contains(keys, 1) {
		t.Fatalf("%v %v", keys, ok)
	}
	for i := range uint32(3 * logFloor) {
		tab.Set(10+i, 2)
	}
	if _, ok := tab.Since(was); ok {
		t.Error("remembers everything")
	}
	now := tab.Snapshot().Revision()
	if keys, ok := tab.Since(now); !ok || len(keys) != 0 {
		t.Errorf("nothing has changed: %v %v", keys, ok)
	}
	tab.Update(func(x *Txn[uint32, int]) { // one change that is larger than what is remembered
		for i := range uint32(3 * logFloor) {
			x.Set(5000+i, 1)
		}
	})
	if _, ok := tab.Since(now); ok {
		t.Error("a large change is remembered")
	}
	tab.Delete(1)
	if keys, ok := tab.Since(now + 1); !ok || !slices.Equal(keys, []uint32{1}) {
		t.Errorf("%v %v", keys, ok)
	}
}

// Keys that differ are told apart, and their order does not depend on who asks.
func TestOrders(t *testing.T) {
	var prefixes []netip.Prefix
	for _, s := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "::/0", "::ffff:10.0.0.0/104", "a00::/8"} {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	front := func(addr string, port uint16, proto uint8, scope model.Scope) model.Frontend {
		return model.Frontend{Addr: netip.MustParseAddr(addr), Port: port, Proto: proto, Scope: scope}
	}
	ordered(t, prefixes, Prefix)
	ordered(t, []model.Frontend{front("1.0.0.0", 80, 6, 0), front("1.0.0.0", 80, 6, 1), front("1.0.0.0", 80, 17, 0), front("1.0.0.0", 81, 6, 0), front("2.0.0.0", 1, 6, 0), front("::1", 1, 6, 0)}, Frontend)
}

func ordered[K any](t *testing.T, all []K, compare func(a, b K) int) {
	t.Helper()
	for i, a := range all {
		for j, b := range all {
			if compare(a, b) != cmp.Compare(i, j) {
				t.Errorf("%v and %v compare as %d", a, b, compare(a, b))
			}
		}
	}
}

// target is a kernel that fails when told to.
type target struct {
	mu     sync.Mutex
	rows   map[string]int
	fail   map[string]bool
	prunes int
	looks  int
	blind  error // what Look answers
	writes int   // calls of Update
}

func (f *target) Look(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.blind
}

func (f *target) Update(_ context.Context, k string, v int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.fail[k] {
		return errors.New("no")
	}
	f.rows[k] = v
	return nil
}

func (f *target) Delete(_ context.Context, k string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rows, k)
	if f.fail[k] {
		return errors.New("not all of it")
	}
	return nil
}

func (f *target) Prune(_ context.Context, want map[string]int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prunes++
	maps.DeleteFunc(f.rows, func(k string, _ int) bool { _, ok := want[k]; return !ok })
	return nil
}

func (f *target) set(k string, fail bool) { f.mu.Lock(); f.fail[k] = fail; f.mu.Unlock() }

func (f *target) is(want map[string]int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Equal(f.rows, want)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 1000 {
		if cond() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestReconciler(t *testing.T) {
	tab := New[string, int]("t", String)
	kernel := &target{rows: map[string]int{"stale": 9, "a": 7}, fail: map[string]bool{}}
	r := NewReconciler(Config{RetryMin: time.Millisecond}, tab, kernel)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()

	tab.Set("a", 1)
	eventually(t, "a updated", func() bool { return kernel.is(map[string]int{"a": 1, "stale": 9}) })
	tab.Delete("a")
	tab.Set("b", 2)
	eventually(t, "b added", func() bool { return kernel.is(map[string]int{"a": 1, "b": 2, "stale": 9}) })
	if kernel.prunes != 0 {
		t.Error("pruned before the table was complete")
	}
	tab.SetComplete()
	eventually(t, "the rest deleted", func() bool { return kernel.is(map[string]int{"b": 2}) })

	kernel.set("c", true)
	tab.Set("c", 3)
	eventually(t, "failure shows", func() bool { return r.Err() != nil })
	kernel.set("c", false)
	eventually(t, "retried", func() bool { return kernel.is(map[string]int{"b": 2, "c": 3}) && r.Err() == nil })

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A round costs what has changed, not what there is: one look at the kernel and one call for each row.
func TestRoundIsAsLargeAsTheChange(t *testing.T) {
	tab := New[string, int]("t", String)
	kernel := &target{rows: map[string]int{}, fail: map[string]bool{}}
	r := NewReconciler(Config{}, tab, kernel)
	for i := range 2000 {
		tab.Set(fmt.Sprint(i), i)
	}
	tab.SetComplete()
	round := func(want error) {
		t.Helper()
		if err := r.round(t.Context(), tab.Snapshot(), false); !errors.Is(err, want) {
			t.Fatal(err)
		}
	}
	round(nil)
	if kernel.looks != 1 || kernel.writes != 2000 || kernel.prunes != 1 {
		t.Fatalf("all: %d looks, %d writes, %d prunes", kernel.looks, kernel.writes, kernel.prunes)
	}
	tab.Set("7", -7)
	tab.Delete("8")
	if due := r.due(tab.Snapshot(), false); len(due) != 2 {
		t.Errorf("%d rows are looked at for two changes", len(due))
	}
	round(nil)
	round(nil)
	if kernel.looks != 2 || kernel.writes != 2001 || kernel.rows["7"] != -7 || len(kernel.rows) != 1999 {
		t.Errorf("two changes: %d looks, %d writes, %d rows", kernel.looks, kernel.writes, len(kernel.rows))
	}
	kernel.blind = errors.New("no look")
	tab.Set("9", -9)
	round(kernel.blind)
	if r.Err() == nil || kernel.rows["9"] == -9 {
		t.Error("wrote without a look")
	}
	kernel.blind = nil
	round(nil)
	if r.Err() != nil || kernel.rows["9"] != -9 {
		t.Errorf("not made up for: %v", r.Err())
	}
}

// together is a target that takes many rows at once.
type together struct {
	*target
	calls []string // rows of each call, and deletions
}

func (f *together) UpdateAll(ctx context.Context, rows []Row[string, int]) map[string]error {
	errs, call := map[string]error{}, ""
	for _, r := range rows {
		call += r.Key
		if err := f.target.Update(ctx, r.Key, r.Row); err != nil {
			errs[r.Key] = err
		}
	}
	f.calls = append(f.calls, call)
	return errs
}

func (f *together) Delete(ctx context.Context, k string) error {
	f.calls = append(f.calls, "-"+k)
	return f.target.Delete(ctx, k)
}

// Rows that change come together, in the order of their changes, with the deletions in between; each has its own fate.
func TestBatch(t *testing.T) {
	tab := New[string, int]("t", String)
	kernel := &together{target: &target{rows: map[string]int{}, fail: map[string]bool{"b": true}}}
	r := NewReconciler(Config{}, tab, Target[string, int](kernel))
	round := func(all bool, want ...string) {
		t.Helper()
		_ = r.round(t.Context(), tab.Snapshot(), all)
		if !slices.Equal(kernel.calls, want) {
			t.Errorf("%q, want %q", kernel.calls, want)
		}
		kernel.calls = nil
	}
	tab.SetComplete()
	for _, k := range []string{"a", "b", "c"} {
		tab.Set(k, 1)
	}
	round(false, "abc")
	if err := r.Err(); err == nil || !kernel.is(map[string]int{"a": 1, "c": 1}) {
		t.Errorf("%v, %v", kernel.rows, err)
	}
	kernel.set("b", false)
	tab.Set("d", 2)
	tab.Delete("a")
	tab.Set("c", 3)
	round(false, "d", "-a", "cb")
	round(false)
	if err := r.Err(); err != nil || !kernel.is(map[string]int{"b": 1, "c": 3, "d": 2}) {
		t.Errorf("%v, %v", kernel.rows, err)
	}
	round(true, "bcd")
	// What was deleted in part and is wanted again, as it was, is made again.
	kernel.set("b", true)
	tab.Delete("b")
	round(false, "-b")
	kernel.set("b", false)
	tab.Set("b", 1)
	round(false, "b")
	if err := r.Err(); err != nil || !kernel.is(map[string]int{"b": 1, "c": 3, "d": 2}) {
		t.Errorf("%v, %v", kernel.rows, err)
	}
}

func TestTxnReads(t *testing.T) {
	tab := New[string, int]("t", String)
	tab.Set("a", 1)
	tab.Update(func(x *Txn[string, int]) {
		x.Set("b", 2)
		if v, ok := x.Get("b"); !ok || v != 2 {
			t.Error("a transaction does not see its own write")
		}
		if got := fmt.Sprint(maps.Collect(x.All())); got != "map[a:1 b:2]" {
			t.Error(got)
		}
	})
}

// A reconciler against what it promises, with a kernel that fails now and then: after each round the kernel has the rows of the table that it
// took, nothing goes before the table is complete, and a row in force is not written twice.
func TestReconcilerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := New[string, int]("t", String)
		kernel := &target{rows: map[string]int{}, fail: map[string]bool{}}
		r := NewReconciler(Config{}, tab, kernel)
		key := rapid.SampledFrom([]string{"a", "b", "c"})
		inForce := map[string]int{} // by the kernel's own word
		late := map[string]bool{}   // the last write failed
		complete := false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				tab.Set(key.Draw(t, "set"), rapid.IntRange(1, 3).Draw(t, "row"))
				continue
			case 2:
				tab.Delete(key.Draw(t, "delete"))
				continue
			case 3:
				kernel.set(key.Draw(t, "key"), rapid.Bool().Draw(t, "fails"))
				continue
			case 4:
				if rapid.IntRange(0, 3).Draw(t, "complete") == 0 {
					tab.SetComplete()
					complete = true
				}
				continue
			}
			all := rapid.IntRange(0, 3).Draw(t, "all") == 0
			snap, before := tab.Snapshot(), kernel.writes
			due, failing := 0, false
			for _, k := range []string{"a", "b", "c"} {
				v, want := snap.Get(k)
				was, had := inForce[k]
				switch {
				case want && (all || !had || was != v):
					due++
					failing = failing || kernel.fail[k]
				case !want && complete:
					failing = failing || (had || late[k]) && kernel.fail[k]
				case !want:
					failing = failing || late[k]
				}
			}
			_ = r.round(context.Background(), snap, all)
			if err := r.Err(); (err != nil) != failing {
				t.Fatalf("fails: %v, says %v", failing, err)
			}
			if n := kernel.writes - before; n != due {
				t.Fatalf("%d writes, want %d", n, due)
			}
			for _, k := range []string{"a", "b", "c"} {
				v, want := snap.Get(k)
				switch {
				case want && kernel.fail[k] && (all || inForce[k] != v):
					delete(inForce, k) // what the kernel has of it is not known
					late[k] = true
				case want:
					inForce[k] = v
					delete(late, k)
					if kernel.rows[k] != v {
						t.Fatalf("%s is %d, want %d", k, kernel.rows[k], v)
					}
				case complete && kernel.fail[k]:
					late[k] = late[k] || inForce[k] != 0
					delete(inForce, k)
				case complete:
					delete(inForce, k)
					delete(late, k)
					if _, there := kernel.rows[k]; there {
						t.Fatalf("%s is there", k)
					}
				case !complete && inForce[k] != 0 && kernel.rows[k] != inForce[k]:
					t.Fatalf("%s has gone before the table was complete", k)
				}
			}
		}
	})
}
