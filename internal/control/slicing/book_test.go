package slicing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// world is an API server with endpoints and slices, and who keeps the slices.
type world struct {
	most   int
	wanted map[Key]int
	stored map[string]*Slice[int]
	book   *Book[int]
	made   int
}

func newWorld(most int) *world {
	w := &world{most: most, wanted: map[Key]int{}, stored: map[string]*Slice[int]{}}
	w.restart()
	return w
}

// restart has another one begin from what is there.
func (w *world) restart() {
	w.book = New(w.most, func(a, b int) bool { return a == b }, func() string { w.made++; return fmt.Sprintf("s%03d", w.made) })
	for name, s := range w.stored {
		w.book.Stored(name, s)
	}
	for k, v := range w.wanted {
		w.book.Put(k, v)
	}
	w.book.Begin()
}

func (w *world) put(k Key, v int) { w.wanted[k] = v; w.book.Put(k, v) }
func (w *world) drop(k Key)       { delete(w.wanted, k); w.book.Drop(k) }

// edit is somebody else's doing; nil: he deletes it.
func (w *world) edit(name string, s *Slice[int]) {
	delete(w.stored, name)
	if s != nil {
		w.stored[name] = s
	}
	w.book.Stored(name, s)
}

// write writes one slice, and says whether that was needed.
func (w *world) write(name string) bool {
	want, change := w.book.Order(name)
	if change {
		w.edit(name, want)
	}
	return change
}

// settle writes what is due until nothing is.
func (w *world) settle() error {
	for range 1000 {
		due := w.book.Due()
		if len(due) == 0 {
			return nil
		}
		for _, name := range due {
			w.write(name)
		}
	}
	return errors.New("it does not come to an end")
}

// found is where readers find endpoints.
func (w *world) found() map[Key][]string {
	out := map[Key][]string{}
	for _, name := range slices.Sorted(maps.Keys(w.stored)) {
		for n := range w.stored[name].Entries {
			k := Key{w.stored[name].Namespace, n}
			out[k] = append(out[k], name)
		}
	}
	return out
}

// check says what is wrong once nothing is due.
func (w *world) check() error {
	for name, s := range w.stored {
		switch {
		case len(s.Entries) == 0:
			return fmt.Errorf("%s is empty", name)
		case len(s.Entries) > w.most:
			return fmt.Errorf("%s has %d entries", name, len(s.Entries))
		case s.Twice:
			return fmt.Errorf("%s says something twice", name)
		}
		for n, v := range s.Entries {
			if want, ok := w.wanted[Key{s.Namespace, n}]; !ok || want != v {
				return fmt.Errorf("%s says %d of %s/%s, which is %d %v", name, v, s.Namespace, n, want, ok)
			}
		}
	}
	found := w.found()
	for k := range w.wanted {
		if len(found[k]) != 1 {
			return fmt.Errorf("%v is in %v", k, found[k])
		}
	}
	for name := range w.stored {
		if _, change := w.book.Order(name); change {
			return fmt.Errorf("%s is to be written still", name)
		}
	}
	return nil
}

func names(space string, from, n int) (out []Key) {
	for i := range n {
		out = append(out, Key{space, fmt.Sprintf("e%02d", from+i)})
	}
	return out
}

func entries(keys ...[]Key) map[string]int {
	out := map[string]int{}
	for _, ks := range keys {
		for _, k := range ks {
			out[k.Name] = 1
		}
	}
	return out
}

