package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	dppolicy "github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/table"
)

// policies keeps the kernel's policy in line with the tables: it feeds the engine what has changed, applies the plan,
// and starts over from what the kernel holds when a write fails. It implements endpoint.Policy.
type policies struct {
	log     *slog.Logger
	applier *dppolicy.Applier
	stored  *kvstore.Policies
	ids     *table.Table[model.IdentityID, model.Identity]
	ips     *table.Table[netip.Prefix, model.IPEntry]
	local   *table.Table[uint16, model.Endpoint]
	nodes   func() []model.Identity // node-local identities of remote nodes
	inForce func(sets map[uint16]model.SetID, revision uint64)

	started chan struct{} // closed when the first sync is in the kernel
	poke    chan struct{}
	rules   sync.Map // model.RuleID -> model.RuleRef; ids are never given to another rule

	mu       sync.Mutex // engine and kernel writes: one change at a time
	engine   *policy.Engine
	cfg      policy.Config
	reconfig bool
	fed      map[model.IdentityID]string // fingerprint of each identity the engine has been given
	rows     map[string]string           // raw text of each stored policy the engine has been given
	subjects map[uint16]policy.Subject
	resync   bool // the kernel may differ from what the engine believes

	stateMu   sync.Mutex // guards what follows; never held for long
	forgotten map[uint16]bool
	revision  uint64
	others    map[model.IdentityID]model.Identity // see learn
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
		fed: map[model.IdentityID]string{}, rows: map[string]string{}, subjects: map[uint16]policy.Subject{},
		forgotten: map[uint16]bool{}, mode: cfg.Mode, changed: make(chan struct{})}, nil
}

