package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
)

func groupName(key string) (string, bool) { return strings.CutPrefix(key, state.KindCIDRGroup+"/") }

func subjectOf(e model.Endpoint) policy.Subject {
	return policy.Subject{Endpoint: e.ID, Identity: e.Identity, NamedPorts: e.NamedPorts, Audit: e.Audit}
}

func (p *policies) hasStarted() bool {
	select {
	case <-p.started:
		return true
	default:
		return false
	}
}

// Enforce implements endpoint.Policy. What other changes wait is applied first, so the plan is the endpoint's alone.
func (p *policies) Enforce(ctx context.Context, e model.Endpoint, commit func(model.SetID, uint64) error) error {
	select {
	case <-p.started:
	case <-ctx.Done():
		return fmt.Errorf("policy is not in force yet: %w", errors.Join(ctx.Err(), p.Err()))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stateMu.Lock()
	delete(p.forgotten, e.ID)
	p.stateMu.Unlock()
	if err := p.syncLocked(ctx); err != nil {
		return err
	}
	if err := p.introduce(ctx, e); err != nil {
		return err
	}
	before, known := p.peers.subjects[e.ID]
	c := policy.Changes{Subjects: []policy.Subject{subjectOf(e)}, Revision: p.Revision()}
	plan, err := p.engine.Apply(c)
	if err != nil {
		return err
	}
	if known && before.Identity != e.Identity {
		plan.Steps = append(plan.Steps, model.PolicyStep{BumpEpoch: true}) // peers must judge its connections again, also where its own set stays
	}
	p.peers.put(e)
	if committed, err := p.commit(ctx, plan, e.ID, commit); err != nil {
		p.resync = true
		p.wake()
		if !committed {
			p.revert(e.ID, before, known)
			return err
		}
		// The endpoint has its policy; what is missing is tidying up.
		p.log.Warn("rest of a policy change comes later", "endpoint", e.ID, "err", err)
	}
	others := setsOf(plan)
	delete(others, e.ID)
	p.inForce(others, c.Revision)
	p.learn()
	return nil
}

// introduce makes the identity of an endpoint known, and where it lives, as a change of its own: the endpoint's rows must not
// name an identity that has no class yet, or its packets would be dropped.
func (p *policies) introduce(ctx context.Context, e model.Endpoint) error {
	c := policy.Changes{Revision: p.Revision()}
	row, ok := p.peers.row(e.Identity, e)
	if had, fed := p.peers.fed[e.Identity]; ok && !(fed && samePeer(had, row)) { // reserved ones the engine knows
		c.Identities = []policy.Identity{row}
	}
	homes := &p.peers.homes
	c.Addresses, c.DeleteAddresses = homes.news(e)
	if len(c.Identities)+len(c.Addresses)+len(c.DeleteAddresses) == 0 {
		return nil
	}
	plan, err := p.engine.Apply(c)
	if err != nil {
		return err
	}
	if len(c.Identities) > 0 {
		p.peers.fed[e.Identity] = row
		p.peers.dirty[e.Identity] = true // should the endpoint not come after all
	}
	homes.given(c.Addresses, c.DeleteAddresses)
	for _, a := range e.Addrs() {
		homes.dirty[a] = true
	}
	if err := p.applier.Apply(ctx, plan, nil); err != nil {
		p.resync = true
		p.wake()
		return fmt.Errorf("make identity %d of endpoint %d known: %w", e.Identity, e.ID, err)
	}
	return nil
}

// commit applies a plan, with commit in place of the flip of one endpoint. Once that is done, ctx does not end it.
func (p *policies) commit(ctx context.Context, plan model.PolicyPlan, id uint16, commit func(model.SetID, uint64) error) (committed bool, err error) {
	set, ok := p.engine.Set(id)
	if !ok {
		return false, fmt.Errorf("endpoint %d got no policy set", id)
	}
	flip := func() error {
		if err := commit(set, plan.Revision); err != nil {
			return err
		}
		committed = true
		return nil
	}
	at := slices.IndexFunc(plan.Steps, func(s model.PolicyStep) bool { _, ok := s.EndpointSets[id]; return ok })
	if at < 0 { // its set is in the kernel as it is
		if err := flip(); err != nil {
			return false, err
		}
	}
	for i, s := range plan.Steps {
		if err := ctx.Err(); err != nil && !committed {
			return false, err
		}
		var here func() error
		if i == at {
			s.EndpointSets = maps.Clone(s.EndpointSets)
			delete(s.EndpointSets, id)
			here = flip
		}
		if err := p.applier.Step(s, here); err != nil {
			return committed, fmt.Errorf("put policy of endpoint %d in force: %w", id, err)
		}
	}
	return committed, nil
}

// revert gives the engine back what it knew of an endpoint, and the kernel too, now or with the next sync that succeeds.
func (p *policies) revert(id uint16, before model.Endpoint, known bool) {
	if !known {
		p.peers.drop(id)
		p.Forget(id)
		return
	}
	p.peers.put(before)
	p.retell[id] = true
	if err := p.syncLocked(context.Background()); err != nil {
		p.log.Warn("policy of an endpoint goes back later", "endpoint", id, "err", err)
	}
}

// Forget implements endpoint.Policy.
func (p *policies) Forget(id uint16) {
	p.stateMu.Lock()
	p.forgotten[id] = true
	p.stateMu.Unlock()
	p.wake()
}

// Reconfigure changes the engine's settings. Those that it refuses are forgotten again; those that the kernel could not
// be brought to yet are not.
func (p *policies) Reconfigure(ctx context.Context, change func(*policy.Config)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.cfg
	change(&p.cfg)
	p.reconfig = true
	err := p.syncLocked(ctx)
	if p.reconfig {
		p.cfg, p.reconfig = was, false
		p.wake()
	}
	return err
}

// Revision is the newest policy revision that is in force on every endpoint.
func (p *policies) Revision() uint64 {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return p.revision
}

// Err is why the newest policy is not in force; nil if it is.
func (p *policies) Err() error {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return p.err
}

// Wait returns when at least a revision is in force.
func (p *policies) Wait(ctx context.Context, revision uint64) error {
	for {
		p.stateMu.Lock()
		now, err, changed := p.revision, p.err, p.changed
		p.stateMu.Unlock()
		if now >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-changed:
		}
	}
}

