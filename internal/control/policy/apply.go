package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// Apply takes a batch in and answers with the steps that bring the kernel in line. On error nothing has changed.
func (e *Engine) Apply(c Changes) (model.PolicyPlan, error) {
	b, err := e.check(c)
	if err != nil {
		return model.PolicyPlan{}, fmt.Errorf("apply policy changes: %w", err)
	}
	e.take(c, b)
	return model.PolicyPlan{Steps: e.plan(), Revision: c.Revision, Hidden: b.hidden}, nil
}

// batch is a checked Changes.
type batch struct {
	cfg      Config
	groups   map[string]parse.CIDRGroup
	homes    map[string]bool
	read     []parse.Policy    // of those that were unread,
	from     map[string]Unread // as they were
	compiled []*compiled
	hidden   []model.HiddenLabels
}

// check does all that may fail.
func (e *Engine) check(c Changes) (*batch, error) {
	b := &batch{cfg: e.cfg, groups: e.groups, homes: e.homesAfter(c), from: map[string]Unread{}}
	if c.Config != nil {
		cfg, err := c.Config.withDefaults()
		if err != nil {
			return nil, err
		}
		b.cfg = cfg
	}
	known := map[model.IdentityID]bool{}
	for _, id := range c.Identities {
		if id.ID == model.IdentityUnknown || id.ID&model.IdentityScopeMask == model.IdentityScopeLocal {
			return nil, fmt.Errorf("identity %d: the number is not for others to use", id.ID)
		}
		known[id.ID] = true
	}
	for _, s := range c.Subjects {
		if _, ok := e.index.all[model.Peer{Identity: s.Identity}]; s.Endpoint == 0 || !ok && !known[s.Identity] {
			return nil, fmt.Errorf("endpoint %d: identity %d is not known", s.Endpoint, s.Identity)
		}
	}
	if len(c.CIDRGroups)+len(c.DeleteCIDRGroups) > 0 {
		b.groups = make(map[string]parse.CIDRGroup, len(e.groups)+len(c.CIDRGroups))
		maps.Copy(b.groups, e.groups)
		for _, n := range c.DeleteCIDRGroups {
			delete(b.groups, n)
		}
		for _, g := range c.CIDRGroups {
			b.groups[g.Name] = g
		}
	}
	if err := e.wake(c, b); err != nil {
		return nil, err
	}
	return b, e.compileAll(c, b)
}

