package k8s

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/document"
	"github.com/hypha-net/hypha/internal/source/state"
)

// Policies is what policies there are, of all kinds.
type Policies struct {
	s     *Store
	dirty chan struct{}

	mu      sync.Mutex
	rows    map[string]state.Policy // by key
	of      map[string]map[name]*judged
	waiting map[string]bool // kinds that have not been told yet
	changed bool
	cur     state.PolicySnapshot
}

// judged is a policy as it last came.
type judged struct {
	keys    []string // of the rows that it is, as it was last understood
	version string
}

// The kinds of policies, by their resources.
var documents = []struct{ kind, resource string }{
	{v2.KindNetworkPolicy, "ciliumnetworkpolicies"},
	{v2.KindClusterwideNetworkPolicy, "ciliumclusterwidenetworkpolicies"},
	{v2.KindCIDRGroup, "ciliumcidrgroups"},
	{v1alpha2.KindClusterNetworkPolicy, "clusternetworkpolicies"},
}

func newPolicies(s *Store) *Policies {
	p := &Policies{s: s, dirty: make(chan struct{}, 1), rows: map[string]state.Policy{}, of: map[string]map[name]*judged{}, waiting: map[string]bool{},
		cur: state.PolicySnapshot{Superseded: make(chan struct{})}}
	for _, kind := range []string{model.KindNetworkPolicy, v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy, v2.KindCIDRGroup, v1alpha2.KindClusterNetworkPolicy} {
		p.of[kind], p.waiting[kind] = map[name]*judged{}, true
	}
	return p
}

// Snapshot is the current state, rows and revision of one moment. Revisions count what this agent has seen, from 1 at each start.
func (p *Policies) Snapshot() state.PolicySnapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur
}

// WaitRevision waits until this agent has seen at least a revision.
func (p *Policies) WaitRevision(ctx context.Context, rev uint64) error {
	return state.WaitRevision(ctx, p.Snapshot, rev)
}

func (p *Policies) follow() {
	follow(p.s, resource{client: p.s.clients.networking, name: "networkpolicies"}, &networkingv1.NetworkPolicy{}, &sink[*networkingv1.NetworkPolicy]{
		replace: func(all []*networkingv1.NetworkPolicy) {
			p.all(model.KindNetworkPolicy, func(yield func(name)) {
				for _, o := range all {
					yield(name{o.Namespace, o.Name})
					p.native(o)
				}
			})
		},
		put: func(o *networkingv1.NetworkPolicy) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.native(o)
			p.wake()
		},
		remove: func(o *networkingv1.NetworkPolicy) { p.remove(model.KindNetworkPolicy, name{o.Namespace, o.Name}) },
	})
	for _, d := range documents {
		r := resource{client: p.s.clients.documents, name: d.resource}
		if d.kind == v1alpha2.KindClusterNetworkPolicy { // not every cluster has it
			r.client, r.optional = p.s.clients.clusterPolicy, true
		}
		follow(p.s, r, &document.Document{}, &sink[*document.Document]{
			replace: func(all []*document.Document) {
				p.all(d.kind, func(yield func(name)) {
					for _, o := range all {
						yield(name{o.Namespace, o.Name})
						p.read(d.kind, o)
					}
				})
			},
			put: func(o *document.Document) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.read(d.kind, o)
				p.wake()
			},
			remove: func(o *document.Document) { p.remove(d.kind, name{o.Namespace, o.Name}) },
		})
	}
	p.s.run(p.publish)
}

// all takes in all policies of a kind: fn takes in each, after having named it.
func (p *Policies) all(kind string, fn func(yield func(name))) {
	p.mu.Lock()
	defer p.mu.Unlock()
	there := map[name]bool{}
	fn(func(n name) { there[n] = true })
	for n := range p.of[kind] {
		if !there[n] {
			p.drop(kind, n)
		}
	}
	delete(p.waiting, kind)
	p.changed = true
	p.wake()
}

func (p *Policies) remove(kind string, n name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(kind, n)
	p.wake()
}

