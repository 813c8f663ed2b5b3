package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// Many agents allocate the same label sets at once: one number each, all different, and the store agrees.
func TestAllocateConcurrently(t *testing.T) {
	n := 10000
	if testing.Short() {
		n = 500
	}
	s1, config := pair(t)
	stores := []*Store{s1, ready(t, open(t, config("node2"))), ready(t, open(t, config("node3")))}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()

	sets := make([]model.Labels, n)
	for i := range sets {
		sets[i] = labels(t, fmt.Sprintf("app=a%d", i), "io.kubernetes.pod.namespace=default")
	}
	got := make([][]model.IdentityID, len(stores))
	news := make([]int, len(stores))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w, s := range stores {
		got[w] = make([]model.IdentityID, n)
		order := rand.Perm(n)
		for part := range 32 {
			wg.Go(func() {
				for j := part; j < n; j += 32 {
					i := order[j]
					id, isNew, err := s.Identities().Allocate(ctx, sets[i])
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					got[w][i] = id
					if isNew {
						news[w]++
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	owner := map[model.IdentityID]int{}
	for i := range sets {
		for w := range stores {
			id := got[w][i]
			if id != got[0][i] {
				t.Fatalf("labels %d are %d on one node and %d on another", i, got[0][i], id)
			}
			if id < 256 || id > 65535 {
				t.Fatalf("identity %d", id)
			}
		}
		if j, dup := owner[got[0][i]]; dup {
			t.Fatalf("labels %d and %d both are %d", i, j, got[0][i])
		}
		owner[got[0][i]] = i
	}
	if sum := news[0] + news[1] + news[2]; sum != n {
		t.Errorf("%d numbers were new, want %d: %v", sum, n, news)
	}
	masters := must[[]KV](t)(s1.List(ctx, identityMaster))
	uses := must[[]KV](t)(s1.List(ctx, identityValue))
	if len(masters) != n || len(uses) != n*len(stores) {
		t.Errorf("the store holds %d identities with %d uses", len(masters), len(uses))
	}
	for _, s := range stores {
		eventually(t, 20*time.Second, func() error {
			if got := s.Identities().Table().Snapshot().Len(); got != n {
				return fmt.Errorf("%d identities in the table", got)
			}
			return nil
		})
	}
}

// TestCase19Collector: the collector races with users that come and go: an identity in use never disappears and its number never means
// anything else.
func TestCase19Collector(t *testing.T) {
	sc := score.Start(t, "19", "identity collection against allocation")
	var allocations atomic.Int64
	cfg := embedded(t, "node1")
	addr := freePort(t)
	cfg.Listen = []string{"https://" + addr}
	cfg.GCInterval = time.Hour // rounds are made by hand
	cfg.Quarantine = 3 * time.Second
	s1 := ready(t, open(t, cfg))
	other := embedded(t, "node2")
	other.Endpoints, other.GCInterval = cfg.Listen, time.Hour
	other.TLS, _ = s1.ClientFiles()
	s2 := ready(t, open(t, other))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	end := time.Now().Add(time.Duration(score.Size(6, 60)) * time.Second)
	if testing.Short() {
		end = time.Now().Add(2 * time.Second)
	}

	type last struct {
		key string
		at  time.Time
	}
	var mu sync.Mutex
	freed := map[model.IdentityID]last{} // numbers seen collected, and when
	var wg sync.WaitGroup
	for _, s := range []*Store{s1, s2} { // two collectors at a time: the election need not be perfect
		c := &collector{s: s, idle: map[model.IdentityID]idleID{}}
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := c.round(ctx); err != nil {
					t.Error(err)
				}
			}
		})
		for w := range 16 {
			wg.Go(func() {
				for time.Now().Before(end) {
					ls := labels(t, fmt.Sprintf("app=a%d", rand.IntN(40)))
					id, isNew, err := s.Identities().Allocate(ctx, ls)
					if err != nil {
						t.Error(err)
						return
					}
					allocations.Add(1)
					mu.Lock()
					if was, ok := freed[id]; ok && isNew && was.key != ls.Key() && time.Since(was.at) < time.Second {
						t.Errorf("%d given to %s %v after it was %s", id, ls.Key(), time.Since(was.at), was.key)
					}
					freed[id] = last{ls.Key(), time.Now()} // not freed before now
					mu.Unlock()
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
					kv, err := s.Get(ctx, masterKey(id))
					if err != nil || string(kv.Value) != ls.Key() {
						t.Errorf("worker %d: %d is in use for %s, the store says %q, %v", w, id, ls.Key(), kv.Value, err)
					}
					if err := s.Identities().Release(id); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	sc.Count(int(allocations.Load()), "allocations")
	sc.Say("no identity in use was collected, none given to others early")
	// Without users all go, and their numbers rest.
	if err := errors.Join(s1.Flush(ctx), s2.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	c := &collector{s: s1, idle: map[model.IdentityID]idleID{}}
	for range idleRounds + 1 {
		if n := len(must[[]KV](t)(s1.List(ctx, identityMaster))); n == 0 {
			t.Fatal("collected before the grace was over")
		}
		if err := c.round(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if kvs := must[[]KV](t)(s1.List(ctx, identityRoot)); len(kvs) != 0 {
		t.Errorf("left: %v", kvs)
	}
	if kvs := must[[]KV](t)(s1.List(ctx, identityIndex)); len(kvs) != 0 {
		t.Errorf("left: %v", kvs)
	}
}

// Labels that come back while their last use is being withdrawn keep the new use: it is written when the removal is over,
// so that this cannot take it along.
func TestUseWaitsForOlderRemoval(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	d, l, ls := s.Identities(), s.leases, labels(t, "app=back")
	use := d.useKey(ls.Key())
	l.mu.Lock()
	l.removing[use] = true
	l.mu.Unlock()
	got := make(chan error, 1)
	go func() {
		_, _, err := d.Allocate(ctx, ls)
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("did not wait for the removal: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if kv, err := s.Get(ctx, use); err == nil {
		t.Fatalf("stored while the removal may still come: %v", kv)
	}
	l.mu.Lock()
	delete(l.removing, use)
	l.mu.Unlock()
	l.wake()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, use); err != nil {
		t.Fatalf("allocated, but the store does not say so: %v", err)
	}
}

func TestFreedNumberRests(t *testing.T) {
	cfg := embedded(t, "node1")
	cfg.GCInterval, cfg.Idle = time.Hour, 3*time.Hour+time.Minute
	s := ready(t, open(t, cfg))
	ctx := testContext(t)
	d := s.Identities()
	d.min, d.max = 256, 257
	a, b := labels(t, "a"), labels(t, "b")
	ida, _, err := d.Allocate(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Release(ida), s.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	c := &collector{s: s, idle: map[model.IdentityID]idleID{}}
	for i := range 5 { // found, and 4 that make up more than 3 h
		if kvs := must[[]KV](t)(s.List(ctx, identityMaster)); len(kvs) != 1 {
			t.Fatalf("collected after %d rounds", i)
		}
		if err := c.round(ctx); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 5*time.Second, func() error {
		if d.Table().Snapshot().Len() != 0 {
			return errors.New("not collected")
		}
		return nil
	})
	idb, _, err := d.Allocate(ctx, b)
	if err != nil || idb == ida {
		t.Fatalf("%d reused as %d at once, %v", ida, idb, err)
	}
	if id, _, err := d.Allocate(ctx, labels(t, "c")); !errors.Is(err, ErrExhausted) {
		t.Errorf("c: %d, %v; want exhausted", id, err)
	}
	if again, _, err := d.AllocateHint(ctx, a, ida); again != ida || err != nil { // it is theirs
		t.Errorf("a again: %d, %v; want %d", again, err, ida)
	}
}

func TestIdentityReferences(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	d := s.Identities()
	ls := labels(t, "a")
	id, isNew, err := d.Allocate(ctx, ls)
	if err != nil || !isNew {
		t.Fatal(id, isNew, err)
	}
	if again, isNew, err := d.Allocate(ctx, ls); again != id || isNew || err != nil {
		t.Fatal(again, isNew, err)
	}
	use := identityValue + ls.Key() + "/node1"
	if err := errors.Join(d.Release(id), s.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	must[KV](t)(s.Get(ctx, use))
	if err := errors.Join(d.Release(id), s.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, use); !errors.Is(err, ErrNoKey) {
		t.Errorf("still in use: %v", err)
	}
	if err := d.Release(id); !errors.Is(err, ErrNotHeld) {
		t.Errorf("released once too often: %v", err)
	}
	for _, bad := range []model.Labels{
		nil, {{Source: "k8s", Key: "a", Value: "x;k8s:admin=true"}}, {{Source: "k8s", Key: "b"}, {Source: "k8s", Key: "a"}},
		{{Source: "k8s", Key: "a", Value: "\n"}}, {{Key: "a"}},
	} {
		if id, _, err := d.Allocate(ctx, bad); !errors.Is(err, ErrLabels) {
			t.Errorf("%v: %d, %v", bad, id, err)
		}
	}
}

// A node cut off for longer than its lease loses its claim; back, it gets it again, or learns of another number.
func TestIdentityLostWhileCutOff(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	d := s.Identities()
	same, other := labels(t, "same"), labels(t, "other")
	id1, _, err1 := d.Allocate(ctx, same)
	id2, _, err2 := d.Allocate(ctx, other)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	// What a collector does, and then somebody else with the number of the second.
	_, err := s.cli.Txn(ctx).Then(
		clientv3.OpDelete(masterKey(id1)), clientv3.OpDelete(identityIndex, clientv3.WithPrefix()),
		clientv3.OpPut(masterKey(id2), "k8s:thief=;"), clientv3.OpDelete(identityValue, clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		t.Fatal(err)
	}
	must[int64](t)(s.Set(ctx, identityIndex+"k8s:thief=;", []byte(fmt.Sprint(uint32(id2)))))
	lease, _, _, _ := s.leases.state()
	if _, err := s.cli.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	s.leases.lost(lease)
	select {
	case m := <-d.Moved():
		if m.Old != id2 || m.New == id2 || m.Labels.Key() != other.Key() {
			t.Errorf("%+v", m)
		}
		if err := d.Release(m.New); err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Fatal("not told of the new number")
	}
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if kv := must[KV](t)(s.Get(ctx, masterKey(id1))); string(kv.Value) != same.Key() {
		t.Errorf("%d is %q", id1, kv.Value)
	}
	must[KV](t)(s.Get(ctx, identityValue+same.Key()+"/node1"))
}
