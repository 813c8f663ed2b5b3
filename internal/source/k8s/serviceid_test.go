package k8s

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/model"
)

// Whatever was added and removed on the way, the same frontends have the same numbers, each its own, and who is told to have changed
// is who has. The hash of the test meets itself all the time.
func TestServiceIDsDependOnTheSetOnly(t *testing.T) {
	hash := func(f string, try int) model.ServiceID { return hashFrontend(f, try)%40 + 1 }
	r := rand.New(rand.NewPCG(1, 2))
	names := make([]string, 36)
	for i := range names {
		names[i] = fmt.Sprint("f", i)
	}
	fresh := func(set map[string]bool) map[string]model.ServiceID {
		ids := newServiceIDs()
		ids.hash = hash
		for f := range set {
			ids.add(f)
		}
		return numbers(t, ids, set)
	}
	ids, set := newServiceIDs(), map[string]bool{}
	ids.hash = hash
	for range 3000 {
		f := names[r.IntN(len(names))]
		before := numbers(t, ids, set)
		var changed []string
		if set[f] {
			delete(set, f)
			changed = ids.remove(f)
			delete(before, f)
		} else {
			set[f] = true
			changed = ids.add(f)
		}
		after := numbers(t, ids, set)
		if d := cmp.Diff(fresh(set), after); d != "" {
			t.Fatal(d)
		}
		for _, c := range changed {
			before[c] = after[c]
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Fatalf("changed without a word: %s", d)
		}
	}
}

func numbers(t *testing.T, ids *serviceIDs, set map[string]bool) map[string]model.ServiceID {
	out, seen := map[string]model.ServiceID{}, map[model.ServiceID]string{}
	for f := range maps.Keys(set) {
		id := ids.of(f)
		if other, ok := seen[id]; ok || id == 0 {
			t.Fatalf("%s and %s have number %d", f, other, id)
		}
		out[f], seen[id] = id, f
	}
	if len(ids.given) != len(set) || len(ids.taken) != len(set) {
		t.Fatalf("%d given, %d taken, of %d", len(ids.given), len(ids.taken), len(set))
	}
	return out
}

func TestHashFrontend(t *testing.T) {
	if a, b := hashFrontend("x", 0), hashFrontend("x", 1); a == b || a == 0 || a > maxServiceID {
		t.Errorf("%d %d", a, b)
	}
}
