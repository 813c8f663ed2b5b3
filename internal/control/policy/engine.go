package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// Subject is a local workload.
type Subject struct {
	Endpoint   uint16
	Identity   model.IdentityID
	NamedPorts []model.NamedPort
	Audit      bool // its denials are reported and pass
}

// Changes is one batch of news: whatever is not mentioned stays. Deleting what is not there is no error.
type Changes struct {
	Config *Config // nil: as it is

	Policies       []parse.Policy // by key; the last of a key counts
	Unread         []Unread       // others, that can wait
	DeletePolicies []string       // of either

	CIDRGroups       []parse.CIDRGroup
	DeleteCIDRGroups []string

	// Identities of all the cluster. The reserved ones are known already; one that comes here gets more labels or ports.
	Identities       []Identity
	DeleteIdentities []model.IdentityID

	// Subjects' identities must be known, from this batch or an earlier one. A deleted subject must be out of the kernel's
	// endpoint table before the plan is applied.
	Subjects       []Subject
	DeleteSubjects []uint16

	Revision uint64 // copied into the plan
}

// Engine compiles policies. See the package comment.
type Engine struct {
	cfg      Config
	ids      *ruleIDs
	policies map[string]*compiled
	unread   map[string]Unread // those that select nobody here, by key
	homes    map[string]bool   // namespaces of local
	groups   map[string]parse.CIDRGroup
	subjects reqIndex[*rule] // rules by the workloads they select
	index    idIndex         // all identities, those of prefixes included
	local    map[uint16]*subject
	prefixes map[netip.Prefix]*prefix
	nextID   model.IdentityID // of a prefix

	sets  map[string]*set
	live  *live
	cells map[string]*cell
	// owners are the cells whose class is settled.
	owners map[model.ClassID]*cell

	kernel  *kernel
	adopt   bool // numbers are to be found by content: after a start, and after a change of configuration
	pending pending
}

// subject is a Subject with its labels, which it keeps even if its identity is forgotten elsewhere.
type subject struct {
	Subject
	labels model.Labels
	set    *set
}

// prefix is a CIDR that sets in use name, and its node-local identity.
type prefix struct {
	id   *identity
	refs int
}

// pending is what a batch has touched and the plan has yet to deal with.
type pending struct {
	ids     map[model.IdentityID]*identity // to be placed again
	mutated map[model.IdentityID]bool      // known before, now with other labels or ports
	gone    map[model.IdentityID]bool
	local   map[uint16]*subject // whose set is to be made again
	dying   []*set
	dead    []model.SetID // numbers that no set has any more
	// prefixes whose use changed
	prefixes map[netip.Prefix]bool
}

func newPending() pending {
	return pending{ids: map[model.IdentityID]*identity{}, mutated: map[model.IdentityID]bool{},
		gone: map[model.IdentityID]bool{}, local: map[uint16]*subject{}, prefixes: map[netip.Prefix]bool{}}
}

// New makes an engine over what the kernel holds, which is the zero state on a fresh start. The first Apply must come
// only after all sources have said what there is: what they did not mention by then is taken to be gone.
func New(cfg Config, state model.PolicyState) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make policy engine: %w", err)
	}
	e := &Engine{cfg: cfg, ids: newRuleIDs(), policies: map[string]*compiled{}, unread: map[string]Unread{}, homes: map[string]bool{}, groups: map[string]parse.CIDRGroup{},
		subjects: newReqIndex[*rule](), index: newIDIndex(), local: map[uint16]*subject{},
		prefixes: map[netip.Prefix]*prefix{}, nextID: model.IdentityScopeLocal + 1, sets: map[string]*set{},
		live: newLive(), cells: map[string]*cell{}, owners: map[model.ClassID]*cell{}, pending: newPending()}
	for _, id := range model.ReservedIdentities() {
		e.index.add(newIdentity(cfg, id.ID, id.Labels, nil, false))
	}
	e.Resync(state)
	return e, nil
}

