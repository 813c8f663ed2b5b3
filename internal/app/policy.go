package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	dppolicy "github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// policies keeps the kernel's policy in line with the tables: it feeds the engine what has changed, applies the plan,
// and starts over from what the kernel holds when a write fails. It implements endpoint.Policy.
type policies struct {
	log     *slog.Logger
	applier *dppolicy.Applier
	stored  policyBook
	local   *table.Table[uint16, model.Endpoint]
	// apiServers are the addresses of API servers outside, if they are known; nil: there are none.
	apiServers func() ([]netip.Addr, bool)
	inForce    func(sets map[uint16]model.SetID, revision uint64)
	took       prometheus.Histogram // seconds from when news of policies came until they were in force

	started chan struct{} // closed when the first sync is in the kernel
	poke    chan struct{}
	rules   sync.Map // model.RuleID -> model.RuleRef; ids are never given to another rule

	mu       sync.Mutex // engine and kernel writes: one change at a time
	engine   *policy.Engine
	cfg      policy.Config
	reconfig bool
	peers    *peers
	seen     state.PolicySnapshot // of which the engine has been given all
	servers  []netip.Addr         // as the engine has been given them
	retell   map[uint16]bool      // subjects of which the engine has been given something else since
	resync   bool                 // the kernel may differ from what the engine believes
	heard    time.Time            // when the news came that are not in force yet

	stateMu   sync.Mutex // guards what follows; never held for long
	forgotten map[uint16]bool
	revision  uint64
	others    map[model.IdentityID]model.Identity // see learn
	far       map[model.IdentityID]model.Identity // of nodes
	prefixes  map[netip.Prefix]model.IdentityID
	enforced  map[uint16][2]bool // by model.Direction
	mode      policy.Mode
	err       error
	changed   chan struct{} // closed when revision or err change
}

func newPolicies(log *slog.Logger, applier *dppolicy.Applier, cfg policy.Config) (*policies, error) {
	state, err := applier.ReadState()
	if err != nil {
		return nil, fmt.Errorf("read policy from the kernel: %w", err)
	}
	engine, err := policy.New(cfg, state)
	if err != nil {
		return nil, err
	}
	return &policies{log: log, applier: applier, engine: engine, cfg: cfg, started: make(chan struct{}), poke: make(chan struct{}, 1),
		took: newDelay(), peers: newPeers(), retell: map[uint16]bool{},
		forgotten: map[uint16]bool{}, mode: cfg.Mode, changed: make(chan struct{})}, nil
}

// usable says whether the tables tell enough to act on: the store has answered, or the last run's policies are known. An
// agent that knows neither leaves in force what the kernel holds.
func (p *policies) usable() bool {
	s, ids := p.stored.Snapshot(), p.peers.ids.Snapshot()
	if _, known := p.outsideServers(); !known {
		return false
	}
	return s.Complete && ids.Complete() || s.Revision > 0 && ids.Len() > 0
}

// outsideServers are the addresses of API servers outside, if it is known where they are.
func (p *policies) outsideServers() ([]netip.Addr, bool) {
	if p.apiServers == nil {
		return nil, true
	}
	return p.apiServers()
}

// Run applies changes until ctx ends.
func (p *policies) Run(ctx context.Context, ready func(context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	err := ready(wait)
	cancel()
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		p.log.Warn("store does not answer, starting with what the last run knew", "err", err)
	}
	pause := 50 * time.Millisecond
	failed := fault.New(p.log, "policy not applied, trying again", "policy applied")
	for {
		stored, ids, ips, local := p.stored.Snapshot(), p.peers.ids.Snapshot(), p.peers.ips.Snapshot(), p.local.Snapshot()
		homes := p.peers.homes.table.Snapshot()
		var retry <-chan time.Time
		if !p.usable() {
			p.note(0, errors.New("the store has not answered yet and nothing is known from an earlier run: policy stays as the kernel has it"))
			retry = time.After(time.Second)
		} else if err := p.sync(ctx); err != nil {
			failed.Note(err)
			retry = time.After(pause)
			pause = min(2*pause, 10*time.Second)
		} else {
			failed.Note(nil)
			pause = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stored.Changed():
		case <-ids.Changed():
		case <-ips.Changed():
		case <-homes.Changed():
		case <-local.Changed():
		case <-p.poke:
		case <-retry:
		}
	}
}

