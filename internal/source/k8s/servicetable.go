package k8s

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// origin is where services come from: a Service, or a pod's host ports.
type origin struct {
	name
	pod bool
}

// Services are the services of the cluster, and the host ports of this node's pods.
type Services struct {
	s   *Store
	tab *table.Table[model.ServiceID, state.Service]
	api *table.Table[netip.Addr, struct{}]

	mu     sync.Mutex
	known  [3]bool // services, slices, pods
	svcs   map[name]*corev1.Service
	slices map[name]map[string]*discoveryv1.EndpointSlice // by service
	pods   map[name]*corev1.Pod                           // those with host ports

	fronts map[model.Frontend]map[origin]model.Service // who wants it
	of     map[origin][]model.Frontend
	ids    *serviceIDs
	at     map[model.Frontend]model.ServiceID // rows of the table
	told   map[origin]string                  // what is wrong, as logged
	node   map[string]string                  // labels of this node
}

func newServices(s *Store) *Services {
	return &Services{s: s, tab: table.New[model.ServiceID, state.Service]("services", table.Uint[model.ServiceID]),
		api:  table.New[netip.Addr, struct{}]("API servers", table.Addr),
		svcs: map[name]*corev1.Service{}, slices: map[name]map[string]*discoveryv1.EndpointSlice{}, pods: map[name]*corev1.Pod{},
		fronts: map[model.Frontend]map[origin]model.Service{}, of: map[origin][]model.Frontend{}, ids: newServiceIDs(),
		at: map[model.Frontend]model.ServiceID{}, told: map[origin]string{}}
}

// Table holds the services by number. Whether each may be served is for control to say.
func (v *Services) Table() *table.Table[model.ServiceID, state.Service] { return v.tab }

// APIServers are the addresses of the cluster's API servers, which publish themselves as the endpoints of a Service.
func (v *Services) APIServers() *table.Table[netip.Addr, struct{}] { return v.api }

// apiService is that Service.
var apiService = name{corev1.NamespaceDefault, "kubernetes"}

// findAPI makes the table of API servers. One that is not ready is one all the same.
func (v *Services) findAPI() {
	rows := map[netip.Addr]struct{}{}
	for _, slice := range v.slices[apiService] {
		for i := range slice.Endpoints {
			for _, text := range slice.Endpoints[i].Addresses {
				if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
					rows[a.Unmap()] = struct{}{}
				}
			}
		}
	}
	replaceAll(v.api, rows, func(a, b struct{}) bool { return true })
}

func (v *Services) follow() {
	follow(v.s, resource{client: v.s.clients.core, name: "services", labels: notOurs}, &corev1.Service{}, &sink[*corev1.Service]{
		replace: func(all []*corev1.Service) {
			next := make(map[name]*corev1.Service, len(all))
			for _, o := range all {
				next[name{o.Namespace, o.Name}] = trimService(o)
			}
			v.change(0, func() []origin {
				touched := origins(false, maps.Keys(v.svcs), maps.Keys(next))
				v.svcs = next
				return touched
			})
		},
		put: func(o *corev1.Service) {
			n := name{o.Namespace, o.Name}
			v.change(-1, func() []origin { v.svcs[n] = trimService(o); return []origin{{n, false}} })
		},
		remove: func(o *corev1.Service) {
			n := name{o.Namespace, o.Name}
			v.change(-1, func() []origin { delete(v.svcs, n); return []origin{{n, false}} })
		},
	})
	follow(v.s, resource{client: v.s.clients.discovery, name: "endpointslices", labels: notOurs}, &discoveryv1.EndpointSlice{}, &sink[*discoveryv1.EndpointSlice]{
		replace: func(all []*discoveryv1.EndpointSlice) {
			next := map[name]map[string]*discoveryv1.EndpointSlice{}
			for _, o := range all {
				n := serviceOf(o)
				if next[n] == nil {
					next[n] = map[string]*discoveryv1.EndpointSlice{}
				}
				next[n][o.Name] = trimSlice(o)
			}
			v.change(1, func() []origin {
				touched := origins(false, maps.Keys(v.slices), maps.Keys(next))
				v.slices = next
				return touched
			})
		},
		put: func(o *discoveryv1.EndpointSlice) {
			n := serviceOf(o)
			v.change(-1, func() []origin {
				touched := append(v.forget(o, n), origin{n, false})
				if v.slices[n] == nil {
					v.slices[n] = map[string]*discoveryv1.EndpointSlice{}
				}
				v.slices[n][o.Name] = trimSlice(o)
				return touched
			})
		},
		remove: func(o *discoveryv1.EndpointSlice) {
			v.change(-1, func() []origin {
				n := serviceOf(o)
				delete(v.slices[n], o.Name)
				if len(v.slices[n]) == 0 {
					delete(v.slices, n)
				}
				return append(v.forget(o, name{}), origin{n, false})
			})
		},
	})
}

