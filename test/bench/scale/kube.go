package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/task"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// A large cluster on Kubernetes: a real API server that holds what the other nodes' agents and people have written, and one agent.

const (
	kubeFront = "172.29.0.254:6443" // the API server, on the node's switch
	kubeKnown = 100                 // identities that come in known classes
)

// kubeResult is what a build showed.
type kubeResult struct {
	*site
	api   *kubeapi.Server
	front *kubeapi.Front

	first, again kubeStart
	idle         meter.Memory
	heap         uint64 // bytes in use behind a collection
	idleCPU      float64
	idleTold     int64
	rows, room   map[string]int // of kernel maps
	allow, deny  []time.Duration
	stored       []time.Duration
	delay        delay // of these, by the agent's own metric
	churn        kubeChurn
	known        time.Duration // identities of known classes, from the last write's answer until in the kernel
}

// kubeStart is what a start cost.
type kubeStart struct {
	ready, synced time.Duration // its status says so; the kernel has all
	cpu           float64
	told          int64
	watches       int
	memory        meter.Memory
}

func kube(ctx context.Context, o options) (text string, err error) {
	err = task.Run(func(t testing.TB) error {
		all, err := measureKube(ctx, t, o)
		text = kubeTable(o, all)
		return err
	})
	return text, err
}

func measureKube(ctx context.Context, t testing.TB, o options) (all []*kubeResult, err error) {
	api := kubeapi.Start(t)
	api.Install(t)
	began := time.Now()
	if err := o.kube.load(ctx, api); err != nil {
		return nil, err
	}
	for _, x := range [][2]string{{"cilium.io/v2", "CiliumIdentity"}, {"cilium.io/v2", "CiliumEndpoint"}, {"cilium.io/v2", "CiliumNode"},
		{"cilium.io/v2", "CiliumNetworkPolicy"}, {"networking.k8s.io/v1", "NetworkPolicy"}} {
		if err := api.Watchable(ctx, x[0], x[1]); err != nil {
			return nil, err
		}
	}
	note("loaded in %s", time.Since(began).Round(time.Second))
	for _, b := range o.bins {
		r, err := measureAgent(ctx, t, o, b, api)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func note(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, "  "+format+"\n", args...) }

// measureAgent has an agent of one build go through all of it.
func measureAgent(ctx context.Context, t testing.TB, o options, b build, api *kubeapi.Server) (r *kubeResult, err error) {
	r = &kubeResult{site: &site{build: b}, api: api}
	conf := filepath.Join(t.TempDir(), "kubeconfig")
	var began time.Time
	idle, err := api.Watches(ctx)
	if err != nil {
		return nil, err
	}
	r.Cluster, err = cluster.New(ctx, cluster.Config{Bin: b.Binaries, Nodes: 1, IPv4: true, IPv6: true, Options: map[string]any{"debug": false, "pprof": true, "prometheus-serve-addr": "127.0.0.1:9962"},
		Kubeconfig: conf, Prepare: func(c *cluster.Cluster) error {
			l, err := c.World.Listen("tcp", kubeFront)
			if err == nil {
				r.front = api.Front(t, l, conf)
			}
			began = time.Now()
			return err
		}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close(), r.leave(ctx, o)) }()
	r.node = r.Nodes[0]
	for _, step := range []struct {
		about string
		run   func(context.Context, options) error
	}{
		{"the first start", func(ctx context.Context, o options) error { return r.started(ctx, o, &r.first, began, 0, idle) }},
		{"its pods", r.populate}, {"a restart", r.restart}, {"idle", r.idleness}, {"policy changes", r.change}, {"known classes", r.familiar}, {"churn", r.churning},
	} {
		note("%s: %s", b.name, step.about)
		if err := step.run(ctx, o); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", step.about, err, r.node.Log(20))
		}
	}
	return r, nil
}

// started waits until a start is over, and says what it cost.
func (r *kubeResult) started(ctx context.Context, o options, s *kubeStart, began time.Time, told int64, watches int) error {
	s.ready = time.Since(began)
	if err := r.converged(ctx, o); err != nil {
		return err
	}
	s.synced = time.Since(began)
	cpu, err := meter.CPUOf(r.node.PID())
	if err != nil {
		return err
	}
	s.cpu, s.told = cpu, r.front.Told()-told
	if err := meter.Wait(ctx, 10*time.Second); err != nil {
		return err
	}
	if s.memory, err = meter.MemoryOf(r.node.PID()); err != nil {
		return err
	}
	n, err := r.api.Watches(ctx)
	s.watches = n - watches
	return err
}

// calm is between two looks at what is waited for for seconds: looking counts rows.
const calm = 200 * time.Millisecond

