package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/test/bench/meter"
)

// change has a policy that selects one of the node's pods come and go, and looks when packets are judged by it.
func (r *kubeResult) change(ctx context.Context, o options) error {
	server, client := r.Pod("w0"), r.Pod("w1")
	p, err := startProbe(client, server)
	if err != nil {
		return err
	}
	defer func() { _ = p.stop() }()
	policy := object1("networking.k8s.io/v1", "NetworkPolicy", namespaceOf(0), "probe", object{"spec": object{
		"podSelector": object{"matchLabels": object{"app": "a0"}}, "policyTypes": []any{"Ingress"},
		"ingress": []any{object{"from": []any{object{"podSelector": object{"matchLabels": object{"app": "a1"}}}},
			"ports": []any{object{"protocol": "UDP", "port": int64(probePort)}}}}}})
	before, err := r.measured(ctx)
	if err != nil {
		return err
	}
	for range o.kube.changes {
		began := time.Now()
		took, err := p.allowed(func() error {
			err := r.api.Create(ctx, policy)
			r.stored = append(r.stored, time.Since(began))
			return err
		})
		if err != nil {
			return err
		}
		r.allow = append(r.allow, took)
		if took, err = p.denied(func() error { return r.api.Remove(ctx, policy) }); err != nil {
			return err
		}
		r.deny = append(r.deny, took)
	}
	after, err := r.measured(ctx)
	r.delay = delay{after.n - before.n, after.sum - before.sum}
	return err
}

// delay is how often and how long, in seconds altogether, news of policies took to be in force.
type delay struct{ n, sum float64 }

var delays = regexp.MustCompile(`(?m)^cilium_policy_implementation_delay_(count|sum) (\S+)$`)

// measured is the agent's own metric; zero where an earlier build has none.
func (r *kubeResult) measured(ctx context.Context) (d delay, err error) {
	text, err := r.get(ctx, "http://127.0.0.1:9962/metrics")
	if err != nil {
		return d, err
	}
	for _, m := range delays.FindAllSubmatch(text, -1) {
		into := map[string]*float64{"count": &d.n, "sum": &d.sum}[string(m[1])]
		if *into, err = strconv.ParseFloat(string(m[2]), 64); err != nil {
			return d, err
		}
	}
	return d, nil
}

const kubeChurnRate = 20 // pods a second

// kubeChurn is what it cost that pods of other nodes went and came.
type kubeChurn struct {
	pods int
	took time.Duration
	cpu  float64
	seen []time.Duration // from the API server's answer until the kernel knows the address by its new identity
	end  meter.Memory
}

// churning replaces pods of other nodes: one goes, and another one comes to its address with another identity.
func (r *kubeResult) churning(ctx context.Context, o options) (err error) {
	m, err := ebpf.LoadPinnedMap(r.node.Paths.Maps()+"/ipcache_exact_v1", &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	before, err := meter.CPUOf(r.node.PID())
	if err != nil {
		return err
	}
	r.profile(ctx, o, "kube-churn", o.churn)
	began := time.Now()
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(time.Second / kubeChurnRate)
	defer tick.Stop()
	was := map[int]int{}
	for n := 0; time.Since(began) < o.churn && gctx.Err() == nil; n++ {
		pod := n % o.kube.pods
		old, known := was[pod]
		if !known {
			old = pod % o.kube.identities
		}
		next := (old + 7) % o.kube.identities
		was[pod] = next
		g.Go(func() error {
			if err := r.api.Remove(gctx, o.kube.endpointObject(pod, old)); err != nil {
				return err
			}
			if err := r.api.Create(gctx, o.kube.endpointObject(pod, next)); err != nil {
				return err
			}
			stored := time.Now()
			_, a, _ := o.kube.podAddr(pod)
			if err := knows(gctx, m, a, uint32(fleetFirst+next)); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			r.churn.seen = append(r.churn.seen, time.Since(stored))
			return nil
		})
		<-tick.C
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.churn.took, r.churn.pods = time.Since(began), len(r.churn.seen)
	after, err := meter.CPUOf(r.node.PID())
	if err != nil {
		return err
	}
	r.churn.cpu = after - before
	if r.churn.end, err = meter.MemoryOf(r.node.PID()); err != nil {
		return err
	}
	for pod, identity := range was { // as it was, for the next build
		if err := r.api.Remove(ctx, o.kube.endpointObject(pod, identity)); err != nil {
			return err
		}
		if err := r.api.Create(ctx, o.kube.endpointObject(pod, pod%o.kube.identities)); err != nil {
			return err
		}
	}
	return nil
}

// knows waits until the kernel knows an address by an identity.
func knows(ctx context.Context, m *ebpf.Map, a netip.Addr, id uint32) error {
	for began := time.Now(); ; {
		var v maps.IPCacheValue
		if err := m.Lookup(maps.AddrFrom(a), &v); err == nil && v.Identity == id {
			return nil
		}
		if time.Since(began) > 30*time.Second {
			return fmt.Errorf("%s is not known by identity %d after 30 s", a, id)
		}
		if err := meter.Wait(ctx, 500*time.Microsecond); err != nil {
			return err
		}
	}
}