// serviceOf is whose slice it is.
func serviceOf(o *discoveryv1.EndpointSlice) name {
	return name{o.Namespace, o.Labels[discoveryv1.LabelServiceName]}
}

// forget takes a slice away from services whose it was and is no more: its label may change. mu is held.
func (v *Services) forget(o *discoveryv1.EndpointSlice, now name) (touched []origin) {
	if now != (name{}) && v.slices[now][o.Name] != nil {
		return nil // as nearly always
	}
	for n, all := range v.slices {
		if n != now && n.namespace == o.Namespace && all[o.Name] != nil {
			delete(all, o.Name)
			touched = append(touched, origin{n, false})
		}
	}
	return touched
}

// replacePods tells all pods of this node.
func (v *Services) replacePods(all []*corev1.Pod) {
	next := map[name]*corev1.Pod{}
	for _, o := range all {
		if p := trimPod(o); p != nil {
			next[name{o.Namespace, o.Name}] = p
		}
	}
	v.change(2, func() []origin {
		touched := origins(true, maps.Keys(v.pods), maps.Keys(next))
		v.pods = next
		return touched
	})
}

// setPod tells one; nil: it is gone.
func (v *Services) setPod(n name, o *corev1.Pod) {
	v.change(-1, func() []origin {
		p := trimPod(o)
		if p == nil && v.pods[n] == nil {
			return nil
		}
		if delete(v.pods, n); p != nil {
			v.pods[n] = p
		}
		return []origin{{n, true}}
	})
}

// setNode tells the labels of this node.
func (v *Services) setNode(labels map[string]string) {
	v.change(-1, func() (touched []origin) {
		if maps.Equal(v.node, labels) {
			return nil
		}
		v.node = labels
		for n, svc := range v.svcs {
			if aboutNodes(svc) {
				touched = append(touched, origin{n, false})
			}
		}
		return touched
	})
}

// origins are those of both.
func origins(pod bool, a, b func(func(name) bool)) (out []origin) {
	seen := map[name]bool{}
	for _, all := range []func(func(name) bool){a, b} {
		for n := range all {
			if !seen[n] {
				seen[n] = true
				out = append(out, origin{n, pod})
			}
		}
	}
	return out
}

// change takes something in and brings the table up to date. what: all of one kind has been told for the first time, or -1. Before all
// kinds are known nothing is served: services without backends would be refused rather than let go where they went before.
func (v *Services) change(what int, fn func() []origin) {
	v.mu.Lock()
	defer v.mu.Unlock()
	touched := fn()
	complete := !slices.Contains(v.known[:], false)
	if what >= 0 {
		v.known[what] = true
	}
	if v.known[1] && (what == 1 || slices.Contains(touched, origin{apiService, false})) {
		v.findAPI()
	}
	if slices.Contains(v.known[:], false) {
		return
	}
	if !complete {
		touched = append(origins(false, maps.Keys(v.svcs), maps.Keys(v.slices)), origins(true, maps.Keys(v.pods), maps.Keys(map[name]bool{}))...)
	}
	v.apply(touched)
	if !complete {
		v.tab.SetComplete()
	}
}

