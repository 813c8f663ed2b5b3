package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/endpoint/fake"
	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
)

// node is a fake node with a manager on it.
type node struct {
	t     testing.TB
	cfg   endpoint.Config
	world *fake.World
	files endpoint.Files
	*endpoint.Manager
	stop context.CancelFunc
	done chan struct{}
}

func newNode(t testing.TB) *node {
	p := paths.For(t.TempDir(), "n1")
	n := &node{t: t, files: endpoint.Files(p.Endpoints()), cfg: endpoint.Config{
		Paths: p, ClusterName: "default", Gateway4: netip.MustParseAddr("10.1.0.1"), Gateway6: netip.MustParseAddr("fd00::1"), MTU: 1450,
		Retry: time.Millisecond, Poll: 5 * time.Millisecond,
	}}
	n.world = fake.New(n.files)
	n.start()
	t.Cleanup(n.halt)
	return n
}

// start makes a manager, restores and lets it run.
func (n *node) start() {
	n.t.Helper()
	m, err := endpoint.New(n.cfg, n.world.Deps())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := m.Restore(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	n.Manager, n.stop, n.done = m, cancel, make(chan struct{})
	go func() { defer close(n.done); _ = m.Run(ctx) }()
}

func (n *node) halt() {
	n.stop()
	<-n.done
	for _, v := range n.world.Violations {
		n.t.Error(v)
	}
}

// restart is a crash of the agent, as far as memory goes, and its next start.
func (n *node) restart() {
	n.t.Helper()
	n.world.Before(nil)
	n.halt()
	n.world.Restart()
	n.start()
}

func spec(name string, labels ...string) endpoint.Spec {
	return endpoint.Spec{ContainerID: "c-" + name, NetNS: "/run/netns/" + name, IfName: "eth0", Network: "net", Name: name, Labels: labels}
}

func (n *node) add(name string, labels ...string) model.Endpoint {
	n.t.Helper()
	e, err := n.Add(n.t.Context(), spec(name, labels...))
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

// settle waits until every endpoint is ready and nothing is left over, and compares all parts of the node with the table.
func (n *node) settle(want int) {
	n.t.Helper()
	var why string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if why = n.differs(want); why == "" {
			return
		}
	}
	n.t.Fatalf("not settled: %s", why)
}

func (n *node) differs(want int) string {
	rows, err := n.List("")
	if err != nil {
		return err.Error()
	}
	if len(rows) != want {
		return fmt.Sprintf("%d endpoints, want %d", len(rows), want)
	}
	records, damaged, err := n.files.Load()
	if damaged != nil || err != nil {
		return fmt.Sprint(damaged, err)
	}
	notes, err := pending.List(n.cfg.Paths.PendingDel())
	if err != nil || len(notes) != 0 {
		return fmt.Sprint("pending deletes: ", notes, err)
	}
	return n.world.Compare(rows, records)
}

func TestAddDelete(t *testing.T) {
	n := newNode(t)
	e := n.add("a", "id=app1", "container:x=y")
	if e.State != model.EndpointReady || !e.IPv4.IsValid() || !e.IPv6.IsValid() || e.PolicySet == 0 || e.PolicyRev == 0 || e.ID == 0 {
		t.Errorf("%+v", e)
	}
	want := []string{"container:x=y", "k8s:id=app1", "k8s:io.cilium.k8s.policy.cluster=default", "k8s:io.kubernetes.pod.namespace=default"}
	if d := cmp.Diff(want, e.Labels.Strings()); d != "" {
		t.Error(d)
	}
	again := n.add("a", "container:x=y", "id=app1")
	if d := cmp.Diff(e, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("asked again: %s", d)
	}
	other := spec("a", "id=app2")
	if _, err := n.Add(t.Context(), other); !errors.Is(err, endpoint.ErrConflict) || !strings.Contains(err.Error(), "labels") {
		t.Errorf("conflict: %v", err)
	}
	n.settle(1)
	k := endpoint.Key{ContainerID: "c-a", IfName: "eth0"}
	if err := n.Check(t.Context(), k, "/run/netns/a", []netip.Addr{e.IPv4, e.IPv6}); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		n.Check(t.Context(), k, "/run/netns/b", nil),
		n.Check(t.Context(), k, "", []netip.Addr{netip.MustParseAddr("10.9.9.9")}),
	} {
		if !errors.Is(err, endpoint.ErrBroken) {
			t.Errorf("check: %v", err)
		}
	}
	for i := range 3 {
		found, err := n.Delete(t.Context(), k)
		if err != nil || found != (i == 0) {
			t.Errorf("delete %d: %v %v", i, found, err)
		}
	}
	if err := n.Check(t.Context(), k, "", nil); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("check of what is gone: %v", err)
	}
	n.settle(0)
}