func (p *policies) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// note publishes the outcome of a sync: a revision, or what it failed with.
func (p *policies) note(revision uint64, err error) {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	if err == nil {
		p.revision = revision
	}
	p.err = err
	close(p.changed)
	p.changed = make(chan struct{})
}

// sync brings the kernel in line with the tables as they are now.
func (p *policies) sync(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.syncLocked(ctx)
}

func (p *policies) syncLocked(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.note(0, err)
		}
	}()
	n, err := p.collect()
	if err != nil {
		return err
	}
	c := n.changes
	if p.heard.IsZero() && p.seen.Changed() != n.stored.Changed() {
		p.heard = n.stored.Heard
	}
	if err := p.repair(); err != nil {
		return err
	}
	plan, err := p.engine.Apply(c)
	if err != nil {
		return err
	}
	p.given(n)
	for _, h := range plan.Hidden {
		p.log.Warn("policy selects by labels that no identity has: they are filtered, see option labels", "kind", h.Policy.Kind, "namespace", h.Policy.Namespace,
			"name", h.Policy.Name, "labels", h.Labels)
	}
	err = p.applier.Apply(ctx, plan, func() {
		p.inForce(setsOf(plan), c.Revision)
		p.learn()
		p.note(c.Revision, nil)
		if !p.heard.IsZero() {
			p.took.Observe(time.Since(p.heard).Seconds())
			p.heard = time.Time{}
		}
		if !p.hasStarted() {
			close(p.started)
		}
	})
	if err != nil {
		p.resync = true
	}
	return err
}

// repair makes the engine start from what the kernel really holds, after a write that failed.
func (p *policies) repair() error {
	if !p.resync {
		return nil
	}
	state, err := p.applier.ReadState()
	if err != nil {
		return fmt.Errorf("read policy from the kernel: %w", err)
	}
	p.engine.Resync(state)
	p.resync = false
	return nil
}

func setsOf(plan model.PolicyPlan) map[uint16]model.SetID {
	sets := map[uint16]model.SetID{}
	for _, s := range plan.Steps {
		maps.Copy(sets, s.EndpointSets)
	}
	return sets
}

// kindNetworkPolicy is how policies of networking.k8s.io are called. They select workloads of their namespace only, as do those of kind
// v2.KindNetworkPolicy.
const kindNetworkPolicy = "NetworkPolicy"

// collectStored reads what changed among the stored policies. One that cannot be understood keeps all as it is.
func (p *policies) collectStored(c *policy.Changes, snap state.PolicySnapshot) error {
	if snap.Changed() == p.seen.Changed() {
		return nil // the same one
	}
	keys, ok := p.stored.Table().Since(p.seen.Policies.Revision())
	if !ok {
		for key := range snap.Policies.All() {
			keys = append(keys, key)
		}
		for key := range p.seen.Policies.All() {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		old, had := p.seen.Policies.Get(key)
		s, ok := snap.Policies.Get(key)
		switch {
		case ok && had && bytes.Equal(old.Raw, s.Raw), !ok && !had:
			continue
		case !ok:
			if name, group := groupName(key); group {
				c.DeleteCIDRGroups = append(c.DeleteCIDRGroups, name)
			} else {
				c.DeletePolicies = append(c.DeletePolicies, key)
			}
			continue
		}
		if s.Kind == state.KindCIDRGroup {
			var g parse.CIDRGroup
			if err := json.Unmarshal(s.Raw, &g); err != nil {
				return fmt.Errorf("stored CIDR group %s cannot be read, delete it or upgrade this agent: %w", s.Key, err)
			}
			c.CIDRGroups = append(c.CIDRGroups, g)
			continue
		}
		if s.Ref.Namespace != "" && (s.Kind == v2.KindNetworkPolicy || s.Kind == kindNetworkPolicy) {
			c.Unread = append(c.Unread, policy.Unread{Key: s.Key, Namespace: s.Ref.Namespace, Revision: s.Ref.Revision, Raw: s.Raw})
			continue
		}
		pol, err := parse.Read(s.Raw)
		if err != nil {
			return fmt.Errorf("stored policy %s cannot be read, delete it or upgrade this agent: %w", s.Key, err)
		}
		pol.Ref.Revision = s.Ref.Revision
		c.Policies = append(c.Policies, pol)
	}
	return nil
}