// compileAll compiles new policies, and those that name groups when groups change.
func (e *Engine) compileAll(c Changes, b *batch) error {
	todo := map[string]parse.Policy{}
	if len(c.CIDRGroups)+len(c.DeleteCIDRGroups) > 0 {
		for k, p := range e.policies {
			if _, newer := b.from[k]; !p.byGroups || newer || p.from != nil && !b.homes[p.from.Namespace] {
				continue
			}
			if p.from != nil {
				b.from[k] = *p.from
			}
			todo[k] = p.policy
		}
	}
	for _, k := range c.DeletePolicies {
		delete(todo, k)
	}
	for _, u := range c.Unread {
		delete(todo, u.Key)
	}
	for _, p := range b.read {
		todo[p.Key] = p
	}
	for _, p := range c.Policies {
		todo[p.Key] = p
		delete(b.from, p.Key)
	}
	keys := make([]string, 0, len(todo))
	for k := range todo {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	cc := compiler{groups: b.groups, ids: e.ids}
	for _, k := range keys {
		p, err := cc.compile(todo[k])
		if err != nil {
			for _, done := range b.compiled {
				e.releasePolicy(done)
			}
			return err
		}
		if u, ok := b.from[k]; ok {
			p.from = &u
		}
		b.compiled = append(b.compiled, p)
		if b.cfg.Filter == nil {
			continue
		}
		if ls := p.hidden(b.cfg.Filter); len(ls) > 0 {
			b.hidden = append(b.hidden, model.HiddenLabels{Policy: p.policy.Ref, Labels: ls})
		}
	}
	return nil
}

// take changes the engine's inputs and notes what that touches.
func (e *Engine) take(c Changes, b *batch) {
	var changed []*rule
	drop := func(key string) {
		if old := e.policies[key]; old != nil {
			changed = append(changed, old.rules...)
			for _, r := range old.rules {
				e.subjects.remove(r.subject, r)
			}
			e.releasePolicy(old)
			delete(e.policies, key)
		}
	}
	for _, k := range c.DeletePolicies {
		drop(k)
		delete(e.unread, k)
	}
	e.sleep(c, b, drop)
	for _, p := range b.compiled {
		drop(p.policy.Key)
		delete(e.unread, p.policy.Key)
		e.policies[p.policy.Key] = p
		changed = append(changed, p.rules...)
		for _, r := range p.rules {
			e.subjects.add(r.subject, r)
		}
	}
	e.groups = b.groups
	for _, s := range e.local {
		if slices.ContainsFunc(changed, func(r *rule) bool { return matchAll(r.subject, s.labels) }) {
			e.pending.local[s.Endpoint] = s
		}
	}
	e.takeIdentities(c)
	if c.APIServers != nil {
		e.takeAPIServers(*c.APIServers)
	}
	e.takeAddresses(c)
	e.takeSubjects(c)
	if b.cfg != e.cfg {
		e.cfg = b.cfg
		e.reset()
	}
}

func (e *Engine) takeIdentities(c Changes) {
	if len(c.Identities)+len(c.DeleteIdentities) == 0 {
		return
	}
	reserved := map[model.IdentityID]model.Identity{}
	for _, id := range model.ReservedIdentities() {
		reserved[id.ID] = id
	}
	for _, n := range c.DeleteIdentities {
		if r, ok := reserved[n]; ok {
			e.setIdentity(Identity{Identity: r})
			continue
		}
		peer := model.Peer{Identity: n}
		if old := e.index.all[peer]; old != nil && n&model.IdentityScopeMask != model.IdentityScopeLocal {
			e.unplace(old)
			e.index.remove(old)
			delete(e.pending.ids, peer)
			e.pending.gone[peer] = true
			e.moved(n)
		}
	}
	for _, id := range c.Identities {
		if r, ok := reserved[id.ID]; ok {
			id.Labels = model.NewLabels(slices.Concat(r.Labels, id.Labels)...)
		}
		e.setIdentity(id)
	}
}

func (e *Engine) setIdentity(in Identity) {
	id := newIdentity(e.cfg, in.ID, in.Labels, in.NamedPorts, in.ID.Local())
	if delete(e.pending.gone, id.peer); e.kernel.classes[id.peer] != 0 {
		e.pending.mutated[id.peer] = true
	}
	if old := e.index.all[id.peer]; old != nil {
		if old.labels.Equal(id.labels) && slices.Equal(old.ports, id.ports) {
			return
		}
		e.index.remove(old)
		e.unplace(old)
		for _, s := range e.local {
			if s.Identity == in.ID && !s.labels.Equal(id.labels) {
				s.labels = id.labels
				e.pending.local[s.Endpoint] = s
			}
		}
	}
	e.index.add(id)
	e.pending.ids[id.peer] = id
	for _, x := range e.places.areas {
		peer := model.Peer{Identity: in.ID, Area: x.num}
		if e.kernel.classes[peer] != 0 {
			e.pending.mutated[peer] = true
		}
		if old := e.index.all[peer]; old != nil {
			e.index.remove(old)
			e.unplace(old)
			at := id.at(e.cfg, x.num, x.prefix)
			e.index.add(at)
			e.pending.ids[peer] = at
		}
	}
	e.moved(in.ID)
}

// moved has the peers that an identity is in areas looked at again.
func (e *Engine) moved(id model.IdentityID) {
	for _, x := range e.places.areas {
		e.places.moved[model.Peer{Identity: id, Area: x.num}] = true
	}
}

func (e *Engine) takeAddresses(c Changes) {
	for _, a := range c.DeleteAddresses {
		e.places.settle(a, nil)
	}
	for a, ids := range c.Addresses {
		e.places.settle(a, ids)
	}
}

func (e *Engine) takeSubjects(c Changes) {
	for _, n := range c.DeleteSubjects {
		s := e.local[n]
		if s == nil {
			continue
		}
		delete(e.local, n)
		delete(e.pending.local, n)
		delete(e.kernel.endpoints, n)
		e.leave(s)
	}
	for _, in := range c.Subjects {
		s := e.local[in.Endpoint]
		if s == nil {
			s = &subject{}
			e.local[in.Endpoint] = s
		}
		labels := e.index.all[model.Peer{Identity: in.Identity}].labels
		if s.set != nil && s.Identity == in.Identity && s.Audit == in.Audit && s.labels.Equal(labels) &&
			slices.Equal(sortedPorts(s.NamedPorts), sortedPorts(in.NamedPorts)) {
			continue
		}
		s.Subject, s.labels = in, labels
		e.pending.local[in.Endpoint] = s
	}
}

// leave takes a workload out of its set.
func (e *Engine) leave(s *subject) {
	if s.set == nil {
		return
	}
	if s.set.refs--; s.set.refs == 0 {
		e.pending.dying = append(e.pending.dying, s.set)
	}
	s.set = nil
}

func (e *Engine) releasePolicy(p *compiled) {
	for _, r := range p.rules {
		for _, en := range r.entries {
			e.ids.release(en.rule)
		}
	}
}

func (e *Engine) releaseRules(s *set) {
	for _, id := range s.implicit {
		e.ids.release(id)
	}
	s.implicit = nil
}