// After a failure at any step of an ADD nothing of it is left.
func TestAddUndo(t *testing.T) {
	for i := 1; ; i++ {
		n := newNode(t)
		n.add("other")
		count, failed := 0, ""
		n.world.Before(func(step string) error {
			if count++; count == i {
				failed = step
				return errors.New("no")
			}
			return nil
		})
		_, err := n.Add(t.Context(), spec("a", "id=app1"))
		if err == nil {
			if i < 10 {
				t.Errorf("an ADD has only %d steps", i-1)
			}
			return
		}
		if !strings.Contains(err.Error(), failed) {
			t.Errorf("step %q failed: %v", failed, err)
		}
		n.settle(1)
		n.add("a", "id=app1") // and it can be tried again
		n.settle(2)
	}
}

// Undoing may fail too: it is finished later.
func TestUndoFails(t *testing.T) {
	for _, step := range []string{"delete rows", "delete link", "detach", "remove state"} {
		n := newNode(t)
		var mu sync.Mutex
		failures := 3
		n.world.Before(func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			if s == "save state" || s == step && failures > 0 {
				failures--
				return errors.New("no")
			}
			return nil
		})
		if _, err := n.Add(t.Context(), spec("a")); err == nil {
			t.Fatal("ADD succeeded")
		}
		n.settle(0)
		n.halt()
		n.world.Before(nil)
		n.start()
	}
}

// A crash before any step of ADD, UPDATE or DELETE: the next start finds an order to go on from.
func TestCrash(t *testing.T) {
	calls := map[string]func(*node) error{
		"add": func(n *node) error { _, err := n.Add(n.t.Context(), spec("a", "id=app1")); return err },
		"update": func(n *node) error {
			e, _ := n.List("pod-name:default/b")
			_, err := n.Update(n.t.Context(), e[0].ID, endpoint.Change{AddLabels: []string{"id=app2"}})
			return err
		},
		"delete": func(n *node) error {
			_, err := n.Delete(n.t.Context(), endpoint.Key{ContainerID: "c-b", IfName: "eth0"})
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			for i := 1; ; i++ {
				n := newNode(t)
				n.add("b", "id=b")
				var mu sync.Mutex
				count, crashed := 0, ""
				n.world.Before(func(step string) error {
					mu.Lock()
					defer mu.Unlock()
					if count++; count == i {
						crashed = step
						return fake.ErrCrash
					}
					return nil
				})
				_ = call(n)
				n.restart()
				if crashed == "" {
					if i < 5 {
						t.Errorf("only %d steps", i-1)
					}
					return
				}
				rows, _ := n.List("")
				n.settle(len(rows))
				if !slices.ContainsFunc(rows, func(e model.Endpoint) bool { return e.Name == "b" }) && name != "delete" {
					t.Fatalf("crash before %q lost another workload", crashed)
				}
				// What was interrupted can be done again.
				if name != "add" {
					n.add("b", "id=b")
				}
				if err := call(n); err != nil {
					t.Fatalf("after a crash before %q: %v", crashed, err)
				}
				n.settle(map[string]int{"add": 2, "update": 1, "delete": 0}[name])
			}
		})
	}
}

func TestRestart(t *testing.T) {
	n := newNode(t)
	a, b := n.add("a", "id=1"), n.add("b", "id=2")
	audit := true
	if _, err := n.Update(t.Context(), b.ID, endpoint.Change{AddLabels: []string{"id=3"}, Audit: &audit}); err != nil {
		t.Fatal(err)
	}
	before := n.world.Snapshot()
	n.restart()
	n.settle(2)
	if d := cmp.Diff(before, n.world.Snapshot()); d != "" {
		t.Errorf("a restart changed the kernel: %s", d)
	}
	rows, _ := n.List(fmt.Sprint(b.ID))
	if len(rows) != 1 || !rows[0].Audit || !slices.Contains(rows[0].Labels.Strings(), "k8s:id=3") || rows[0].IPv4 != b.IPv4 {
		t.Errorf("%+v", rows)
	}
	n.world.RemoveDevice(a.HostIfName) // as a reboot does, or the end of the namespace
	n.restart()
	n.settle(1)
}

