package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// TestCase19CollectorOnKubernetes: the stores of three nodes give workloads identities, publish them, withdraw and release them, while the
// operator collects what nobody has for a second. What a published workload has is never others', and if it is collected in the moment
// in which it is taken into use again, it is there again at once.
func TestCase19CollectorOnKubernetes(t *testing.T) {
	require(t)
	c := score.Start(t, "19", "Kubernetes: identity collection by the operator against allocation by three nodes")
	want := score.Size(600, 20000)
	rng := c.Rand()
	api := kubeapi.Start(t)
	api.Install(t)
	api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: gc}}`)
	operator := exec.Command(filepath.Join(bin.Dir, "hypha-operator"), "--k8s-kubeconfig-path="+api.Kubeconfig, "--operator-prometheus-serve-addr=",
		"--operator-api-serve-addr=", "--ipam=kubernetes", "--identity-gc-interval=300ms", "--identity-heartbeat-timeout=1s", "--cilium-endpoint-gc-interval=0")
	if err := operator.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endOperator(operator) })

	// live are the identities of published workloads, by workload; one that is being published or withdrawn is not among them.
	var mu sync.Mutex
	live, allocations, fresh := map[string]model.Identity{}, 0, 0
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for n := range 3 {
		name := fmt.Sprintf("node%d", n+1)
		s, err := k8s.Open(ctx, k8s.Config{NodeName: name, ClusterName: "e2e", Paths: paths.For(t.TempDir(), name), Kubeconfig: api.Kubeconfig,
			IPAM: k8s.IPAMKubernetes, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 29, 0, byte(n + 1)})}, IPv4: true, QPS: 1000}, k8s.Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.Endpoints().Replace(nil); err != nil {
			t.Fatal(err)
		}
		for w := range 4 {
			own := rand.New(rand.NewPCG(rng.Uint64(), uint64(n*4+w)))
			wg.Go(func() {
				for i := 0; ; i++ {
					mu.Lock()
					over := allocations >= want
					mu.Unlock()
					if over || ctx.Err() != nil {
						return
					}
					labels := model.NewLabels(model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: "gc"},
						model.Label{Source: model.SourceK8s, Key: "app", Value: fmt.Sprintf("a%d", own.IntN(60))})
					id, isNew, err := s.Identities().AllocateHint(ctx, labels, 0)
					if err != nil {
						t.Errorf("allocate: %v", err)
						return
					}
					e := model.Endpoint{ID: uint16(w + 1), Name: fmt.Sprintf("%s-%d-%d", name, w, i), Namespace: "gc", Identity: id, Labels: labels,
						IPv4: netip.AddrFrom4([4]byte{10, 10, byte(n + 1), byte(w + 1)})}
					_ = s.Endpoints().Publish(ctx, e)
					if _, err := published(ctx, t, api, e.Name); err == nil {
						mu.Lock()
						live[e.Name] = model.Identity{ID: id, Labels: labels}
						mu.Unlock()
						time.Sleep(time.Duration(own.IntN(400)) * time.Millisecond)
						if err := kept(ctx, t, api, id); err != nil {
							t.Errorf("workload %s: %v", e.Name, err)
						}
					}
					mu.Lock()
					delete(live, e.Name)
					if allocations++; isNew {
						fresh++
					}
					mu.Unlock()
					s.Endpoints().Withdraw(e)
					if err := s.Identities().Release(id); err != nil {
						t.Errorf("release: %v", err)
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	looks, checked, missing := 0, 0, 0
	for over := false; !over; looks++ {
		select {
		case <-done:
			over = true
		case <-time.After(100 * time.Millisecond):
		}
		mu.Lock()
		before := maps.Clone(live)
		mu.Unlock()
		there := map[string]map[string]any{}
		for _, o := range api.List(t, "cilium.io/v2", "CiliumIdentity").Items {
			there[o.GetName()], _ = o.Object["security-labels"].(map[string]any)
		}
		mu.Lock()
		for k, d := range before {
			if now, ok := live[k]; !ok || now.ID != d.ID {
				continue
			}
			app, _ := d.Labels.Get(model.SourceK8s, "app")
			if got := there[fmt.Sprint(d.ID)]; got == nil {
				missing++
				t.Errorf("workload %s has identity %d, which was collected", k, d.ID)
			} else if got["k8s:app"] != app {
				t.Errorf("workload %s has identity %d of %s; the API server says %v", k, d.ID, app, got)
			}
			checked++
		}
		mu.Unlock()
	}
	c.Count(allocations, "allocations")
	c.Say("of %d looks at identities in use none found one that is another's, %d one that was collected and was there again at once; %d numbers were made",
		checked, missing, fresh)
}

// kept waits until an identity is there, which it should be at once.
func kept(ctx context.Context, t *testing.T, api *kubeapi.Server, id model.IdentityID) (err error) {
	for range 500 {
		if _, err = api.Get(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id)); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("identity %d is not there again after 5 s: %w", id, err)
}

// published waits until a workload's CiliumEndpoint is there.
func published(ctx context.Context, t *testing.T, api *kubeapi.Server, name string) (ok bool, err error) {
	for range 200 {
		if _, err = api.Get(t, "cilium.io/v2", "CiliumEndpoint", "gc", name); err == nil {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return false, err
}