// Rule names a rule id. It does not wait for a policy change under way once the id has been asked for.
func (p *policies) Rule(id model.RuleID) (model.RuleRef, bool) {
	if ref, ok := p.rules.Load(id); ok {
		return ref.(model.RuleRef), true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ref, ok := p.engine.Rule(id)
	if ok {
		p.rules.Store(id, ref)
	}
	return ref, ok
}

// Identity is the label set of an identity, reserved and node-local ones included. It does not wait for anything.
func (p *policies) Identity(id model.IdentityID) (model.Labels, bool) {
	if row, ok := p.peers.ids.Get(id); ok {
		return row.Labels, true
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	row, ok := p.others[id]
	return row.Labels, ok
}

// Identities are all identities known here, by number.
func (p *policies) Identities() []model.Identity {
	var out []model.Identity
	for _, row := range p.peers.ids.Snapshot().All() {
		out = append(out, row)
	}
	p.stateMu.Lock()
	for _, row := range p.others {
		out = append(out, row)
	}
	p.stateMu.Unlock()
	slices.SortFunc(out, func(a, b model.Identity) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b model.Identity) bool { return a.ID == b.ID })
}

// Prefixes are the CIDRs of policies with their node-local identities.
func (p *policies) Prefixes() map[netip.Prefix]model.IdentityID {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return p.prefixes
}

// learn publishes what listings ask, so that they do not wait for a policy change under way: the identities that the
// cluster's table does not hold (reserved ones, nodes, workloads whose row has not come yet, prefixes of policies), the
// mode, and where policy limits endpoints. The caller holds mu.
func (p *policies) learn() {
	others := map[model.IdentityID]model.Identity{}
	for _, row := range model.ReservedIdentities() {
		others[row.ID] = row
	}
	for _, row := range p.peers.nodes() {
		others[row.ID] = row
	}
	for _, e := range p.local.Snapshot().All() {
		others[e.Identity] = model.Identity{ID: e.Identity, Labels: e.Labels}
	}
	prefixes := map[netip.Prefix]model.IdentityID{}
	for prefix, row := range p.engine.PrefixIdentities() {
		others[row.ID] = row
		prefixes[prefix] = row.ID
	}
	enforced := make(map[uint16][2]bool, len(p.peers.subjects))
	for id := range p.peers.subjects {
		ingress, egress := p.engine.Enforced(id)
		enforced[id] = [2]bool{model.Ingress: ingress, model.Egress: egress}
	}
	p.stateMu.Lock()
	p.others, p.prefixes, p.enforced, p.mode = others, prefixes, enforced, p.cfg.Mode
	p.stateMu.Unlock()
}

// Enforced says in which directions the policy in force limits an endpoint.
func (p *policies) Enforced(id uint16) (ingress, egress bool) {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	is := p.enforced[id]
	return is[model.Ingress], is[model.Egress]
}

// Mode is the enforcement mode in force.
func (p *policies) Mode() string {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return string(p.mode)
}