// The store has lost its data while the agent was down: labels keep the number by which the kernel knows them. Where
// today's configuration makes other labels of them, the number is left to the old ones.
func TestRestoreWithEmptyStore(t *testing.T) {
	n := newNode(t)
	a := n.add("a", "id=1", "rev=7")
	n.halt()
	n.world.Restart()
	n.world.ForgetIdentities()
	n.start()
	n.settle(1)
	if row, _ := n.Table().Get(a.ID); row.Identity != a.Identity {
		t.Errorf("identity %d, was %d", row.Identity, a.Identity)
	}
	n.halt()
	n.world.Restart()
	n.world.ForgetIdentities()
	n.cfg.Relevant = func(l model.Label) bool { return l.Key != "rev" }
	n.start()
	n.settle(1)
	if row, _ := n.Table().Get(a.ID); row.Identity == a.Identity {
		t.Errorf("identity %d with other labels", row.Identity)
	}
}

// The store is away when the agent starts: workloads run on, untouched, and are confirmed when it is back.
func TestRestoreWithoutStore(t *testing.T) {
	n := newNode(t)
	n.add("a", "id=1")
	before := n.world.Snapshot()
	n.halt()
	n.world.Restart()
	var mu sync.Mutex
	away := true
	n.world.Before(func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if away && (step == "allocate identity" || step == "publish") {
			return errors.New("store is away")
		}
		return nil
	})
	n.start()
	time.Sleep(20 * time.Millisecond)
	if d := cmp.Diff(before, n.world.Snapshot()); d != "" {
		t.Errorf("kernel changed while the store was away: %s", d)
	}
	if _, err := n.Add(t.Context(), spec("a", "id=1")); err == nil {
		t.Error("ADD confirmed without the store")
	}
	if d := cmp.Diff(before, n.world.Snapshot()); d != "" {
		t.Errorf("ADD changed the kernel while the store was away: %s", d)
	}
	mu.Lock()
	away = false
	mu.Unlock()
	n.settle(1)
}

