package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/datapath/ipcache"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	dppolicy "github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/table"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

var discard = slog.New(slog.DiscardHandler)

// rig is what policies works with: the kernel's maps, a store, the tables.
type rig struct {
	t     *testing.T
	maps  *maps.Maps
	store *kvstore.Store
	ids   *table.Table[model.IdentityID, model.Identity]
	local *table.Table[uint16, model.Endpoint]
	*policies
}

const policyRows = 64 // of policy_v1: few, so that tests can fill it

func newRig(t *testing.T, store kvstore.Config) *rig {
	t.Helper()
	m, err := maps.Open(maps.Config{Dir: pintest.Dir(t), CT: 4096, NAT: 4096, Ring: 4096, Policy: policyRows}, maps.Deps{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	dir, err := os.MkdirTemp("", "hypha-app-") // short: sockets lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store.NodeName, store.Paths, store.CheckEvery, store.Retry = "node1", paths.For(dir, "node1"), 200*time.Millisecond, time.Second
	s, err := kvstore.Open(t.Context(), store, kvstore.Deps{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r := &rig{t: t, maps: m, store: s, ids: table.New[model.IdentityID, model.Identity]("identities", table.Uint[model.IdentityID]),
		local: table.New[uint16, model.Endpoint]("endpoints", table.Uint[uint16])}
	r.ids.SetComplete()
	r.local.SetComplete()
	r.agent()
	return r
}

// agent makes policies over what the kernel holds, as an agent that starts does.
func (r *rig) agent() {
	r.t.Helper()
	cache, err := ipcache.New(ipcache.Config{}, ipcache.Deps{Log: discard, Kernel: r.maps})
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := newPolicies(discard, dppolicy.New(dppolicy.Deps{Log: discard, Maps: r.maps, Prefixes: cache}), policy.Config{IPv4: true, IPv6: true})
	if err != nil {
		r.t.Fatal(err)
	}
	p.stored, p.local = r.store.Policies(), r.local
	p.peers.homes.table = table.New[netip.Addr, []model.IdentityID]("homes", table.Addr)
	p.peers.ids, p.peers.ips = r.ids, table.New[netip.Prefix, model.IPEntry]("addresses", table.Prefix)
	p.peers.nodes = func() []model.Identity { return nil }
	p.inForce = func(map[uint16]model.SetID, uint64) {}
	r.policies = p
}

// run runs policies until the test ends or stop is called.
func (r *rig) run(ready error) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done, p := make(chan struct{}), r.policies
	go func() {
		defer close(done)
		if err := p.Run(ctx, func(ctx context.Context) error {
			if ready == nil {
				return r.store.Ready(ctx)
			}
			return ready
		}); err != nil {
			r.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	r.t.Cleanup(stop)
	return stop
}

// load imports policies (JSON) and waits until they are in force.
func (r *rig) load(doc string) uint64 {
	r.t.Helper()
	rev := r.put(doc)
	if err := r.Wait(r.soon(), rev); err != nil {
		r.t.Fatal(err)
	}
	return rev
}

func (r *rig) put(doc string) uint64 {
	r.t.Helper()
	ps, gs, err := parse.Parse("test.json", []byte(doc))
	if err != nil {
		r.t.Fatal(err)
	}
	stored, _, err := store(ps, gs)
	if err != nil {
		r.t.Fatal(err)
	}
	rev, err := r.store.Policies().Import(r.soon(), stored, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return rev
}

func (r *rig) soon() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func workload(t *testing.T, id uint16, identity model.IdentityID, labels ...string) model.Endpoint {
	t.Helper()
	ls, err := model.ParseLabels(labels, model.SourceK8s)
	if err != nil {
		t.Fatal(err)
	}
	return model.Endpoint{ID: id, Identity: identity, Labels: ls, IPv4: netip.AddrFrom4([4]byte{10, 0, 1, byte(id)})}
}

// write is a commit that puts the workload's row into the kernel.
func (r *rig) write(e model.Endpoint) func(model.SetID, uint64) error {
	return func(set model.SetID, _ uint64) error {
		return r.maps.PutEndpoint(e.IPv4, maps.Endpoint{ID: e.ID, Identity: e.Identity, Set: set})
	}
}

func (r *rig) enforce(e model.Endpoint) {
	r.t.Helper()
	if err := r.Enforce(r.soon(), e, r.write(e)); err != nil {
		r.t.Fatal(err)
	}
	r.local.Set(e.ID, e)
}

// state is all the policy that the kernel holds.
func (r *rig) state() model.PolicyState {
	r.t.Helper()
	st, err := r.applier.ReadState()
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) same(want model.PolicyState) {
	r.t.Helper()
	if d := cmp.Diff(want, r.state(), cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); d != "" {
		r.t.Errorf("kernel has changed: -before +now\n%s", d)
	}
}

func hasSet(st model.PolicyState, set model.SetID) bool {
	_, in := st.Lists[model.PolicyKey{Set: set, Dir: model.Ingress}]
	_, out := st.Lists[model.PolicyKey{Set: set, Dir: model.Egress}]
	return in && out
}

const (
	app1 = `[{"labels":[{"key":"name","value":"one"}],"endpointSelector":{"matchLabels":{"id":"app1"}},
		"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app2"}}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`
	app2 = `[{"labels":[{"key":"name","value":"two"}],"endpointSelector":{"matchLabels":{"id":"app2"}},"egress":[{"toEntities":["cluster"]}]}]`
)

// At the moment of commit everything that the workload's row will refer to is in the kernel, and nothing has been taken
// away.
func TestEnforceCommitsWhenAllIsThere(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	r.run(nil)
	rev := r.load(app1)
	check := func(e model.Endpoint, old model.SetID) (set model.SetID) {
		t.Helper()
		calls := 0
		epoch, err := r.maps.Epoch()
		if err != nil {
			t.Fatal(err)
		}
		err = r.Enforce(r.soon(), e, func(s model.SetID, revision uint64) error {
			calls++
			st := r.state()
			if set = s; !hasSet(st, s) {
				t.Errorf("set %d is not complete at commit", s)
			}
			if old != 0 && !hasSet(st, old) {
				t.Errorf("set %d is gone before the workload left it", old)
			}
			if st.Classes[model.Peer{Identity: e.Identity}] == 0 {
				t.Errorf("identity %d has no class at commit", e.Identity)
			}
			if revision != rev {
				t.Errorf("revision %d, want %d", revision, rev)
			}
			return r.write(e)(s, revision)
		})
		if err != nil || calls != 1 {
			t.Fatalf("%v, %d commits", err, calls)
		}
		if now, err := r.maps.Epoch(); err != nil || now == epoch {
			t.Errorf("connections of endpoint %d are not judged again (%v)", e.ID, err)
		}
		r.local.Set(e.ID, e)
		return set
	}
	first := check(workload(t, 1, 1001, "id=app1"), 0)
	second := check(workload(t, 2, 1002, "id=app2"), 0)
	if first == second {
		t.Errorf("both have set %d", first)
	}
	// Labels change: into another policy, and under the same one.
	third := check(workload(t, 2, 1003, "id=app1", "x=y"), second)
	fourth := check(workload(t, 2, 1004, "id=app1", "x=z"), third)
	if third != first || fourth != first {
		t.Errorf("sets %d and %d, want %d", third, fourth, first)
	}
	eventually(t, "unused set swept", func() bool { return !hasSet(r.state(), second) })
}

func TestRefusedCommitLeavesNothing(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	r.run(nil)
	r.load(app1)
	r.enforce(workload(t, 1, 1001, "id=app1"))
	before := r.state()
	refused := errors.New("refused")

	e := workload(t, 2, 1002, "id=app2")
	if err := r.Enforce(r.soon(), e, func(model.SetID, uint64) error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("error %v", err)
	}
	eventually(t, "a new workload's policy swept", func() bool { return len(r.state().Lists) == len(before.Lists) })

	// A workload that has a policy keeps it.
	e = workload(t, 1, 1002, "id=app2")
	if err := r.Enforce(r.soon(), e, func(model.SetID, uint64) error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("error %v", err)
	}
	if rev := r.load(app2); r.Revision() != rev {
		t.Errorf("revision %d", r.Revision())
	}
	after := r.state()
	if after.EndpointSets[1] != before.EndpointSets[1] || !hasSet(after, before.EndpointSets[1]) {
		t.Errorf("set %d, was %d; lists %v", after.EndpointSets[1], before.EndpointSets[1], after.Lists)
	}
	if in, out := r.Enforced(1); !in || out {
		t.Errorf("enforced: ingress %t, egress %t; want as app1 is", in, out)
	}
}

// A full map leaves the policy before in force, says so, and the new one comes when there is room.
func TestCase15PolicyMapFull(t *testing.T) {
	sc := score.Start(t, "15", "policy map full + 1")
	r := newRig(t, kvstore.Config{})
	r.run(nil)
	r.load(app1)
	r.enforce(workload(t, 1, 1001, "id=app1"))
	r.enforce(workload(t, 2, 1002, "id=app2"))
	before := r.state()
	var junk []model.PolicyKey
	for i := 0; ; i++ {
		k := model.PolicyKey{Set: 9999, Class: model.ClassID(i)}
		if err := r.maps.PutLists(map[model.PolicyKey]model.PolicyList{k: {}}); errors.Is(err, maps.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		junk = append(junk, k)
	}
	rev := r.put(app2)
	eventually(t, "failure told", func() bool { return errors.Is(r.Err(), maps.ErrFull) })
	if r.Revision() >= rev {
		t.Errorf("revision %d is said to be in force", r.Revision())
	}
	now := r.state()
	for ep, set := range before.EndpointSets {
		if now.EndpointSets[ep] != set {
			t.Errorf("endpoint %d went to set %d", ep, now.EndpointSets[ep])
		}
	}
	for k, l := range before.Lists {
		if d := cmp.Diff(l, now.Lists[k], cmpopts.EquateEmpty()); d != "" {
			t.Errorf("list %v changed: %s", k, d)
		}
	}
	if err := r.Enforce(r.soon(), workload(t, 3, 1003, "id=app3"), func(model.SetID, uint64) error { return nil }); !errors.Is(err, maps.ErrFull) {
		t.Errorf("a new workload meanwhile: %v", err)
	}
	if err := r.maps.DeleteLists(junk); err != nil {
		t.Fatal(err)
	}
	room := time.Now()
	if err := r.Wait(r.soon(), rev); err != nil {
		t.Fatal(err)
	}
	sc.Count(len(junk), "rows in the way")
	sc.Say("the old policy stayed whole, a new workload was refused; in force %v after there was room", time.Since(room).Round(time.Millisecond))
	if _, out := r.Enforced(2); !out || r.Err() != nil {
		t.Errorf("egress of app2 enforced %t, error %v", out, r.Err())
	}
}

// An agent that cannot ask the store and remembers nothing leaves the kernel's policy alone, and lets nobody in.
func TestStoreAwayAndNothingKnown(t *testing.T) {
	r := newRig(t, kvstore.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	set := model.PolicyList{DefaultRule: 300}
	if err := r.maps.PutLists(map[model.PolicyKey]model.PolicyList{{Set: 7}: set, {Set: 7, Dir: model.Egress}: set, {Set: 7, Class: 5}: {}}); err != nil {
		t.Fatal(err)
	}
	if err := r.maps.PutClasses(map[model.Peer]model.ClassID{{Identity: 1}: 1, {Identity: 1001}: 5, {Identity: 2002}: 6}); err != nil {
		t.Fatal(err)
	}
	e := workload(t, 1, 1001, "id=app1")
	if err := r.write(e)(7, 0); err != nil {
		t.Fatal(err)
	}
	r.local.Set(1, e)
	r.agent()
	before := r.state()
	r.run(errors.New("no answer"))
	eventually(t, "reason told", func() bool { return r.Err() != nil && strings.Contains(r.Err().Error(), "store") })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := r.Enforce(ctx, workload(t, 2, 1002, "id=app2"), func(model.SetID, uint64) error { return nil }); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "store") {
		t.Errorf("Enforce: %v", err)
	}
	r.same(before)
}

// An agent that starts over changes nothing: sets, classes and the epoch stay.
func TestRestartKeepsWhatIsInForce(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	stop := r.run(nil)
	r.load(app1)
	r.load(app2)
	for _, e := range []model.Endpoint{workload(t, 1, 1001, "id=app1"), workload(t, 2, 1002, "id=app2")} {
		r.ids.Set(e.Identity, model.Identity{ID: e.Identity, Labels: e.Labels})
		r.enforce(e)
	}
	rev := r.Revision()
	eventually(t, "all news applied", func() bool { return r.sync(r.soon()) == nil })
	stop()
	before := r.state()
	epoch, err := r.maps.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	r.agent()
	r.run(nil)
	if err := r.Wait(r.soon(), rev); err != nil {
		t.Fatal(err)
	}
	r.enforce(workload(t, 1, 1001, "id=app1")) // as the endpoint manager confirms it
	r.same(before)
	if now, err := r.maps.Epoch(); now != epoch || err != nil {
		t.Errorf("epoch %d, was %d (%v)", now, epoch, err)
	}
}

// What was forgotten while a change could not be applied is forgotten by the next one that can.
func TestForgetSurvivesFailure(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	r.run(nil)
	r.load(app1)
	e := workload(t, 1, 1001, "id=app1")
	r.enforce(e)
	if err := r.Reconfigure(r.soon(), func(c *policy.Config) { c.Mode = "nonsense" }); err == nil {
		t.Fatal("nonsense accepted")
	}
	if err := r.maps.DeleteEndpoint(e.IPv4, 1); err != nil {
		t.Fatal(err)
	}
	r.local.Delete(1)
	r.Forget(1)
	eventually(t, "endpoint forgotten", func() bool { in, _ := r.Enforced(1); return !in && len(r.state().Lists) == 0 })
	if r.Err() != nil {
		t.Error(r.Err())
	}
}

// The named ports of an identity are those of its workloads everywhere, also while one of them comes.
func TestEnforceKeepsRemoteNamedPorts(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	r.run(nil)
	r.load(`[{"endpointSelector":{"matchLabels":{"id":"app1"}},"egress":[{"toEndpoints":[{}],"toPorts":[{"ports":[{"port":"web","protocol":"TCP"}]}]}]}]`)
	r.enforce(workload(t, 1, 1001, "id=app1"))
	e := workload(t, 2, 1002, "id=app2")
	r.ids.Set(1002, model.Identity{ID: 1002, Labels: e.Labels})
	remote := netip.MustParsePrefix("10.0.2.9/32")
	r.peers.ips.Set(remote, model.IPEntry{Prefix: remote, Identity: 1002, NamedPorts: []model.NamedPort{{Name: "web", Port: 8080, Proto: 6}}})
	verdict := func() uint8 {
		res, _, err := r.Trace(policy.Query{Source: policy.Peer{Endpoint: 1}, Destination: policy.Peer{Identity: 1002}, Proto: 6, Port: 8080})
		if err != nil {
			t.Fatal(err)
		}
		return res.Egress.Verdict
	}
	if err := r.sync(r.soon()); err != nil || verdict() != model.VerdictAllow {
		t.Fatalf("before: %v, verdict %d", err, verdict())
	}
	err := r.Enforce(r.soon(), e, func(s model.SetID, rev uint64) error {
		res, err := r.engine.Trace(policy.Query{Source: policy.Peer{Endpoint: 1}, Destination: policy.Peer{Identity: 1002}, Proto: 6, Port: 8080})
		if err != nil || res.Egress.Verdict != model.VerdictAllow {
			t.Errorf("while a workload of the identity comes: %v, verdict %d", err, res.Egress.Verdict)
		}
		return r.write(e)(s, rev)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An identity of which no policy says more than of others that are known costs one write to the kernel, however many
// policies, identities and workloads there are.
func TestNewIdentityIsOneWrite(t *testing.T) {
	r := newRig(t, kvstore.Config{})
	labels := func(app, pod int) model.Labels {
		l, err := model.ParseLabels([]string{fmt.Sprintf("k8s:app=a%d", app), fmt.Sprintf("k8s:pod=p%d", pod)}, model.SourceK8s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for i := range 500 {
		id := model.IdentityID(2000 + i)
		r.ids.Set(id, model.Identity{ID: id, Labels: labels(i%50, i)})
	}
	r.run(nil)
	var rules []string
	for i := range 30 {
		rules = append(rules, fmt.Sprintf(`{"endpointSelector":{"matchLabels":{"app":"a%d"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"app":"a%d"}}],"toPorts":[{"ports":[{"port":"%d","protocol":"TCP"}]}]}]}`,
			i%5, i*7%50, 1000+i))
	}
	r.load("[" + strings.Join(rules, ",") + "]")
	for i := range uint16(5) {
		r.enforce(workload(t, 1+i, model.IdentityID(2000+i), r.identityLabels(2000+int(i))...))
	}
	if err := r.sync(r.soon()); err != nil {
		t.Fatal(err)
	}
	before := r.writes()
	r.ids.Set(3000, model.Identity{ID: 3000, Labels: labels(7, 3000)})
	if err := r.sync(r.soon()); err != nil {
		t.Fatal(err)
	}
	class, ok, err := r.maps.Class(model.Peer{Identity: 3000})
	alike, _, err2 := r.maps.Class(model.Peer{Identity: 2007})
	if err != nil || err2 != nil || !ok || class != alike || class == 0 {
		t.Fatalf("class %d %v, that of its like %d: %v %v", class, ok, alike, err, err2)
	}
	after := r.writes()
	total := uint64(0)
	for name, n := range after {
		total += n - before[name]
	}
	if total != 1 || after[maps.Class] != before[maps.Class]+1 {
		t.Errorf("%d writes: %v, before %v", total, after, before)
	}
}

// writes are the rows written so far, by map.
func (r *rig) writes() map[string]uint64 {
	r.t.Helper()
	all, err := r.maps.List()
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, m := range all {
		out[m.Name] = m.Writes
	}
	return out
}

// identityLabels are the labels of a known identity.
func (r *rig) identityLabels(id int) []string {
	r.t.Helper()
	row, ok := r.ids.Get(model.IdentityID(id))
	if !ok {
		r.t.Fatalf("there is no identity %d", id)
	}
	return row.Labels.Strings()
}
