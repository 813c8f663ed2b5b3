package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/document"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// Policies is what policies there are, of all kinds.
type Policies struct {
	s     *Store
	dirty chan struct{}

	mu      sync.Mutex
	rows    *table.Table[string, state.Policy] // by key, as published
	news    map[string]*state.Policy           // what becomes of rows; nil: gone
	odd     map[string]string                  // by key, versions that are not understood
	waiting map[string]bool                    // kinds that have not been told yet
	changed bool
	heard   time.Time // the first change that is not published yet
	cur     state.PolicySnapshot
}

// The kinds of policies, by their resources.
var documents = []struct{ kind, resource string }{
	{v2.KindNetworkPolicy, "ciliumnetworkpolicies"},
	{v2.KindClusterwideNetworkPolicy, "ciliumclusterwidenetworkpolicies"},
	{v2.KindCIDRGroup, "ciliumcidrgroups"},
	{v1alpha2.KindClusterNetworkPolicy, "clusternetworkpolicies"},
}

func newPolicies(s *Store) *Policies {
	p := &Policies{s: s, dirty: make(chan struct{}, 1), rows: table.New[string, state.Policy]("policies", table.String), news: map[string]*state.Policy{},
		odd: map[string]string{}, waiting: map[string]bool{model.KindNetworkPolicy: true}, cur: state.PolicySnapshot{Superseded: make(chan struct{})}}
	for _, d := range documents {
		p.waiting[d.kind] = true
	}
	return p
}

// Table holds the policies by key. Use Snapshot to know their revision.
func (p *Policies) Table() *table.Table[string, state.Policy] { return p.rows }

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
	there := map[string]bool{}
	fn(func(n name) { there[keyOf(kind, n)] = true })
	for _, keys := range []iter.Seq[string]{first(p.rows.Snapshot().All()), maps.Keys(p.news), maps.Keys(p.odd)} {
		for key := range keys {
			if strings.HasPrefix(key, kind+"/") && !there[key] {
				p.drop(key)
			}
		}
	}
	delete(p.waiting, kind)
	p.changed = true
	p.wake()
}

func first[K, V any](rows iter.Seq2[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) {
		rows(func(k K, _ V) bool { return yield(k) })
	}
}

func (p *Policies) remove(kind string, n name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(keyOf(kind, n))
	p.wake()
}

// keyOf is the key of the row that a resource is.
func keyOf(kind string, n name) string { return kind + "/" + n.String() }

// drop forgets a policy; mu is held.
func (p *Policies) drop(key string) {
	delete(p.odd, key)
	if _, ok := p.row(key); ok {
		p.news[key], p.changed = nil, true
	}
}

// native takes in a NetworkPolicy; mu is held.
func (p *Policies) native(o *networkingv1.NetworkPolicy) {
	pol := NetworkPolicy(o)
	row, err := policyRow(pol)
	if err != nil { // nothing that passes the API server's own checks
		p.s.log.Error("NetworkPolicy not understood, its last version stays in force", "namespace", o.Namespace, "name", o.Name, "err", err)
		return
	}
	p.set(row)
}

// read takes in a policy that the parser has to read; mu is held.
func (p *Policies) read(kind string, o *document.Document) {
	key := keyOf(kind, name{o.Namespace, o.Name})
	row, err := readDocument(o)
	if err == nil && row.Key != key {
		err = fmt.Errorf("it would be %s", row.Key)
	}
	if err != nil {
		if p.odd[key] != o.ResourceVersion {
			p.s.log.Warn("policy not understood", "kind", kind, "namespace", o.Namespace, "name", o.Name, "err", err)
		}
		p.odd[key] = o.ResourceVersion
		return
	}
	delete(p.odd, key)
	p.set(row)
}

// set makes a policy this row; mu is held.
func (p *Policies) set(r state.Policy) {
	if old, ok := p.row(r.Key); !ok || string(old.Raw) != string(r.Raw) {
		r.Ref.Revision = p.cur.Revision + 1
		p.news[r.Key], p.changed = &r, true
	}
}

// row is a row as it is to become; mu is held.
func (p *Policies) row(key string) (state.Policy, bool) {
	if r, ok := p.news[key]; ok {
		if r == nil {
			return state.Policy{}, false
		}
		return *r, true
	}
	return p.rows.Get(key)
}

// readDocument reads a policy, or a group of prefixes.
func readDocument(o *document.Document) (state.Policy, error) {
	policies, groups, err := o.Parse()
	if err != nil {
		return state.Policy{}, err
	}
	switch {
	case len(policies) == 1 && len(groups) == 0:
		return policyRow(policies[0])
	case len(policies) == 0 && len(groups) == 1:
		g := groups[0]
		raw, err := json.Marshal(g)
		return state.Policy{Key: state.KindCIDRGroup + "/" + g.Name, Kind: state.KindCIDRGroup,
			Ref: model.PolicyRef{Kind: state.KindCIDRGroup, Name: g.Name, Labels: g.Labels}, Raw: raw}, err
	}
	return state.Policy{}, fmt.Errorf("%d policies and %d groups in one resource", len(policies), len(groups))
}

func policyRow(pol parse.Policy) (state.Policy, error) {
	raw, err := parse.Pack(pol)
	if err != nil {
		return state.Policy{}, err
	}
	// As the agent will read it: what it cannot read would keep all other changes from it.
	if _, err := parse.Read(raw); err != nil {
		return state.Policy{}, err
	}
	return state.Policy{Key: pol.Key, Kind: pol.Ref.Kind, Ref: pol.Ref, Raw: raw}, nil
}

// wake has what changed published; mu is held.
func (p *Policies) wake() {
	if p.heard.IsZero() {
		p.heard = time.Now()
	}
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// gather is how long changes that come one after the other are gathered.
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
			p.rows.Update(func(x *table.Txn[string, state.Policy]) {
				for k, r := range p.news {
					if r == nil {
						x.Delete(k)
					} else {
						x.Set(k, *r)
					}
				}
			})
			p.cur = state.PolicySnapshot{Revision: old.Revision + 1, Complete: true, Superseded: make(chan struct{}), Policies: p.rows.Snapshot(), Heard: p.heard}
			p.news, p.changed, p.heard = map[string]*state.Policy{}, false, time.Time{}
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