// usable says whether the tables tell enough to act on: the store has answered, or the last run's policies are known. An
// agent that knows neither leaves in force what the kernel holds.
func (p *policies) usable() bool {
	s := p.stored.Snapshot()
	return s.Complete && p.ids.Snapshot().Complete() || s.Revision > 0
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
	for {
		stored, ids, ips, local := p.stored.Snapshot(), p.ids.Snapshot(), p.ips.Snapshot(), p.local.Snapshot()
		var retry <-chan time.Time
		if !p.usable() {
			p.note(0, errors.New("the store has not answered yet and nothing is known from an earlier run: policy stays as the kernel has it"))
			retry = time.After(time.Second)
		} else if err := p.sync(ctx); err != nil {
			p.log.Error("policy not applied", "err", err, "retry", pause)
			retry = time.After(pause)
			pause = min(2*pause, 10*time.Second)
		} else {
			pause = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stored.Changed():
		case <-ids.Changed():
		case <-ips.Changed():
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

// note publishes the outcome of a sync.
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
	revision := uint64(0)
	defer func() { p.note(revision, err) }()
	c, fed, rows, err := p.collect()
	if err != nil {
		return err
	}
	revision = c.Revision
	if err := p.repair(); err != nil {
		return err
	}
	plan, err := p.engine.Apply(c)
	if err != nil {
		return err
	}
	// The engine has the news now, whether the kernel takes them or not.
	p.fed, p.rows, p.reconfig = fed, rows, false
	for _, s := range c.Subjects {
		p.subjects[s.Endpoint] = s
	}
	for _, id := range c.DeleteSubjects {
		delete(p.subjects, id)
	}
	if err := p.applier.Apply(ctx, plan); err != nil {
		p.resync = true
		return err
	}
	p.inForce(setsOf(plan), c.Revision)
	p.learn()
	select {
	case <-p.started:
	default:
		close(p.started)
	}
	return nil
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
		for id, set := range s.EndpointSets {
			sets[id] = set
		}
	}
	return sets
}

// collect compares the tables with what the engine has been given.
func (p *policies) collect() (c policy.Changes, fed map[model.IdentityID]string, rows map[string]string, err error) {
	snap := p.stored.Snapshot()
	c.Revision = snap.Revision
	if rows, err = p.collectStored(&c, snap); err != nil {
		return c, nil, nil, err
	}
	if p.reconfig {
		cfg := p.cfg
		c.Config = &cfg
	}
	first := !p.hasStarted()
	p.stateMu.Lock()
	for id := range p.forgotten {
		c.DeleteSubjects = append(c.DeleteSubjects, id)
	}
	clear(p.forgotten)
	p.stateMu.Unlock()

	all := map[model.IdentityID]policy.Identity{}
	for id, row := range p.ids.Snapshot().All() {
		all[id] = policy.Identity{Identity: row}
	}
	for _, row := range p.nodes() {
		all[row.ID] = policy.Identity{Identity: row}
	}
	for id, e := range p.local.Snapshot().All() {
		if first {
			c.Subjects = append(c.Subjects, subjectOf(e))
		}
		if p.subjects[id].Identity != e.Identity && !first {
			continue // on its way in or out; Enforce brings it
		}
		addIdentity(all, e)
	}
	for _, s := range p.subjects { // what a workload still has must stay known
		if row, ok := p.localIdentity(s.Identity); ok {
			if _, known := all[s.Identity]; !known {
				all[s.Identity] = row
			}
		}
	}
	for _, ip := range p.ips.Snapshot().All() {
		if row, ok := all[ip.Identity]; ok && len(ip.NamedPorts) > 0 {
			row.NamedPorts = mergePorts(row.NamedPorts, ip.NamedPorts)
			all[ip.Identity] = row
		}
	}
	fed = make(map[model.IdentityID]string, len(all))
	for id, row := range all {
		print := row.Labels.Key() + fmt.Sprint(row.NamedPorts)
		fed[id] = print
		if p.fed[id] != print {
			c.Identities = append(c.Identities, row)
		}
	}
	for id := range p.fed {
		if _, ok := all[id]; !ok {
			c.DeleteIdentities = append(c.DeleteIdentities, id)
		}
	}
	return c, fed, rows, nil
}

// localIdentity is an identity as the endpoints that have it know it.
func (p *policies) localIdentity(id model.IdentityID) (policy.Identity, bool) {
	for _, e := range p.local.Snapshot().All() {
		if e.Identity == id {
			return policy.Identity{Identity: model.Identity{ID: id, Labels: e.Labels}, NamedPorts: e.NamedPorts}, true
		}
	}
	return policy.Identity{}, false
}

func addIdentity(all map[model.IdentityID]policy.Identity, e model.Endpoint) {
	if e.Identity == model.IdentityUnknown {
		return
	}
	row, ok := all[e.Identity]
	if !ok {
		row.Identity = model.Identity{ID: e.Identity, Labels: e.Labels}
	}
	row.NamedPorts = mergePorts(row.NamedPorts, e.NamedPorts)
	all[e.Identity] = row
}

// mergePorts is the sorted union of two lists.
func mergePorts(a, b []model.NamedPort) []model.NamedPort {
	if len(b) == 0 {
		return a
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, func(x, y model.NamedPort) int {
		return slices.Compare([]string{x.Name, fmt.Sprintf("%05d/%03d", x.Port, x.Proto)}, []string{y.Name, fmt.Sprintf("%05d/%03d", y.Port, y.Proto)})
	})
	return slices.Compact(out)
}

// collectStored reads what changed among the stored policies. One that cannot be understood keeps all as it is.
func (p *policies) collectStored(c *policy.Changes, snap kvstore.PolicySnapshot) (map[string]string, error) {
	rows := make(map[string]string, len(snap.Policies))
	for _, s := range snap.Policies {
		raw := string(s.Raw)
		rows[s.Key] = raw
		if p.rows[s.Key] == raw {
			continue
		}
		if s.Kind == kindGroup {
			var g parse.CIDRGroup
			if err := json.Unmarshal(s.Raw, &g); err != nil {
				return nil, fmt.Errorf("stored CIDR group %s cannot be read, delete it or upgrade this agent: %w", s.Key, err)
			}
			c.CIDRGroups = append(c.CIDRGroups, g)
			continue
		}
		var pol parse.Policy
		if err := json.Unmarshal(s.Raw, &pol); err != nil {
			return nil, fmt.Errorf("stored policy %s cannot be read, delete it or upgrade this agent: %w", s.Key, err)
		}
		pol.Ref.Revision = s.Ref.Revision
		c.Policies = append(c.Policies, pol)
	}
	for key := range p.rows {
		if _, ok := rows[key]; !ok {
			if name, group := groupName(key); group {
				c.DeleteCIDRGroups = append(c.DeleteCIDRGroups, name)
			} else {
				c.DeletePolicies = append(c.DeletePolicies, key)
			}
		}
	}
	return rows, nil
}
