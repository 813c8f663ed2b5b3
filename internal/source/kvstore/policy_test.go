package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

func testPolicy(key, text string) StoredPolicy {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return StoredPolicy{Key: key, Ref: model.PolicyRef{Name: key}, Raw: raw}
}

func keysOf(ps []StoredPolicy) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Key)
	}
	return strings.Join(out, " ")
}

func TestPolicyImport(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	p := s.Policies()
	if snap := p.Snapshot(); snap.Revision != 0 || snap.Policies.Len() != 0 || !snap.Complete {
		t.Fatalf("%+v", snap)
	}
	check := func(rev uint64, err error, wantRev uint64, want string) {
		t.Helper()
		if err != nil || rev != wantRev {
			t.Fatalf("revision %d, %v; want %d", rev, err, wantRev)
		}
		if err := p.WaitRevision(ctx, rev); err != nil {
			t.Fatal(err)
		}
		if snap := p.Snapshot(); snap.Revision != rev || keysOf(rows(snap.Policies)) != want {
			t.Fatalf("revision %d: %s; want %s", snap.Revision, keysOf(rows(snap.Policies)), want)
		}
	}
	rev, err := p.Import(ctx, []StoredPolicy{testPolicy("b", "1"), testPolicy("a", "1")}, nil)
	check(rev, err, 1, "a b")
	rev, err = p.Import(ctx, []StoredPolicy{testPolicy("a", "2")}, nil)
	check(rev, err, 2, "a b")
	if got := rows(p.Snapshot().Policies)[0]; string(got.Raw) != `"2"` || got.Ref.Revision != 2 {
		t.Errorf("%+v", got)
	}
	rev, err = p.Import(ctx, []StoredPolicy{testPolicy("c", "1")}, func(sp StoredPolicy) bool { return sp.Ref.Name == "a" })
	check(rev, err, 3, "b c")
	rev, n, err := p.Delete(ctx, func(sp StoredPolicy) bool { return sp.Key == "none" })
	check(rev, err, 3, "b c")
	if n != 0 {
		t.Error(n)
	}
	rev, n, err = p.Delete(ctx, func(StoredPolicy) bool { return true })
	check(rev, err, 4, "")
	if n != 2 {
		t.Error(n)
	}
	for _, bad := range [][]StoredPolicy{{testPolicy("", "")}, {testPolicy("x", ""), testPolicy("x", "")}, {{Key: "x", Raw: []byte("{")}},
		{testPolicy("a\nb", "")}, {testPolicy("x", strings.Repeat("x", maxRequest))}} {
		if _, err := p.Import(ctx, bad, nil); err == nil {
			t.Errorf("%.40q accepted", bad[0].Key)
		}
	}
	check(p.Snapshot().Revision, nil, 4, "")
}

