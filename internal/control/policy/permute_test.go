package policy_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
)

// TestPermutations: the order in which news arrive, one by one or together, does not show in any verdict.
func TestPermutations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		var c policy.Changes
		w.populate(t, &c)
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			w.change(t)
		}
		all := w.everything()
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		first := w.arrive(t, all, r)
		for range 3 {
			next := w.arrive(t, all, r)
			for _, q := range questions(slices.Sorted(maps.Keys(w.subjects)), w.peersOf(w.identities), outside) {
				if a, b := first.answer(q, w.dual()), next.answer(q, w.dual()); a != b {
					t.Fatalf("%+v: %+v in one order, %+v in another", q, a, b)
				}
			}
		}
	})
}

// arrive feeds everything to a new engine in some order, in batches of some size. Identities come before the endpoints
// that have them.
func (w *world) arrive(t *rapid.T, all policy.Changes, r *rand.Rand) *fakeKernel {
	var parts []policy.Changes
	for _, p := range all.Policies {
		parts = append(parts, policy.Changes{Policies: append(all.Policies[:0:0], p)})
	}
	for _, g := range all.CIDRGroups {
		parts = append(parts, policy.Changes{CIDRGroups: append(all.CIDRGroups[:0:0], g)})
	}
	for _, id := range all.Identities {
		part := policy.Changes{Identities: []policy.Identity{id}}
		for _, s := range all.Subjects {
			if s.Identity == id.ID {
				part.Subjects = append(part.Subjects, s)
			}
		}
		parts = append(parts, part)
	}
	e, err := policy.New(w.cfg, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	k := newFakeKernel()
	parts = shuffled(r, parts)
	for len(parts) > 0 {
		n := 1 + r.IntN(len(parts))
		var c policy.Changes
		for _, p := range parts[:n] {
			c.Policies, c.CIDRGroups = append(c.Policies, p.Policies...), append(c.CIDRGroups, p.CIDRGroups...)
			c.Identities, c.Subjects = append(c.Identities, p.Identities...), append(c.Subjects, p.Subjects...)
		}
		plan, err := e.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		k.apply(plan, r, nil)
		parts = parts[n:]
	}
	return k
}
