package app

import (
	"context"
	"log/slog"
	"slices"
	"strings"
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
	log       *slog.Logger
	pods      *k8s.Pods
	pools     *k8s.PodPools // nil where pools have no names
	endpoints *endpoint.Manager
	failed    *fault.Fault
}

func newPods(log *slog.Logger, p *k8s.Pods, endpoints *endpoint.Manager) *pods {
	return &pods{log: log, pods: p, endpoints: endpoints, failed: fault.New(log, "changed labels of a pod not in force", "labels of pods are in force")}
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

// Run keeps labels in step until ctx ends.
func (p *pods) Run(ctx context.Context) error {
	tab := p.pods.Table()
	var seen uint64
	begun := false
	again := map[string]bool{} // failed
	for {
		snap := tab.Snapshot()
		keys, ok := tab.Since(seen)
		if !ok || !begun {
			keys = keys[:0]
			for k := range snap.All() {
				keys = append(keys, k)
			}
		}
		seen, begun = snap.Revision(), true
		for k := range again {
			keys = append(keys, k)
		}
		clear(again)
		p.sync(ctx, snap, keys, again)
		var retry <-chan time.Time
		if len(again) > 0 {
			retry = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-snap.Changed():
		case <-retry:
		}
	}
}

// sync brings the labels of these pods in force; those that failed go into again.
func (p *pods) sync(ctx context.Context, snap table.Snapshot[string, k8s.Pod], keys []string, again map[string]bool) {
	byPod := map[string][]uint16{}
	for id, e := range p.endpoints.Table().Snapshot().All() {
		k := e.Namespace + "/" + e.Name
		byPod[k] = append(byPod[k], id)
	}
	for _, k := range keys {
		pod, ok := snap.Get(k)
		if !ok {
			continue
		}
		for _, id := range byPod[k] {
			labels := podLabels(&pod)
			if labels == nil {
				labels = []string{}
			}
			_, err := p.endpoints.Update(ctx, id, endpoint.Change{Labels: labels})
			if ctx.Err() != nil {
				return
			}
			p.failed.Note(err, "pod", k)
			if err != nil {
				again[k] = true
			}
		}
	}
}