func TestBook(t *testing.T) {
	for _, c := range []struct {
		name   string
		stored map[string]*Slice[int]
		wanted []Key
		want   map[string]int // slices, and how many entries they have
	}{
		{"from nothing", nil, slices.Concat(names("a", 0, 7), names("b", 0, 2)), map[string]int{"s001": 3, "s002": 3, "s003": 1, "s004": 2}},
		{"nothing left", map[string]*Slice[int]{"x": {Namespace: "a", Entries: entries(names("a", 0, 2))}}, nil, map[string]int{}},
		{"empty", map[string]*Slice[int]{"x": {Namespace: "a"}}, nil, map[string]int{}},
		{"of no namespace", map[string]*Slice[int]{"x": {Entries: entries(names("a", 0, 2))}}, names("a", 0, 2), map[string]int{"s001": 2}},
		{"the fullest takes it", map[string]*Slice[int]{"x": {Namespace: "a", Entries: entries(names("a", 0, 1))}, "y": {Namespace: "a", Entries: entries(names("a", 1, 2))}},
			names("a", 0, 4), map[string]int{"x": 1, "y": 3}},
		{"too full", map[string]*Slice[int]{"x": {Namespace: "a", Entries: entries(names("a", 0, 8))}}, names("a", 0, 8), map[string]int{"x": 3, "s001": 3, "s002": 2}},
		{"in two", map[string]*Slice[int]{"x": {Namespace: "a", Entries: entries(names("a", 0, 3))}, "y": {Namespace: "a", Entries: entries(names("a", 2, 2))}},
			names("a", 0, 4), map[string]int{"x": 3, "y": 1}},
		{"said twice", map[string]*Slice[int]{"x": {Namespace: "a", Entries: entries(names("a", 0, 3)), Twice: true}}, names("a", 0, 3), map[string]int{"x": 3}},
		{"of another namespace", map[string]*Slice[int]{"x": {Namespace: "b", Entries: entries(names("a", 0, 3))}}, names("a", 0, 3), map[string]int{"s001": 3}},
	} {
		w := newWorld(3)
		w.stored = maps.Clone(c.stored)
		if w.stored == nil {
			w.stored = map[string]*Slice[int]{}
		}
		for _, k := range c.wanted {
			w.wanted[k] = 1
		}
		w.restart()
		if err := errors.Join(w.settle(), w.check()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := map[string]int{}
		for name, s := range w.stored {
			got[name] = len(s.Entries)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// A slice that changes many times before it is written is written once.
func TestOnce(t *testing.T) {
	w := newWorld(100)
	for i, k := range names("a", 0, 20) {
		w.put(k, i)
	}
	due := w.book.Due()
	if len(due) != 1 || !w.write(due[0]) || w.write(due[0]) || len(w.stored[due[0]].Entries) != 20 {
		t.Errorf("%v: %+v", due, w.stored)
	}
}

// What moves is in its new slice before it is out of the old one, whatever order they are written in.
func TestMove(t *testing.T) {
	w := newWorld(2)
	w.stored["x"] = &Slice[int]{Namespace: "a", Entries: entries(names("a", 0, 4))}
	for _, k := range names("a", 0, 4) {
		w.wanted[k] = 1
	}
	w.restart()
	if w.write("x") {
		t.Errorf("written before what is to leave it is elsewhere: %v", w.stored["x"])
	}
	w.write("s001")
	if !w.write("x") || len(w.stored["x"].Entries) != 2 || len(w.stored["s001"].Entries) != 2 {
		t.Errorf("%+v", w.stored)
	}
}

// Before it has begun nothing is due.
func TestBegin(t *testing.T) {
	b := New(2, func(a, b int) bool { return a == b }, func() string { return "s" })
	b.Stored("x", &Slice[int]{Namespace: "a", Entries: map[string]int{"e": 1, "f": 1}})
	b.Put(Key{"a", "e"}, 1)
	if due := b.Due(); due != nil {
		t.Errorf("due: %v", due)
	}
	if d := cmp.Diff(map[Key]bool{{"a", "f"}: true}, b.Unknown()); d != "" {
		t.Error(d)
	}
	b.Begin()
	if d := cmp.Diff([]string{"x"}, b.Due()); d != "" {
		t.Error(d)
	}
}

// Whatever comes, goes and is meddled with: readers find what nobody but the keeper touches, nothing moves without need, and in the end
// each endpoint is in one slice of its namespace with no more than there may be.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(1, 4).Draw(t, "most"))
		key := func(t *rapid.T) Key {
			return Key{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), fmt.Sprintf("e%02d", rapid.IntRange(0, 11).Draw(t, "name"))}
		}
		some := func(t *rapid.T) string {
			return rapid.SampledFrom(append(slices.Sorted(maps.Keys(w.stored)), "x", "y")).Draw(t, "slice")
		}
		settled := map[Key][]string{} // where what was settled and not meddled with is
		steady := true
		end := func(t *rapid.T) {
			if err := errors.Join(w.settle(), w.check()); err != nil {
				t.Fatal(err)
			}
			found := w.found()
			for k, was := range settled {
				if steady && !slices.Equal(found[k], was) {
					t.Fatalf("%v moved from %v to %v", k, was, found[k])
				}
			}
			settled, steady = found, true
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { w.put(key(t), rapid.IntRange(0, 2).Draw(t, "value")) },
			"drop": func(t *rapid.T) {
				k := key(t)
				delete(settled, k)
				w.drop(k)
			},
			"write": func(t *rapid.T) {
				before := w.found()
				for _, name := range w.book.Due() {
					if rapid.Bool().Draw(t, "now") {
						w.write(name)
					} else {
						w.book.due[name] = true
					}
				}
				found := w.found()
				for k := range before {
					if _, there := w.wanted[k]; there && len(found[k]) == 0 {
						t.Fatalf("%v is in no slice", k)
					}
				}
			},
			"meddle": func(t *rapid.T) {
				steady = false
				name := some(t)
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					w.edit(name, nil)
					return
				}
				s := &Slice[int]{Namespace: rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "namespace"), Entries: map[string]int{}, Twice: rapid.Bool().Draw(t, "twice")}
				for range rapid.IntRange(0, 7).Draw(t, "entries") {
					s.Entries[key(t).Name] = rapid.IntRange(0, 3).Draw(t, "value")
				}
				w.edit(name, s)
			},
			"restart": func(*rapid.T) { w.restart() },
			"fewer": func(t *rapid.T) {
				steady = false
				w.most = rapid.IntRange(1, 4).Draw(t, "most")
				w.restart()
			},
			"settle": end,
		})
		end(t)
	})
}

func TestRates(t *testing.T) {
	r := Rates{{Nodes: 100, Limit: 50}, {Nodes: 10, Limit: 5}, {Nodes: 500, Limit: 99}}
	for nodes, want := range map[int]float64{0: 5, 10: 5, 99: 5, 100: 50, 499: 50, 500: 99, 10000: 99} {
		if got := r.For(nodes); got.Limit != want {
			t.Errorf("%d nodes: %v", nodes, got)
		}
	}
}