// apply makes the rows of what has changed.
func (v *Services) apply(touched []origin) {
	fronts := map[model.Frontend]bool{}
	for _, o := range touched {
		for _, f := range v.of[o] {
			delete(v.fronts[f], o)
			fronts[f] = true
		}
		delete(v.of, o)
		for _, s := range v.make(o) {
			if v.fronts[s.Frontend] == nil {
				v.fronts[s.Frontend] = map[origin]model.Service{}
			}
			if _, twice := v.fronts[s.Frontend][o]; twice {
				continue
			}
			v.fronts[s.Frontend][o] = s
			v.of[o] = append(v.of[o], s.Frontend)
			fronts[s.Frontend] = true
		}
	}
	byKey := map[string]model.Frontend{}
	for f := range fronts {
		k := frontendKey(f)
		byKey[k] = f
		var changed []string
		if len(v.fronts[f]) == 0 {
			delete(v.fronts, f)
			changed = v.ids.remove(k)
		} else {
			changed = v.ids.add(k)
		}
		for _, c := range changed {
			if _, ok := byKey[c]; !ok {
				byKey[c] = v.frontOf(c)
			}
		}
	}
	v.tab.Update(func(x *table.Txn[model.ServiceID, state.Service]) {
		for k, f := range byKey { // first, since a number may go from one to another
			if id, ok := v.at[f]; ok && (id != v.ids.of(k) || len(v.fronts[f]) == 0) {
				x.Delete(id)
				delete(v.at, f)
			}
		}
		for k, f := range byKey {
			if len(v.fronts[f]) == 0 {
				continue
			}
			row := state.Service{Service: v.winner(f)}
			row.ID = v.ids.of(k)
			if old, ok := x.Get(row.ID); !ok || !old.Equal(&row.Service) {
				x.Set(row.ID, row)
			}
			v.at[f] = row.ID
		}
	})
}

// frontOf finds the frontend that a key of the numbers stands for. It is seldom needed.
func (v *Services) frontOf(k string) model.Frontend {
	for f := range v.at {
		if frontendKey(f) == k {
			return f
		}
	}
	return model.Frontend{}
}

// make converts one object. What is wrong with it is told once.
func (v *Services) make(o origin) (out []model.Service) {
	var err error
	switch {
	case o.pod && v.pods[o.name] != nil:
		out, err = HostPorts(v.pods[o.name])
	case !o.pod && v.svcs[o.name] != nil:
		out, err = Frontends(v.svcs[o.name], slices.Collect(maps.Values(v.slices[o.name])), v.node)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != v.told[o] && text != "" {
		v.s.log.Warn("service not served as it is written", "namespace", o.namespace, "name", o.name.name, "err", err)
	}
	if text == "" {
		delete(v.told, o)
	} else {
		v.told[o] = text
	}
	return out
}

// winner is who gets a frontend that several want: a Service before a pod, the older one of two Services, and of two as old, on every
// node the same.
func (v *Services) winner(f model.Frontend) model.Service {
	best := origin{}
	for o := range v.fronts[f] {
		if best == (origin{}) || v.before(o, best) {
			best = o
		}
	}
	return v.fronts[f][best]
}

func (v *Services) before(a, b origin) bool {
	if a.pod != b.pod {
		return b.pod
	}
	age := func(o origin) int64 {
		if o.pod {
			return v.pods[o.name].CreationTimestamp.Unix()
		}
		return v.svcs[o.name].CreationTimestamp.Unix()
	}
	return cmp.Or(cmp.Compare(age(a), age(b)), cmp.Compare(a.String(), b.String())) < 0
}
