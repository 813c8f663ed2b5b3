package k8s

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Pod is what an agent needs to know of a pod of its node.
type Pod struct {
	Namespace, Name string
	UID             string
	Labels          model.Labels // the pod's own, of source k8s
	Facts           model.Labels // what the cluster says about it: its service account, its namespace's labels
	NamedPorts      []model.NamedPort

	pools poolWish
}

// Pods are the pods of this node.
type Pods struct {
	s   *Store
	tab *table.Table[string, Pod]

	mu         sync.Mutex
	pods       map[name]podSpec
	namespaces map[string]namespaceSpec
	known      [2]bool // pods, namespaces
}

// podSpec is what is kept of a pod.
type podSpec struct {
	uid, account string
	labels       map[string]string
	ports        []model.NamedPort
	pools        poolWish
}

// namespaceSpec is what is kept of a namespace.
type namespaceSpec struct {
	labels map[string]string
	pools  poolWish
}

func newPods(s *Store) *Pods {
	return &Pods{s: s, tab: table.New[string, Pod]("pods", table.String), pods: map[name]podSpec{}, namespaces: map[string]namespaceSpec{}}
}

// Table holds the pods by namespace/name.
func (p *Pods) Table() *table.Table[string, Pod] { return p.tab }

func (p *Pods) follow() {
	follow(p.s, resource{client: p.s.clients.core, name: "pods", fields: "spec.nodeName=" + p.s.cfg.NodeName}, &corev1.Pod{}, &sink[*corev1.Pod]{
		replace: func(all []*corev1.Pod) {
			p.mu.Lock()
			clear(p.pods)
			for _, o := range all {
				p.pods[name{o.Namespace, o.Name}] = specOf(o)
			}
			p.known[0] = true
			p.rebuild()
			p.mu.Unlock()
			p.s.services.replacePods(all)
		},
		put: func(o *corev1.Pod) {
			n := name{o.Namespace, o.Name}
			p.mu.Lock()
			p.pods[n] = specOf(o)
			p.set(n)
			p.mu.Unlock()
			p.s.services.setPod(n, o)
		},
		remove: func(o *corev1.Pod) {
			n := name{o.Namespace, o.Name}
			p.mu.Lock()
			delete(p.pods, n)
			p.tab.Delete(n.String())
			p.mu.Unlock()
			p.s.services.setPod(n, nil)
		},
	})
	follow(p.s, resource{client: p.s.clients.core, name: "namespaces"}, &corev1.Namespace{}, &sink[*corev1.Namespace]{
		replace: func(all []*corev1.Namespace) {
			p.mu.Lock()
			defer p.mu.Unlock()
			clear(p.namespaces)
			for _, o := range all {
				p.namespaces[o.Name] = namespaceSpec{o.Labels, poolsOf(o.Annotations)}
			}
			p.known[1] = true
			p.rebuild()
		},
		put: func(o *corev1.Namespace) { p.namespace(o.Name, namespaceSpec{o.Labels, poolsOf(o.Annotations)}) },
		// A namespace goes after its pods: what is left of it stays as it was.
		remove: func(*corev1.Namespace) {},
	})
}

func specOf(o *corev1.Pod) podSpec {
	s := podSpec{uid: string(o.UID), account: o.Spec.ServiceAccountName, labels: o.Labels, pools: poolsOf(o.Annotations)}
	for _, c := range podPorts(o) {
		proto, err := model.ParseServiceProto(string(protocol(c.Protocol)))
		if c.Name != "" && err == nil && c.ContainerPort > 0 && c.ContainerPort <= 65535 {
			s.ports = append(s.ports, model.NamedPort{Name: c.Name, Port: uint16(c.ContainerPort), Proto: proto})
		}
	}
	return s
}

// namespace takes in what a namespace says.
func (p *Pods) namespace(ns string, spec namespaceSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, had := p.namespaces[ns]; had && maps.Equal(old.labels, spec.labels) && old.pools == spec.pools {
		return
	}
	p.namespaces[ns] = spec
	for n := range p.pods {
		if n.namespace == ns {
			p.set(n)
		}
	}
}

// rebuild makes all rows; mu is held.
func (p *Pods) rebuild() {
	if !p.known[0] || !p.known[1] {
		return
	}
	rows := make(map[string]Pod, len(p.pods))
	for n := range p.pods {
		if row, ok := p.row(n); ok {
			rows[n.String()] = row
		}
	}
	replaceAll(p.tab, rows, func(a, b Pod) bool { return reflect.DeepEqual(a, b) })
}

// set makes one row; mu is held.
func (p *Pods) set(n name) {
	row, ok := p.row(n)
	if old, had := p.tab.Get(n.String()); ok && (!had || !reflect.DeepEqual(old, row)) {
		p.tab.Set(n.String(), row)
	}
}

// row is what there is to know of a pod; not ok as long as its namespace is not known. mu is held.
func (p *Pods) row(n name) (Pod, bool) {
	s, ok := p.pods[n]
	namespace, known := p.namespaces[n.namespace]
	if !ok || !known {
		return Pod{}, false
	}
	out := Pod{Namespace: n.namespace, Name: n.name, UID: s.uid, NamedPorts: s.ports, pools: s.pools.or(namespace.pools)}
	var own, facts []model.Label
	for k, v := range s.labels {
		own = append(own, model.Label{Source: model.SourceK8s, Key: k, Value: v})
	}
	for k, v := range namespace.labels {
		facts = append(facts, model.Label{Source: model.SourceK8s, Key: model.KeyNamespaceLabels + "." + k, Value: v})
	}
	if s.account != "" {
		facts = append(facts, model.Label{Source: model.SourceK8s, Key: model.KeyServiceAccount, Value: s.account})
	}
	out.Labels, out.Facts = model.NewLabels(own...), model.NewLabels(facts...)
	return out, true
}

func (p *Pods) uid(n name) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pods[n].uid
}

// Wait returns a pod of this node once it is known: a workload may come before the news of its pod. uid, if there is one, must be
// the pod's: another of its name may have been there before.
func (p *Pods) Wait(ctx context.Context, namespace, podName, uid string) (Pod, error) {
	for {
		snap := p.tab.Snapshot()
		if row, ok := snap.Get(key(namespace, podName)); ok && (uid == "" || uid == row.UID) {
			return row, nil
		}
		select {
		case <-snap.Changed():
			continue
		case <-ctx.Done():
		}
		var o corev1.Pod // a watch that hangs is no reason to refuse it without asking
		err := get(context.WithoutCancel(ctx), p.s.clients.core, "pods", namespace, podName, &o)
		if err == nil {
			err = fmt.Errorf("the API server has told of no such pod on this node")
		}
		return Pod{}, wrap("find pod "+key(namespace, podName), err)
	}
}
