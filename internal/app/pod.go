package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/table"
)

// pods gives workloads the labels of their pods, when they come and when those change.
type pods struct {
	pods      podSource
	pools     *k8s.PodPools // nil where pools have no names
	endpoints labelled
	failed    *fault.Fault
}

// podSource is what the API server says of this node's pods.
type podSource interface {
	Table() *table.Table[string, k8s.Pod]
	Wait(ctx context.Context, namespace, name, uid string) (k8s.Pod, error)
}

// labelled are workloads whose labels can be changed.
type labelled interface {
	Table() *table.Table[uint16, model.Endpoint]
	Update(ctx context.Context, id uint16, c endpoint.Change) (model.Endpoint, error)
}

func newPods(log *slog.Logger, p podSource, endpoints labelled) *pods {
	return &pods{pods: p, endpoints: endpoints, failed: fault.New(log, "changed labels of a pod not in force", "labels of pods are in force")}
}

// podWait is how long a workload waits for the news of its pod: less than the CNI plugin waits for an answer.
const podWait = 3 * time.Second

// describe completes a request from the CNI plugin, which knows a pod's name only.
func (p *pods) describe(ctx context.Context, req *agentv1.AddEndpointRequest) error {
	ctx, cancel := context.WithTimeout(ctx, podWait)
	defer cancel()
	pod, err := p.pods.Wait(ctx, req.GetNamespace(), req.GetName(), "")
	if err != nil {
		return err
	}
	req.Labels = podLabels(&pod)
	req.NamedPorts, req.Ipv4Pool, req.Ipv6Pool = nil, "", ""
	if p.pools != nil {
		if req.Ipv4Pool, req.Ipv6Pool, err = p.pools.Choose(&pod); err != nil {
			return fail(connect.CodeFailedPrecondition, "%v", err)
		}
	}
	for _, np := range pod.NamedPorts {
		req.NamedPorts = append(req.NamedPorts, &agentv1.NamedPort{Name: np.Name, Port: uint32(np.Port), Protocol: model.ServiceProtoName(np.Proto)})
	}
	return nil
}

// podLabels are a pod's own labels, but for keys by which it would pretend to be what only the cluster can say it is.
func podLabels(p *k8s.Pod) []string {
	ls := slices.DeleteFunc(slices.Clone([]model.Label(p.Labels)), func(l model.Label) bool {
		return l.Key == model.KeyNamespace || strings.HasPrefix(l.Key, model.KeyNamespace+".") || strings.HasPrefix(l.Key, "io.cilium.k8s.")
	})
	return model.Labels(ls).Strings()
}

// factsOf is endpoint.Deps.Facts of pods.
func factsOf(p *k8s.Pods) func(namespace, name string) (model.Labels, bool) {
	return func(namespace, name string) (model.Labels, bool) {
		pod, ok := p.Table().Get(namespace + "/" + name)
		return pod.Facts, ok
	}
}

// podRetry is when labels that could not be brought in force are tried again.
const podRetry = time.Second

// Run keeps labels in step until ctx ends. Each pod goes its own way: its new identity waits until other nodes know of it, and all pods of
// a namespace may get one at once.
func (p *pods) Run(ctx context.Context) error {
	type result struct {
		pod string
		err error
	}
	var (
		tab     = p.pods.Table()
		seen    uint64
		begun   bool
		wg      sync.WaitGroup
		results = make(chan result)
		running = map[string]bool{} // true: has changed once more meanwhile
		failing = map[string]bool{}
		retry   <-chan time.Time
	)
	defer wg.Wait()
	start := func(pod string) {
		if _, ok := running[pod]; ok {
			running[pod] = true
			return
		}
		running[pod] = false
		wg.Go(func() {
			r := result{pod, p.apply(ctx, pod)}
			select {
			case results <- r:
			case <-ctx.Done():
			}
		})
	}
	for {
		snap := tab.Snapshot()
		changed, ok := tab.Since(seen)
		if !ok || !begun {
			changed = changed[:0]
			for k := range snap.All() {
				changed = append(changed, k)
			}
		}
		seen, begun = snap.Revision(), true
		for _, pod := range changed {
			start(pod)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-snap.Changed():
		case <-retry:
			retry = nil
			for pod := range failing {
				start(pod)
			}
		case r := <-results:
			if delete(failing, r.pod); r.err != nil {
				failing[r.pod] = true
			}
			if r.err != nil || len(failing) == 0 {
				p.failed.Note(r.err, "pod", r.pod)
			}
			again := running[r.pod]
			if delete(running, r.pod); again {
				start(r.pod)
			}
			if len(failing) > 0 && retry == nil {
				retry = time.After(podRetry)
			}
		}
	}
}

// apply brings the labels that a pod has now in force.
func (p *pods) apply(ctx context.Context, name string) error {
	pod, ok := p.pods.Table().Get(name)
	if !ok {
		return nil
	}
	labels := podLabels(&pod)
	if labels == nil {
		labels = []string{}
	}
	var errs error
	for id, e := range p.endpoints.Table().Snapshot().All() {
		if e.Namespace+"/"+e.Name == name {
			_, err := p.endpoints.Update(ctx, id, endpoint.Change{Labels: labels})
			errs = errors.Join(errs, err)
		}
	}
	return errs
}