// drop forgets a policy; mu is held.
func (p *Policies) drop(kind string, n name) {
	j := p.of[kind][n]
	if j == nil {
		return
	}
	for _, k := range j.keys {
		delete(p.rows, k)
		p.changed = true
	}
	delete(p.of[kind], n)
}

// native takes in a NetworkPolicy; mu is held.
func (p *Policies) native(o *networkingv1.NetworkPolicy) {
	pol := NetworkPolicy(o)
	row, err := policyRow(pol)
	if err != nil { // nothing that passes the API server's own checks
		p.s.log.Error("NetworkPolicy not understood, its last version stays in force", "namespace", o.Namespace, "name", o.Name, "err", err)
		return
	}
	p.set(model.KindNetworkPolicy, name{o.Namespace, o.Name}, o.ResourceVersion, row)
}

// read takes in a policy that the parser has to read; mu is held.
func (p *Policies) read(kind string, o *document.Document) {
	n := name{o.Namespace, o.Name}
	rows, err := readDocument(o)
	if err != nil {
		if old := p.of[kind][n]; old == nil || old.version != o.ResourceVersion {
			p.s.log.Warn("policy not understood", "kind", kind, "namespace", o.Namespace, "name", o.Name, "err", err)
		}
		if p.of[kind][n] == nil {
			p.of[kind][n] = &judged{}
		}
		p.of[kind][n].version = o.ResourceVersion
		return
	}
	p.set(kind, n, o.ResourceVersion, rows...)
}

// set makes these rows a policy; mu is held.
func (p *Policies) set(kind string, n name, version string, rows ...state.Policy) {
	j := p.of[kind][n]
	if j == nil {
		j = &judged{}
		p.of[kind][n] = j
	}
	keys := make([]string, len(rows))
	for i, r := range rows {
		keys[i] = r.Key
		if old, ok := p.rows[r.Key]; !ok || string(old.Raw) != string(r.Raw) {
			r.Ref.Revision = p.cur.Revision + 1
			p.rows[r.Key] = r
			p.changed = true
		}
	}
	for _, k := range j.keys {
		if !slices.Contains(keys, k) {
			delete(p.rows, k)
			p.changed = true
		}
	}
	j.keys, j.version = keys, version
}

// readDocument reads a policy, or a group of prefixes.
func readDocument(o *document.Document) ([]state.Policy, error) {
	policies, groups, err := o.Parse()
	if err != nil {
		return nil, err
	}
	var rows []state.Policy
	for _, pol := range policies {
		row, err := policyRow(pol)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	for _, g := range groups {
		raw, err := json.Marshal(g)
		if err != nil {
			return nil, err
		}
		rows = append(rows, state.Policy{Key: state.KindCIDRGroup + "/" + g.Name, Kind: state.KindCIDRGroup,
			Ref: model.PolicyRef{Kind: state.KindCIDRGroup, Name: g.Name, Labels: g.Labels}, Raw: raw})
	}
	return rows, nil
}

func policyRow(pol parse.Policy) (state.Policy, error) {
	raw, err := json.Marshal(pol)
	if err != nil {
		return state.Policy{}, err
	}
	var back parse.Policy // as the agent will read it: what it cannot read would keep all other changes from it
	if err := json.Unmarshal(raw, &back); err != nil {
		return state.Policy{}, err
	}
	return state.Policy{Key: pol.Key, Kind: pol.Ref.Kind, Ref: pol.Ref, Raw: raw}, nil
}

func (p *Policies) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// gather is how long changes that come one after the other are gathered, since each snapshot is a copy of all.
const gather = 5 * time.Millisecond

// publish makes what has changed current.
func (p *Policies) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.dirty:
		}
		p.mu.Lock()
		if complete := len(p.waiting) == 0; complete && (p.changed || !p.cur.Complete) {
			old := p.cur
			p.cur = state.PolicySnapshot{Revision: old.Revision + 1, Complete: true, Superseded: make(chan struct{}),
				Policies: make([]state.Policy, 0, len(p.rows))}
			for _, k := range slices.Sorted(maps.Keys(p.rows)) {
				p.cur.Policies = append(p.cur.Policies, p.rows[k])
			}
			p.changed = false
			close(old.Superseded)
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(gather):
		}
	}
}