// converged waits until the kernel knows all identities and addresses, and the agent has all policies in force.
func (r *kubeResult) converged(ctx context.Context, o options) error {
	crowd := &crowdResult{site: r.site}
	if err := meter.Reach(ctx, o.kube.identities, calm, crowd.classes); err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	if err := meter.Reach(ctx, 2*o.kube.pods+4*(o.kube.nodes-1), calm, crowd.addresses); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return meter.Reach(ctx, o.kube.policies, calm, func() (int, error) {
		st, err := r.node.Status(ctx)
		if st.GetPolicyRevision() == 0 {
			return 0, err
		}
		return int(st.GetPolicies()), err
	})
}

// home is where the i-th pod of the node is.
func (f *fleet) home(i int) (ns, app int) { return i / 2 % f.namespaces(), i % 2 }

// populate attaches the node's pods.
func (r *kubeResult) populate(ctx context.Context, o options) error {
	for i := range o.kube.local {
		ns, app := o.kube.home(i)
		name := fmt.Sprintf("w%d", i)
		err := r.api.Create(ctx, object1("v1", "Pod", namespaceOf(ns), name, object{"metadata": object{"labels": text(podLabelsOf(app, ""))},
			"spec": object{"nodeName": "node1", "serviceAccountName": "default", "containers": []any{object{"name": "c", "image": "i",
				"ports": []any{object{"name": "web", "containerPort": int64(8080)}}}}}}))
		if err == nil {
			_, err = r.Add(ctx, cluster.PodSpec{Name: name, Namespace: namespaceOf(ns), Idle: true})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leave deletes the node's pods at the API server, for the next build to make.
func (r *kubeResult) leave(ctx context.Context, o options) error {
	for i := range o.kube.local {
		ns, _ := o.kube.home(i)
		if err := r.api.Remove(ctx, object1("v1", "Pod", namespaceOf(ns), fmt.Sprintf("w%d", i), nil)); err != nil {
			return err
		}
	}
	return nil
}

// restart ends the agent without a warning and starts it again.
func (r *kubeResult) restart(ctx context.Context, o options) error {
	if err := r.node.Kill(); err != nil {
		return err
	}
	if err := meter.Wait(ctx, 2*time.Second); err != nil { // the API server hears of it
		return err
	}
	watches, err := r.api.Watches(ctx)
	if err != nil {
		return err
	}
	told, began := r.front.Told(), time.Now()
	r.profile(ctx, o, "restart", 15*time.Second)
	if err := r.node.Start(ctx, o.kube.nodes); err != nil {
		return err
	}
	return r.started(ctx, o, &r.again, began, told, watches)
}

var heapInUse = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// idleness watches the agent do nothing.
func (r *kubeResult) idleness(ctx context.Context, o options) error {
	before, err := meter.CPUOf(r.node.PID())
	if err != nil {
		return err
	}
	told := r.front.Told()
	r.profile(ctx, o, "kube-idle", o.idle)
	if err := meter.Wait(ctx, o.idle); err != nil {
		return err
	}
	after, err := meter.CPUOf(r.node.PID())
	if err != nil {
		return err
	}
	r.idleCPU, r.idleTold = after-before, r.front.Told()-told
	if r.idle, err = meter.MemoryOf(r.node.PID()); err != nil {
		return err
	}
	text, err := r.pprof(ctx, "heap?gc=1&debug=1")
	if err != nil {
		return err
	}
	m := heapInUse.FindSubmatch(text)
	if m == nil {
		return errors.New("the agent's heap cannot be read")
	}
	if r.heap, err = strconv.ParseUint(string(m[1]), 10, 64); err != nil {
		return err
	}
	crowd := &crowdResult{site: r.site}
	r.rows, r.room = map[string]int{}, map[string]int{}
	for name, count := range map[string]func() (int, error){"class_v1": crowd.classes, "ipcache_exact_v1": crowd.addresses,
		"policy_v1": func() (int, error) {
			return meter.Rows[maps.PolicyKey, maps.PolicyValue](r.node.Paths.Maps() + "/policy_v1")
		}} {
		if r.rows[name], err = count(); err != nil {
			return err
		}
		if r.room[name], err = meter.Room(r.node.Paths.Maps() + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// familiar brings identities of classes that there are: for each, one row of one map may change.
func (r *kubeResult) familiar(ctx context.Context, o options) (err error) {
	crowd := &crowdResult{site: r.site}
	classes, err := crowd.classes()
	if err != nil {
		return err
	}
	before, err := r.node.Rows(ctx, "policy_v1")
	if err != nil {
		return err
	}
	for i := range kubeKnown {
		known := i % o.kube.identities
		if err := r.api.Create(ctx, identityObject(fleetFirst+o.kube.identities+i, known/fleetApps, known%fleetApps, fmt.Sprintf("new%d", i))); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := meter.Reach(ctx, classes+kubeKnown, pause, crowd.classes); err != nil {
		return err
	}
	r.known = time.Since(began)
	after, err := r.node.Rows(ctx, "policy_v1")
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(before, after) {
		return errors.New("identities of known classes changed rows of the policy map")
	}
	for i := range kubeKnown {
		if err := r.api.Remove(ctx, identityObject(fleetFirst+o.kube.identities+i, 0, 0, "")); err != nil {
			return err
		}
	}
	return nil
}
