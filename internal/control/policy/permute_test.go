package policy_test

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/policygen"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

const orders = 10 // of each world

// TestCase20EventPermutation: the same news in any order, one by one or together, with detours (a policy that is replaced,
// a workload that comes and goes), leave maps of the same content, and that content says what the evaluator says.
func TestCase20EventPermutation(t *testing.T) {
	c := score.Start(t, "20", "event permutation")
	want, n := score.Size(2000, 100_000), 0
	policygen.Repeat(t, c.Rand(), 170*time.Second, func() bool { return n >= want }, func(t *rapid.T) {
		w := newWorld(t)
		var news policy.Changes
		w.populate(t, &news)
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			w.change(t)
		}
		chains := w.chains(t)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		first := ""
		for i := range orders {
			k, e := w.arrive(t, chains, r)
			digest := k.digest()
			if i == 0 {
				w.compare(t, k, e, r)
				first = digest
			}
			if digest != first {
				t.Fatalf("one order leaves\n%s\nanother\n%s", first, digest)
			}
		}
		n += orders
	})
	c.Count(n, "orders")
	c.Say("digest of the maps equal, verdicts the evaluator's; %d orders a world", orders)
	if n < want {
		c.Say("digest of the maps equal, verdicts the evaluator's; stopped after 170 s, short of %d", want)
	}
}

// chains are the news that make the world, those of one thing in the order in which they must come. Identities come with
// the endpoints that have them.
func (w *world) chains(t *rapid.T) [][]policy.Changes {
	all := w.everything()
	var out [][]policy.Changes
	for _, p := range all.Policies {
		chain := []policy.Changes{{Policies: append(all.Policies[:0:0], p)}}
		if rapid.IntRange(0, 2).Draw(t, "replaced") == 0 {
			was := genPolicy(t)
			was.Key, was.Ref = p.Key, p.Ref
			chain = append([]policy.Changes{{Policies: append(all.Policies[:0:0], was)}}, chain...)
		}
		out = append(out, chain)
	}
	for _, g := range all.CIDRGroups {
		out = append(out, []policy.Changes{{CIDRGroups: append(all.CIDRGroups[:0:0], g)}})
	}
	for _, id := range all.Identities {
		part := policy.Changes{Identities: []policy.Identity{id}}
		for _, s := range all.Subjects {
			if s.Identity == id.ID {
				part.Subjects = append(part.Subjects, s)
			}
		}
		out = append(out, []policy.Changes{part})
	}
	for _, a := range inside {
		chain := []policy.Changes{{Addresses: map[netip.Addr][]model.IdentityID{a: w.homes[a]}}}
		if rapid.IntRange(0, 2).Draw(t, "before") == 0 {
			chain = append([]policy.Changes{{Addresses: map[netip.Addr][]model.IdentityID{a: {1000, 1001}}}}, chain...)
		}
		if w.homes[a] == nil {
			chain = append(chain[:len(chain)-1], policy.Changes{DeleteAddresses: []netip.Addr{a}})
		}
		out = append(out, chain)
	}
	if rapid.Bool().Draw(t, "gone") {
		ghost := genIdentity(t)
		ghost.ID = 1099
		sub := policy.Subject{Endpoint: 9, Identity: ghost.ID}
		out = append(out, []policy.Changes{{Identities: []policy.Identity{ghost}, Subjects: []policy.Subject{sub}},
			{DeleteSubjects: []uint16{9}, DeleteIdentities: []model.IdentityID{ghost.ID}}})
	}
	return out
}

// arrive feeds the chains to a new engine, interleaved in some order, in batches of some size.
func (w *world) arrive(t *rapid.T, chains [][]policy.Changes, r *rand.Rand) (*fakeKernel, *policy.Engine) {
	e, err := policy.New(w.cfg, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	k := newFakeKernel()
	var turns []int // whose next piece comes
	for i, c := range chains {
		for range c {
			turns = append(turns, i)
		}
	}
	turns = shuffled(r, turns)
	next := make([]int, len(chains))
	for len(turns) > 0 {
		n := 1 + r.IntN(len(turns))
		var c policy.Changes
		in := map[int]bool{}
		for len(turns) > 0 && n > 0 && !in[turns[0]] { // a batch says one thing about one thing
			i := turns[0]
			p := chains[i][next[i]]
			in[i], turns, n = true, turns[1:], n-1
			next[i]++
			c.Policies, c.CIDRGroups = append(c.Policies, p.Policies...), append(c.CIDRGroups, p.CIDRGroups...)
			c.Identities, c.Subjects = append(c.Identities, p.Identities...), append(c.Subjects, p.Subjects...)
			if len(p.Addresses) > 0 && c.Addresses == nil {
				c.Addresses = map[netip.Addr][]model.IdentityID{}
			}
			maps.Copy(c.Addresses, p.Addresses)
			c.DeleteAddresses = append(c.DeleteAddresses, p.DeleteAddresses...)
			c.DeleteSubjects, c.DeleteIdentities = append(c.DeleteSubjects, p.DeleteSubjects...), append(c.DeleteIdentities, p.DeleteIdentities...)
		}
		for _, ep := range c.DeleteSubjects {
			delete(k.endpoints, ep)
		}
		plan, err := e.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		k.apply(plan, r, nil)
	}
	return k, e
}

// digest is what the maps say, their numbers (which depend on the order) replaced by what they stand for: sets by their
// endpoints, classes by their members, identities of prefixes by these.
func (k *fakeKernel) digest() string {
	prefixes := map[model.IdentityID]netip.Prefix{}
	for p, id := range k.prefixes {
		prefixes[id] = p
	}
	areas := map[model.AreaID]netip.Prefix{}
	for p, a := range k.areas {
		areas[a.ID] = p
	}
	classes, sets := map[model.ClassID][]string{0: {"any"}}, map[model.SetID][]string{}
	for id, c := range k.classes {
		who := id.Identity.String()
		if p, ok := prefixes[id.Identity]; ok {
			who = p.String()
		}
		if id.Area != 0 {
			who += " in " + areas[id.Area].String()
		}
		classes[c] = append(classes[c], who)
	}
	for ep, s := range k.endpoints {
		sets[s] = append(sets[s], fmt.Sprint(ep))
	}
	names := func(in []string) string {
		slices.Sort(in)
		return strings.Join(in, ",")
	}
	var rows []string
	for key, l := range k.lists {
		rows = append(rows, fmt.Sprintf("endpoints %s, peers %s, %s: %v", names(sets[key.Set]), names(classes[key.Class]), key.Dir, l))
	}
	for _, members := range classes {
		rows = append(rows, "class "+names(members))
	}
	rows = append(rows, fmt.Sprint(slices.SortedFunc(maps.Keys(k.prefixes), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})))
	slices.Sort(rows)
	text := strings.Join(rows, "\n")
	return fmt.Sprintf("%x\n%s", sha256.Sum256([]byte(text)), text)
}