// Resync replaces what the engine believes of the kernel by what the kernel really holds. To be called when a plan
// could not be applied to its end; the next Apply, an empty one too, then leads from there to what is wanted.
func (e *Engine) Resync(state model.PolicyState) {
	e.kernel = newKernel(state)
	for p, x := range e.prefixes {
		e.index.remove(x.id)
		delete(e.pending.ids, x.id.id)
		delete(e.prefixes, p)
	}
	for id := range state.Classes {
		if id&model.IdentityScopeMask == model.IdentityScopeLocal { // of a prefix that is hidden behind somebody known, too
			e.nextID = max(e.nextID, id+1)
		}
	}
	for p, id := range state.Prefixes {
		if id&model.IdentityScopeMask != model.IdentityScopeLocal || e.index.all[id] != nil {
			continue // not ours, or a number twice: the plan deletes the row
		}
		e.nextID = max(e.nextID, id+1)
		e.addPrefix(p, id)
	}
	e.reset()
}

// reset forgets all numbers and matches; they are worked out anew by the next plan.
func (e *Engine) reset() {
	for _, s := range e.sets {
		e.releaseRules(s)
	}
	e.sets, e.live, e.cells, e.adopt = map[string]*set{}, newLive(), map[string]*cell{}, true
	e.owners, e.pending.dying = map[model.ClassID]*cell{}, nil
	for _, s := range e.local {
		s.set = nil
		e.pending.local[s.Endpoint] = s
	}
	byPrefix := map[model.IdentityID]bool{}
	for p, x := range e.prefixes {
		x.refs = 0
		e.pending.prefixes[p] = true
		byPrefix[x.id.id] = true
		e.index.remove(x.id)
		x.id = newIdentity(e.cfg, x.id.id, cidrLabels(e.cfg, p), nil, true)
		e.index.add(x.id)
		e.pending.ids[x.id.id] = x.id
	}
	for _, n := range slices.Sorted(maps.Keys(e.index.all)) {
		if byPrefix[n] {
			continue
		}
		id := e.index.all[n]
		e.index.remove(id)
		id = newIdentity(e.cfg, n, id.labels, id.ports, n.Local())
		e.index.add(id)
		e.pending.ids[n] = id
	}
}

func (e *Engine) addPrefix(p netip.Prefix, id model.IdentityID) *prefix {
	x := &prefix{id: newIdentity(e.cfg, id, cidrLabels(e.cfg, p), nil, true)}
	e.prefixes[p] = x
	e.index.add(x.id)
	e.pending.ids[id] = x.id
	return x
}

// Rule is what a rule id stands for, also for a while after the rule is gone.
func (e *Engine) Rule(id model.RuleID) (model.RuleRef, bool) {
	r, ok := e.ids.refs[id]
	return r, ok
}

// Enforced says in which directions any policy limits an endpoint; false for one that is not known.
func (e *Engine) Enforced(endpoint uint16) (ingress, egress bool) {
	s := e.local[endpoint]
	if s == nil || s.set == nil {
		return false, false
	}
	return s.set.sides[model.Ingress].enforced, s.set.sides[model.Egress].enforced
}

// Class is the peer class of an identity as the last plan leaves it.
func (e *Engine) Class(id model.IdentityID) (model.ClassID, bool) {
	c, ok := e.kernel.classes[id]
	return c, ok
}

// Set is the policy set of a local endpoint as the last plan leaves it.
func (e *Engine) Set(endpoint uint16) (model.SetID, bool) {
	s, ok := e.kernel.endpoints[endpoint]
	return s, ok
}

// PrefixIdentities are the node-local identities of the prefixes in use, with their labels.
func (e *Engine) PrefixIdentities() map[netip.Prefix]model.Identity {
	out := make(map[netip.Prefix]model.Identity, len(e.prefixes))
	for p, x := range e.prefixes {
		out[p] = model.Identity{ID: x.id.id, Labels: x.id.labels}
	}
	return out
}
