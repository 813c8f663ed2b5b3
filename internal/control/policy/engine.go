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
	DeletePolicies []string

	CIDRGroups       []parse.CIDRGroup
	DeleteCIDRGroups []string

	// Identities of all the cluster. The reserved ones are known already; one that comes here gets more labels or ports.
	Identities       []Identity
	DeleteIdentities []model.IdentityID

	// APIServers are the addresses outside at which there is an API server of the cluster; nil: as they were.
	APIServers *[]netip.Addr
	// Addresses say who lives there, of workloads and nodes: more than one while that changes. Identities that are not known
	// are fine, and so are those of the outside, which do not count.
	Addresses       map[netip.Addr][]model.IdentityID
	DeleteAddresses []netip.Addr

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
	groups   map[string]parse.CIDRGroup
	subjects reqIndex[*rule] // rules by the workloads they select
	index    idIndex         // all identities, those of prefixes included
	local    map[uint16]*subject
	prefixes map[netip.Prefix]*prefix
	nextID   model.IdentityID // of a prefix
	api      map[netip.Prefix]bool
	places   *places

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
	ids     map[model.Peer]*identity // to be placed again
	mutated map[model.Peer]bool      // known before, now with other labels or ports, or new in an area
	gone    map[model.Peer]bool
	leaving map[model.Peer]bool // who does not live in the area any more
	local   map[uint16]*subject // whose set is to be made again
	dying   []*set
	dead    []model.SetID // numbers that no set has any more
	// prefixes whose use changed
	prefixes map[netip.Prefix]bool
	served   bool // an API server went: what was judged of its address is to be judged again
}

func newPending() pending {
	return pending{ids: map[model.Peer]*identity{}, mutated: map[model.Peer]bool{},
		gone: map[model.Peer]bool{}, leaving: map[model.Peer]bool{}, local: map[uint16]*subject{}, prefixes: map[netip.Prefix]bool{}}
}

// New makes an engine over what the kernel holds, which is the zero state on a fresh start. The first Apply must come
// only after all sources have said what there is: what they did not mention by then is taken to be gone.
func New(cfg Config, state model.PolicyState) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make policy engine: %w", err)
	}
	e := &Engine{cfg: cfg, ids: newRuleIDs(), policies: map[string]*compiled{}, groups: map[string]parse.CIDRGroup{},
		subjects: newReqIndex[*rule](), index: newIDIndex(), local: map[uint16]*subject{},
		prefixes: map[netip.Prefix]*prefix{}, nextID: model.IdentityScopeLocal + 1, places: newPlaces(), sets: map[string]*set{},
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
		delete(e.pending.ids, x.id.peer)
		delete(e.prefixes, p)
	}
	e.evict()
	for _, x := range e.places.areas {
		e.places.drop(x)
	}
	for peer := range state.Classes {
		if id := peer.Identity; id&model.IdentityScopeMask == model.IdentityScopeLocal { // of a prefix that is hidden behind somebody known, too
			e.nextID = max(e.nextID, id+1)
		}
		e.places.nextID = max(e.places.nextID, peer.Area+1)
	}
	for p, a := range state.Areas {
		if a.ID != 0 && e.places.byNum[a.ID] == nil { // else a number twice: the plan deletes the row
			e.places.add(p, a.ID)
		}
	}
	for p, id := range state.Prefixes {
		if id&model.IdentityScopeMask != model.IdentityScopeLocal || e.index.all[model.Peer{Identity: id}] != nil {
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
	e.evict()
	for _, x := range e.places.areas {
		x.refs, x.denies = 0, 0
	}
	e.places.stale, e.places.changed = true, true
	byPrefix := map[model.Peer]bool{}
	for p, x := range e.prefixes {
		x.refs = 0
		e.pending.prefixes[p] = true
		byPrefix[x.id.peer] = true
		e.index.remove(x.id)
		x.id = newIdentity(e.cfg, x.id.peer.Identity, e.prefixLabels(p), nil, true)
		e.index.add(x.id)
		e.pending.ids[x.id.peer] = x.id
	}
	for _, n := range slices.SortedFunc(maps.Keys(e.index.all), model.ComparePeers) {
		if byPrefix[n] {
			continue
		}
		id := e.index.all[n]
		e.index.remove(id)
		id = newIdentity(e.cfg, n.Identity, id.labels, id.ports, n.Identity.Local())
		e.index.add(id)
		e.pending.ids[n] = id
	}
	for p := range e.api {
		e.useAPIServer(p, 1)
	}
}

func (e *Engine) addPrefix(p netip.Prefix, id model.IdentityID) *prefix {
	x := &prefix{id: newIdentity(e.cfg, id, e.prefixLabels(p), nil, true)}
	e.prefixes[p] = x
	e.index.add(x.id)
	e.pending.ids[x.id.peer] = x.id
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

// Class is the class of a peer as the last plan leaves it.
func (e *Engine) Class(p model.Peer) (model.ClassID, bool) {
	c, ok := e.kernel.classes[p]
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
		out[p] = model.Identity{ID: x.id.peer.Identity, Labels: x.id.labels}
	}
	return out
}