func TestUpdate(t *testing.T) {
	n := newNode(t)
	e := n.add("a", "id=app1", "keep=yes")
	got, err := n.Update(t.Context(), e.ID, endpoint.Change{AddLabels: []string{"id=app2"}, DeleteLabels: []string{"keep"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"k8s:id=app2", "k8s:io.cilium.k8s.policy.cluster=default", "k8s:io.kubernetes.pod.namespace=default"}
	if d := cmp.Diff(want, got.Labels.Strings()); d != "" {
		t.Error(d)
	}
	if got.Identity == e.Identity || got.PolicySet == e.PolicySet {
		t.Errorf("identity and set as before: %+v", got)
	}
	n.settle(1)
	for _, c := range []endpoint.Change{
		{AddLabels: []string{"io.kubernetes.pod.namespace=kube-system"}},
		{AddLabels: []string{"any:io.kubernetes.pod.namespace=kube-system"}},
		{AddLabels: []string{"other:io.cilium.k8s.policy.serviceaccount=admin"}},
		{AddLabels: []string{"io.cilium.k8s.namespace.labels.team=x"}},
		{AddLabels: []string{"reserved:host"}},
		{AddLabels: []string{"a=x;k8s:io.kubernetes.pod.namespace=kube-system"}},
		{AddLabels: []string{"a=1", "a=2"}},
		{DeleteLabels: []string{"io.kubernetes.pod.namespace"}},
		{DeleteLabels: []string{"not-there"}},
		{DeleteLabels: []string{"id=app1"}},
	} {
		if _, err := n.Update(t.Context(), e.ID, c); !errors.Is(err, endpoint.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
		if len(c.AddLabels) > 0 {
			if _, err := n.Add(t.Context(), spec("bad", c.AddLabels...)); !errors.Is(err, endpoint.ErrInvalid) {
				t.Errorf("add %+v: %v", c, err)
			}
		}
	}
	if _, err := n.Update(t.Context(), e.ID+1, endpoint.Change{}); !errors.Is(err, endpoint.ErrNotFound) {
		t.Error(err)
	}
	n.settle(1)
}

// A label change that fails at any step leaves the labels that were.
func TestUpdateUndo(t *testing.T) {
	for i := 1; ; i++ {
		n := newNode(t)
		e := n.add("a", "id=app1")
		count := 0
		n.world.Before(func(string) error {
			if count++; count == i {
				return errors.New("no")
			}
			return nil
		})
		_, err := n.Update(t.Context(), e.ID, endpoint.Change{AddLabels: []string{"id=app2"}})
		n.world.Before(nil)
		n.settle(1)
		rows, _ := n.List("")
		if err == nil {
			if i < 5 {
				t.Errorf("an update has only %d steps", i-1)
			}
			return
		}
		if !rows[0].Labels.Equal(e.Labels) || rows[0].Identity != e.Identity {
			t.Errorf("labels after a failed update: %v", rows[0].Labels)
		}
	}
}

// TestUpdateGrace: other nodes may be given longer to hear of a new identity than a call may take.
func TestUpdateGrace(t *testing.T) {
	n := newNode(t)
	e := n.add("a", "id=app1")
	n.halt()
	n.world.Restart()
	n.cfg.Timeout, n.cfg.Grace = 200*time.Millisecond, 300*time.Millisecond
	n.start()
	n.settle(1)
	start := time.Now()
	got, err := n.Update(t.Context(), e.ID, endpoint.Change{AddLabels: []string{"id=app2"}})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < n.cfg.Grace || got.Identity == e.Identity {
		t.Errorf("identity %d after %v, it was %d", got.Identity, took, e.Identity)
	}
	n.settle(1)
}

func TestSweep(t *testing.T) {
	n := newNode(t)
	n.add("a")
	n.add("b")
	other := spec("c")
	other.Network = "other"
	if _, err := n.Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	deleted, err := n.Sweep(t.Context(), "net", []endpoint.Key{{ContainerID: "c-a", IfName: "eth0"}, {ContainerID: "c-b", IfName: "eth1"}})
	if d := cmp.Diff([]endpoint.Key{{ContainerID: "c-b", IfName: "eth0"}}, deleted); d != "" || err != nil {
		t.Error(d, err)
	}
	n.settle(2)
}

func TestPending(t *testing.T) {
	n := newNode(t)
	n.add("a")
	n.halt()
	dir := n.cfg.Paths.PendingDel()
	for _, d := range []pending.Delete{{ContainerID: "c-a", IfName: "eth0"}, {ContainerID: "c-gone", IfName: "eth0"}, {ContainerID: "../../x", IfName: "eth0"}} {
		if err := pending.Write(dir, d); err != nil {
			t.Fatal(err)
		}
	}
	n.world.Restart()
	n.start()
	n.settle(0)
	// A note that comes late is found by polling, and an ADD of the same attachment is a new workload.
	n.add("a")
	if err := pending.Write(dir, pending.Delete{ContainerID: "c-a", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	n.settle(0)
	_ = pending.Write(dir, pending.Delete{ContainerID: "c-a", IfName: "eth0"})
	n.add("a")
	time.Sleep(20 * time.Millisecond)
	n.settle(1)
}

func TestNotReady(t *testing.T) {
	w := fake.New(endpoint.Files(t.TempDir()))
	m, err := endpoint.New(endpoint.Config{Paths: paths.For(t.TempDir(), "n")}, w.Deps())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Add(t.Context(), spec("a")); !errors.Is(err, endpoint.ErrNotReady) {
		t.Error(err)
	}
	if m.Table().Snapshot().Complete() {
		t.Error("table is complete before anything was restored")
	}
}

// A call that hangs below ends by its deadline, does not hold up other workloads, and is undone.
func TestHang(t *testing.T) {
	n := newNode(t)
	release := make(chan struct{})
	var mu sync.Mutex
	hung := false
	n.world.Before(func(step string) error {
		mu.Lock()
		first := step == "create link" && !hung
		hung = hung || first
		mu.Unlock()
		if first {
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	done := make(chan error)
	go func() { _, err := n.Add(ctx, spec("slow")); done <- err }()
	for {
		mu.Lock()
		h := hung
		mu.Unlock()
		if h {
			break
		}
		time.Sleep(time.Millisecond)
	}
	n.add("quick")
	if _, err := n.Add(ctx, spec("slow")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second ADD of the same: %v", err)
	}
	close(release)
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow ADD: %v", err)
	}
	n.settle(1)
}

// Many workloads at once, policy changing all the time.
func TestConcurrent(t *testing.T) {
	n := newNode(t)
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				n.world.ChangePolicy(n.Manager)
			}
		}
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 60 {
				name := fmt.Sprintf("w%d", (g*7+i)%12) // several goroutines meet at each
				switch i % 4 {
				case 0, 1:
					_, _ = n.Add(t.Context(), spec(name, "id="+name))
				case 2:
					if rows, _ := n.List("pod-name:" + name); len(rows) == 1 {
						_, _ = n.Update(t.Context(), rows[0].ID, endpoint.Change{AddLabels: []string{fmt.Sprintf("round=%d", i)}})
					}
				case 3:
					_, _ = n.Delete(t.Context(), endpoint.Key{ContainerID: "c-" + name, IfName: "eth0"})
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	rows, _ := n.List("")
	n.settle(len(rows))
}

func TestSelectors(t *testing.T) {
	n := newNode(t)
	a, b := n.add("a"), n.add("b")
	for sel, want := range map[string][]uint16{
		"": {a.ID, b.ID}, fmt.Sprint(a.ID): {a.ID}, "cilium-local:" + fmt.Sprint(b.ID): {b.ID}, "ipv4:" + a.IPv4.String(): {a.ID},
		"ipv6:" + b.IPv6.String(): {b.ID}, "container-name:a": {a.ID}, "pod-name:default/b": {b.ID}, "pod-name:b": {b.ID},
		"pod-name:x/b": nil, "container-id:c-a": {a.ID}, "container-id:c-": nil, "cni-attachment-id:c-a:eth0": {a.ID},
		"cni-attachment-id:c-a:eth1": nil, "cni-attachment-id:c-b": {b.ID},
	} {
		rows, err := n.List(sel)
		var ids []uint16
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		slices.Sort(want)
		if d := cmp.Diff(want, ids); d != "" || err != nil {
			t.Errorf("%q: %s %v", sel, d, err)
		}
	}
	for _, sel := range []string{"0", "65536", "x", "-1", "ipv4:fd00::1", "ipv4:x", "foo:bar"} {
		if _, err := n.List(sel); !errors.Is(err, endpoint.ErrInvalid) {
			t.Errorf("%q: %v", sel, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	n := newNode(t)
	for name, change := range map[string]func(*endpoint.Spec){
		"container": func(s *endpoint.Spec) { s.ContainerID = "../x" }, "empty": func(s *endpoint.Spec) { s.ContainerID = "" },
		"interface": func(s *endpoint.Spec) { s.IfName = "a/b" }, "long": func(s *endpoint.Spec) { s.IfName = "0123456789abcdef" },
		"lo": func(s *endpoint.Spec) { s.IfName = "lo" }, "netns": func(s *endpoint.Spec) { s.NetNS = "relative" },
		"dots": func(s *endpoint.Spec) { s.NetNS = "/run/netns/../x" }, "namespace": func(s *endpoint.Spec) { s.Namespace = "a;b" },
		"name": func(s *endpoint.Spec) { s.Name = "a\x1b[2J" }, "mac": func(s *endpoint.Spec) { s.MAC = "ff:ff:ff:ff:ff:ff" },
		"mtu": func(s *endpoint.Spec) { s.MTU = 100 }, "v4": func(s *endpoint.Spec) { s.IPv4 = netip.MustParseAddr("fd00::7") },
		"port": func(s *endpoint.Spec) { s.NamedPorts = []model.NamedPort{{Name: "http", Port: 0, Proto: 6}} },
		"icmp": func(s *endpoint.Spec) { s.NamedPorts = []model.NamedPort{{Name: "http", Port: 1, Proto: 1}} },
	} {
		s := spec("a")
		change(&s)
		if _, err := n.Add(t.Context(), s); !errors.Is(err, endpoint.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.settle(0)
}

// A damaged state file is set aside, its workload cut off rather than left without known labels; others are not touched.
func TestDamaged(t *testing.T) {
	n := newNode(t)
	a := n.add("a", "id=1")
	n.add("b", "id=2")
	n.halt()
	path := filepath.Join(string(n.files), fmt.Sprintf("%d.json", a.ID))
	flip(t, path, "k8s:id", "k8s:ix")
	n.world.Restart()
	n.start()
	n.settle(1)
	if m, _ := filepath.Glob(path + ".damaged"); len(m) != 1 {
		t.Error("not set aside")
	}
}