// Writers on two nodes race; readers on both must see every revision's rows as its writer left them, never a mixture.
// Node 2 writes large changes, in many transactions; every revision stores a generation and puts it into all rows.
func TestPolicyAtomic(t *testing.T) {
	s1, config := pair(t)
	s2 := ready(t, open(t, config("node2")))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var wg, readers sync.WaitGroup
	done := make(chan struct{})
	var mu sync.Mutex
	written := map[uint64]string{}
	for i, s := range []*Store{s1, s2} {
		readers.Go(func() {
			for seen := uint64(0); ; {
				snap := s.Policies().Snapshot()
				if snap.Revision < seen {
					t.Errorf("revision went back from %d to %d", seen, snap.Revision)
				}
				seen = snap.Revision
				gens := map[string]int{}
				for _, p := range snap.Policies.All() {
					gens[string(p.Raw)]++
					if p.Ref.Revision != snap.Revision {
						t.Errorf("revision %d holds a row of revision %d", snap.Revision, p.Ref.Revision)
						return
					}
				}
				if len(gens) > 1 {
					t.Errorf("revision %d is a mixture: %v", snap.Revision, gens)
					return
				}
				for g, n := range gens {
					if want := strings.Split(g, " ")[1]; fmt.Sprintf("%d\"", n) != want {
						t.Errorf("revision %d has %d rows of %s", snap.Revision, n, g)
						return
					}
				}
				select {
				case <-snap.Changed():
				case <-done:
					return
				}
			}
		})
		wg.Go(func() {
			for g := range 12 {
				n := 1 + rand.IntN(30)
				if i == 1 {
					n = 100 + rand.IntN(400) // more than fits into a transaction of another etcd
				}
				var ps []StoredPolicy
				text := fmt.Sprintf("n%d-g%d %d", i, g, n)
				for k := range n {
					ps = append(ps, testPolicy(fmt.Sprintf("p/%d", k), text))
				}
				rev, err := s.Policies().Import(ctx, ps, func(StoredPolicy) bool { return true })
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if old, dup := written[rev]; dup {
					t.Errorf("revision %d is both %s and %s", rev, old, text)
				}
				written[rev] = text
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	top := slices.Max(slices.Collect(maps.Keys(written)))
	for _, s := range []*Store{s1, s2} {
		if err := s.Policies().WaitRevision(ctx, top); err != nil {
			t.Fatal(err)
		}
		snap := s.Policies().Snapshot()
		if got := string(rows(snap.Policies)[0].Raw); got != `"`+written[top]+`"` {
			t.Errorf("%s in force, want %s", got, written[top])
		}
	}
	close(done)
	readers.Wait()
	if top != uint64(len(written)) {
		t.Errorf("%d revisions for %d changes", top, len(written))
	}
	eventually(t, 5*time.Second, func() error {
		if kvs := must[[]KV](t)(s1.List(ctx, policyStaged)); len(kvs) != 0 {
			return fmt.Errorf("%d staged keys left", len(kvs))
		}
		return nil
	})
}

// The writer of a large change dies behind the commit: it is in force, and the next writer finishes it.
func TestPolicyStagedLeftBehind(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	p := s.Policies()
	must[uint64](t)(p.Import(ctx, []StoredPolicy{testPolicy("old", "1"), testPolicy("kept", "1")}, nil))
	part0, _ := json.Marshal(policyChange{Put: []StoredPolicy{testPolicy("x", "1")}})
	part1, _ := json.Marshal(policyChange{Put: []StoredPolicy{testPolicy("y", "1")}, Delete: []string{"old"}})
	must[int64](t)(s.Set(ctx, policyStaged+"abandoned/0", part1))
	must[int64](t)(s.Set(ctx, policyStaged+"C/0", part0))
	must[int64](t)(s.Set(ctx, policyStaged+"C/1", part1))
	must[int64](t)(s.Set(ctx, policyRevision, []byte("2 C 2")))
	if err := p.WaitRevision(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(rows(p.Snapshot().Policies)); got != "kept x y" {
		t.Fatal(got)
	}
	rev := must[uint64](t)(p.Import(ctx, []StoredPolicy{testPolicy("z", "1")}, nil))
	if err := p.WaitRevision(ctx, 3); err != nil || rev != 3 {
		t.Fatal(rev, err)
	}
	if got := keysOf(rows(p.Snapshot().Policies)); got != "kept x y z" {
		t.Fatal(got)
	}
	if kvs := must[[]KV](t)(s.List(ctx, policyStaged)); len(kvs) != 0 {
		t.Errorf("left: %v", kvs)
	}
	// A change of which a part is missing is not in force.
	must[int64](t)(s.Set(ctx, policyRevision, []byte("4 D 1")))
	time.Sleep(200 * time.Millisecond)
	if snap := p.Snapshot(); snap.Revision != 3 || keysOf(rows(snap.Policies)) != "kept x y z" {
		t.Errorf("%+v", snap)
	}
}

// A store that has lost its data gets the policies back and nothing is ever open meanwhile.
func TestPolicySurvivesStoreLoss(t *testing.T) {
	cfg := embedded(t, "node1")
	s := ready(t, open(t, cfg))
	ctx := testContext(t)
	must[uint64](t)(s.Policies().Import(ctx, []StoredPolicy{testPolicy("a", "1")}, nil))
	rev := must[uint64](t)(s.Policies().Import(ctx, []StoredPolicy{testPolicy("b", "1")}, nil))
	if err := s.Policies().WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	ls := labels(t, "app=x")
	id, _, err := s.Identities().Allocate(ctx, ls)
	if err != nil {
		t.Fatal(err)
	}
	// While it runs:
	must[int64](t)(s.Delete(ctx, policyRoot, true))
	eventually(t, 5*time.Second, func() error { _, err := s.Get(ctx, policyRules+"a"); return err })
	if snap := s.Policies().Snapshot(); snap.Revision != rev || keysOf(rows(snap.Policies)) != "a b" {
		t.Errorf("%+v", snap)
	}
	eventually(t, 5*time.Second, func() error { return has(s.Identities().Table().Get, id) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// While it does not:
	if err := os.RemoveAll(cfg.Paths.Etcd()); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if snap := s.Policies().Snapshot(); snap.Revision != rev || keysOf(rows(snap.Policies)) != "a b" {
		t.Errorf("before the store has answered: %+v", snap)
	}
	ready(t, s)
	if snap := s.Policies().Snapshot(); snap.Revision != rev || keysOf(rows(snap.Policies)) != "a b" || !snap.Complete {
		t.Errorf("%+v", snap)
	}
	eventually(t, 5*time.Second, func() error { _, err := s.Get(ctx, policyRules+"b"); return err })
	if next := must[uint64](t)(s.Policies().Import(ctx, []StoredPolicy{testPolicy("c", "1")}, nil)); next != rev+1 {
		t.Errorf("revision %d after %d", next, rev)
	}
	if again, _, err := s.Identities().AllocateHint(ctx, ls, id); again != id || err != nil {
		t.Errorf("identity %d became %d, %v", id, again, err)
	}
}

func TestPolicyUnreachable(t *testing.T) {
	cfg := embedded(t, "node1")
	cfg.Endpoints = []string{"http://" + freePort(t)}
	s := open(t, cfg)
	if _, err := s.Policies().Import(testContext(t), []StoredPolicy{testPolicy("a", "1")}, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
