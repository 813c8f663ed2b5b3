package kvstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func testIP(n byte) model.IPEntry {
	return model.IPEntry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 2, n}), 32), Identity: 300, Tunnel: netip.MustParseAddr("192.0.2.2")}
}

// TestCase12BlackHoleThenCompaction: the store disappears without a word, its history is compacted meanwhile; after it is back all is
// in step within 30 s, and waiting costs next to nothing.
func TestCase12BlackHoleThenCompaction(t *testing.T) {
	sc := score.Start(t, "12", "etcd black hole, then compaction")
	sc.Count(1, "loss")
	s1, config := pair(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cfg := config("node2")
	p := newProxy(t, strings.TrimPrefix(cfg.Endpoints[0], "https://"))
	cfg.Endpoints = []string{"https://" + p.addr()}
	s2 := ready(t, open(t, cfg))
	for i := range 3 {
		if err := s1.Nodes().Publish(testNode("node1", byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	row := testIP(9)
	if err := s1.IPs().Publish(row); err != nil {
		t.Fatal(err)
	}
	ls := labels(t, "app=known")
	id, _, err := s2.Identities().Allocate(ctx, ls)
	if err != nil {
		t.Fatal(err)
	}
	must[uint64](t)(s1.Policies().Import(ctx, []StoredPolicy{testPolicy("a", "1")}, nil))
	eventually(t, 5*time.Second, func() error { return has(s2.IPs().Table().Get, row.Prefix) })
	if err := s2.Policies().WaitRevision(ctx, 1); err != nil {
		t.Fatal(err)
	}

	p.hold()
	// The world goes on: a row goes, another comes, policies change, history is cut.
	s1.IPs().Withdraw(row.Prefix)
	if err := errors.Join(s1.IPs().Publish(testIP(10)), s1.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	for g := range 5 {
		must[uint64](t)(s1.Policies().Import(ctx, []StoredPolicy{testPolicy("a", fmt.Sprint("g", g))}, nil))
	}
	rev := must[int64](t)(s1.Set(ctx, "x", nil))
	if _, err := s1.cli.Compact(ctx, rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, func() error {
		if st := s2.Status(); st.Connected || st.Err == "" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	// Meanwhile: what was known stays, known labels get their number, others a clear error, soon.
	began := time.Now()
	if again, _, err := s2.Identities().Allocate(ctx, ls); again != id || err != nil {
		t.Errorf("known labels: %d, %v", again, err)
	}
	if _, _, err := s2.Identities().Allocate(ctx, labels(t, "app=new")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("new labels: %v", err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("took %v to say so", d)
	}
	if err := has(s2.IPs().Table().Get, row.Prefix); err != nil {
		t.Errorf("forgot what it knew: %v", err)
	}
	if snap := s2.Policies().Snapshot(); snap.Revision != 1 || snap.Policies.Len() != 1 {
		t.Errorf("%+v", snap)
	}
	cpu := cpuTime(t)
	time.Sleep(3 * time.Second)
	if used := cpuTime(t) - cpu; used > 450*time.Millisecond { // both agents and the store itself
		t.Errorf("waiting used %v of CPU in 3 s", used)
	}

	p.release()
	began = time.Now()
	eventually(t, 30*time.Second, func() error {
		if err := has(s2.IPs().Table().Get, testIP(10).Prefix); err != nil {
			return err
		}
		if has(s2.IPs().Table().Get, row.Prefix) == nil {
			return errors.New("the old row is still there")
		}
		if snap := s2.Policies().Snapshot(); snap.Revision != 6 || string(rows(snap.Policies)[0].Raw) != `"g4"` {
			return fmt.Errorf("%+v", snap)
		}
		if st := s2.Status(); !st.Connected || st.Pending != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	sc.Say("in step %v after it was back; known labels got their number, others an error", time.Since(began).Round(time.Millisecond))
	if _, _, err := s2.Identities().Allocate(ctx, labels(t, "app=new")); err != nil {
		t.Error(err)
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A watcher that is far behind a compacted history gets the differences, once, and nothing twice.
func TestWatchComparesAfterCompaction(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx := testContext(t)
	for _, k := range []string{"w/same", "w/changed", "w/gone"} {
		must[int64](t)(s.Set(ctx, k, []byte("1")))
	}
	known := map[string]int64{}
	rev, first, err := s.compare(ctx, "w/", known)
	if err != nil || len(first) != 3 {
		t.Fatal(first, err)
	}
	must[int64](t)(s.Set(ctx, "w/changed", []byte("2")))
	must[int64](t)(s.Delete(ctx, "w/gone", false))
	must[int64](t)(s.Set(ctx, "w/new", []byte("1")))
	now := must[int64](t)(s.Set(ctx, "x", nil))
	if _, err := s.cli.Compact(ctx, now, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	err = s.tail(ctx, "w/", rev, make(chan struct{}), known, func(b []Event) { t.Errorf("unexpected %v", b) })
	if err == nil {
		t.Fatal("followed a history that is gone")
	}
	_, diff, err := s.compare(ctx, "w/", known)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range diff {
		got[e.Key] = fmt.Sprint(e.Kind, string(e.Value))
	}
	if fmt.Sprint(got) != "map[w/changed:0 2 w/gone:1  w/new:0 1]" && fmt.Sprint(got) != "map[w/changed:02 w/gone:1 w/new:01]" {
		t.Error(got)
	}
}

func TestWatch(t *testing.T) {
	s := ready(t, open(t, embedded(t, "node1")))
	ctx, cancel := context.WithCancel(testContext(t))
	must[int64](t)(s.Set(ctx, "w/1", []byte("1")))
	events := s.Watch(ctx, "w/")
	var got []string
	next := func() {
		for _, e := range <-events {
			got = append(got, fmt.Sprintf("%d %s %s", e.Kind, e.Key, e.Value))
		}
	}
	next()
	must[int64](t)(s.Set(ctx, "w/1", []byte("2")))
	next()
	must[int64](t)(s.Delete(ctx, "w/1", false))
	next()
	if want := "[0 w/1 1 2   0 w/1 2 1 w/1 ]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	cancel()
	if _, ok := <-events; ok {
		t.Error("more events behind the end")
	}
}

// Whatever happens to the lease or to single keys, what this node published comes back.
func TestLostLease(t *testing.T) {
	s1, config := pair(t)
	cfg := config("node2")
	cfg.LeaseTTL = 6 * time.Second
	s2 := ready(t, open(t, cfg))
	ctx := testContext(t)
	if err := errors.Join(s2.Nodes().Publish(testNode("node2", 2)), s2.IPs().Publish(testIP(1), testIP(2)), s2.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	lease, _, _, _ := s2.leases.state()
	if _, err := s1.cli.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		if s1.IPs().Table().Snapshot().Len() != 0 {
			return errors.New("rows of a revoked lease are still there")
		}
		return nil
	})
	back := func() error {
		if err := has(s1.Nodes().Table().Get, "node2"); err != nil {
			return err
		}
		return errors.Join(has(s1.IPs().Table().Get, testIP(1).Prefix), has(s1.IPs().Table().Get, testIP(2).Prefix))
	}
	eventually(t, 10*time.Second, back)
	if now, _, _, _ := s2.leases.state(); now == lease {
		t.Error("the lease is the lost one")
	}
	must[int64](t)(s1.Delete(ctx, ipRoot, true))
	eventually(t, 5*time.Second, func() error {
		if back() == nil {
			return errors.New("rows are still there")
		}
		return nil
	})
	eventually(t, 10*time.Second, back)
}

// An agent that restarts, the one with the store included, changes nothing for the others; what it does not have any
// more goes when it says what it has, and not before.
func TestRestart(t *testing.T) {
	cfg := embedded(t, "node1")
	addr := freePort(t)
	cfg.Listen = []string{"https://" + addr}
	s1 := ready(t, open(t, cfg))
	other := embedded(t, "node2")
	other.Endpoints = cfg.Listen
	other.TLS, _ = s1.ClientFiles()
	s2 := ready(t, open(t, other))
	ctx := testContext(t)
	if err := errors.Join(s1.IPs().Publish(testIP(1), testIP(2)), s1.Nodes().Publish(testNode("node1", 1)), s1.Flush(ctx),
		s2.IPs().Publish(testIP(3), testIP(4)), s2.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	id, _, err := s1.Identities().Allocate(ctx, labels(t, "app=x"))
	if err != nil {
		t.Fatal(err)
	}
	want := func(s *Store, ns ...byte) error {
		got := s.IPs().Table().Snapshot()
		for _, n := range ns {
			if _, ok := got.Get(testIP(n).Prefix); !ok {
				return fmt.Errorf("no row %d", n)
			}
		}
		if got.Len() != len(ns) {
			return fmt.Errorf("%d rows, want %d", got.Len(), len(ns))
		}
		return nil
	}
	eventually(t, 5*time.Second, func() error { return errors.Join(want(s2, 1, 2), want(s1, 3, 4)) })
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		for ctx.Err() == nil {
			snap := s2.IPs().Table().Snapshot()
			if _, ok := snap.Get(testIP(1).Prefix); !ok {
				return
			}
			select {
			case <-snap.Changed():
			case <-ctx.Done():
			}
		}
	}()
	if err := s1.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	s1 = open(t, cfg)
	if err := want(s1, 3, 4); err != nil {
		t.Errorf("after a restart, before the store answers: %v", err)
	}
	if snap := s1.IPs().Table().Snapshot(); snap.Complete() {
		t.Log("complete at once")
	}
	ready(t, s1)
	if err := s1.IPs().Publish(testIP(1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	eventually(t, 15*time.Second, func() error { return errors.Join(want(s2, 1, 2), want(s1, 3, 4)) })
	if err := errors.Join(s1.IPs().Replace([]model.IPEntry{testIP(1), testIP(5)}), s1.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, func() error { return errors.Join(want(s2, 1, 5), want(s1, 3, 4)) })
	select {
	case <-lost:
		t.Error("the other node saw a row disappear that was there all the time")
	default:
	}
	if again, isNew, err := s1.Identities().Allocate(ctx, labels(t, "app=x")); again != id || isNew || err != nil {
		t.Errorf("identity %d became %d %v, %v", id, again, isNew, err)
	}
}

// Started while the store is away, an agent has what it knew, marked as incomplete; damaged caches cost only themselves.
func TestStartWithoutStore(t *testing.T) {
	s1, config := pair(t)
	cfg := config("node2")
	s2 := ready(t, open(t, cfg))
	ctx := testContext(t)
	ls := labels(t, "app=x")
	id, _, err := s2.Identities().Allocate(ctx, ls)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s1.Nodes().Publish(testNode("node1", 1)), s1.IPs().Publish(testIP(1))); err != nil {
		t.Fatal(err)
	}
	rev := must[uint64](t)(s1.Policies().Import(ctx, []StoredPolicy{testPolicy("a", "1")}, nil))
	if err := s2.Policies().WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	full := func(s *Store) error {
		return errors.Join(has(s.Nodes().Table().Get, "node1"), has(s.IPs().Table().Get, testIP(1).Prefix),
			has(s.Identities().Table().Get, id), has(s.Policies().Table().Get, "a"))
	}
	eventually(t, 5*time.Second, func() error { return full(s2) })
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}

	away := cfg
	away.Endpoints = []string{"https://" + freePort(t)}
	began := time.Now()
	s2 = open(t, away)
	if d := time.Since(began); d > time.Second {
		t.Errorf("start took %v", d)
	}
	if err := full(s2); err != nil {
		t.Error(err)
	}
	if s2.Nodes().Table().Snapshot().Complete() || s2.Policies().Snapshot().Complete || s2.Policies().Snapshot().Revision != rev {
		t.Error("says it is complete")
	}
	if e, _ := s2.IPs().Table().Get(testIP(1).Prefix); e.Source != model.IPSourceRestored {
		t.Errorf("source %s", e.Source)
	}
	if again, _, err := s2.Identities().Allocate(ctx, ls); again != id || err != nil {
		t.Errorf("%d, %v", again, err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := s2.Ready(short); err == nil {
		t.Error("ready without a store")
	}
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"nodes.json", "ips.json", "identities.json", "policy.json"} {
		path := filepath.Join(cfg.Paths.State, name)
		data := must[[]byte](t)(os.ReadFile(path))
		data[len(data)/2] ^= 0x10
		if err := os.WriteFile(path, data[:len(data)-len(data)/5], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s2 = open(t, away)
	if n := s2.Nodes().Table().Snapshot().Len() + s2.IPs().Table().Snapshot().Len() + s2.Policies().Table().Snapshot().Len(); n != 0 {
		t.Errorf("%d rows from damaged files", n)
	}
	if aside := must[[]string](t)(filepath.Glob(filepath.Join(cfg.Paths.State, "*.damaged"))); len(aside) != 4 {
		t.Errorf("set aside: %v", aside)
	}
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}
	s2 = ready(t, open(t, cfg))
	if err := full(s2); err != nil {
		t.Errorf("not rebuilt: %v", err)
	}
}
