package app

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/control/service"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// services turns the services that sources tell into rows of frontends, and names frontends for others.
type services struct {
	log    *slog.Logger
	ports  service.PortRange
	self   model.Node
	stored *table.Table[model.ServiceID, state.Service]
	nodes  *table.Table[string, model.Node]

	// rows are what the kernel is to hold: the table of the reconciler. It is complete once the store has told services and nodes.
	rows *table.Table[model.Frontend, model.Balance]
	// checks are the health-check node ports at which this node is to answer, complete when rows are.
	checks *table.Table[uint16, model.HealthCheck]
	// leaving says that backends have left: see takeLeft.
	leaving chan struct{}

	mu    sync.Mutex
	known *service.Facts
	plan  *service.Plan
	left  map[netip.AddrPort]bool
	seen  uint64 // revision of stored that the plan has
	begun bool
}

func newServices(log *slog.Logger, b service.Balancer, ports service.PortRange, stored *table.Table[model.ServiceID, state.Service], nodes *table.Table[string, model.Node]) *services {
	s := &services{log: log, ports: ports, self: b.Self, stored: stored, nodes: nodes, rows: table.New[model.Frontend, model.Balance]("services", table.Frontend),
		checks: table.New[uint16, model.HealthCheck]("health-check node ports", table.Uint[uint16]), leaving: make(chan struct{}, 1), left: map[netip.AddrPort]bool{}}
	s.known = s.facts()
	s.plan = service.NewPlan(b, s.known)
	return s
}

// facts are what services are judged by now. This node counts before the store has told it.
func (s *services) facts() *service.Facts {
	nodes := []model.Node{s.self}
	for _, n := range s.nodes.Snapshot().All() {
		nodes = append(nodes, n)
	}
	return service.NewFacts(s.ports, nodes)
}

// Run follows the tables until ctx ends.
func (s *services) Run(ctx context.Context) error {
	var doneNodes <-chan struct{}
	for {
		stored, nodes := s.stored.Snapshot(), s.nodes.Snapshot()
		s.sync(stored, nodes.Changed() != doneNodes)
		doneNodes = nodes.Changed()
		if stored.Complete() && nodes.Complete() {
			s.setComplete()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stored.Changed():
		case <-nodes.Changed():
		}
	}
}

// setComplete says that all services are known.
func (s *services) setComplete() {
	s.rows.SetComplete()
	s.checks.SetComplete()
}

// sync brings the rows up to date: those that a changed service has, or that changed nodes forbid or allow.
func (s *services) sync(stored table.Snapshot[model.ServiceID, state.Service], nodes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.plan.Refused()
	if nodes {
		s.known = s.facts()
		s.plan.SetFacts(s.known)
		if self, ok := s.nodes.Get(s.self.Name); ok { // with labels that only the cluster knows
			now := s.self
			now.Labels = self.Labels
			s.plan.SetSelf(now)
		}
	}
	for _, id := range s.due(stored) {
		if v, ok := stored.Get(id); ok {
			s.plan.Set(v.Service)
		} else {
			s.plan.Delete(id)
		}
	}
	s.seen, s.begun = stored.Revision(), true
	rows, gone := s.plan.Take()
	if len(rows)+len(gone) > 0 {
		s.rows.Update(func(x *table.Txn[model.Frontend, model.Balance]) {
			for _, f := range gone {
				x.Delete(f)
			}
			for _, r := range rows {
				x.Set(r.Frontend, r)
			}
		})
	}
	s.syncChecks()
	if left := s.plan.Left(); left != nil { // after the rows: who looks at these then knows which revision is without them
		maps.Copy(s.left, left)
		select {
		case s.leaving <- struct{}{}:
		default:
		}
	}
	for id, err := range s.plan.Refused() {
		if old := before[id]; old == nil || old.Error() != err.Error() {
			s.log.Warn("service not served", "service", uint32(id), "err", err)
		}
	}
}

func (s *services) syncChecks() {
	rows, gone := s.plan.TakeChecks()
	if len(rows)+len(gone) == 0 {
		return
	}
	s.checks.Update(func(x *table.Txn[uint16, model.HealthCheck]) {
		for _, port := range gone {
			x.Delete(port)
		}
		for port, c := range rows {
			x.Set(port, c)
		}
	})
}

// takeLeft are the backends that have left a service since it was last called. The map is the caller's.
func (s *services) takeLeft() map[netip.AddrPort]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.left
	s.left = map[netip.AddrPort]bool{}
	return left
}

// orphans are those who talk to a backend that has left its service.
func (s *services) orphans(talks []model.Talk) []model.Talk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.Orphans(talks)
}

// due are the services that have changed since the last sync, or all there are and were.
func (s *services) due(stored table.Snapshot[model.ServiceID, state.Service]) []model.ServiceID {
	if ids, ok := s.stored.Since(s.seen); ok && s.begun {
		return ids
	}
	ids := s.plan.IDs()
	for id := range stored.All() {
		ids = append(ids, id)
	}
	return ids
}

// judge says why a service would not be served here, nil if it would.
func (s *services) judge(v *model.Service) error {
	s.mu.Lock()
	facts := s.known
	s.mu.Unlock()
	return service.Validate(v, facts)
}

// unanswered says which health-check node ports this node does not answer at as services want it.
func (s *services) unanswered() map[uint16]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.RefusedChecks()
}

// state is how many rows there are, backends behind them, and which services are refused.
func (s *services) state() (frontends, backends int, refused map[model.ServiceID]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frontends, backends = s.plan.Count()
	return frontends, backends, s.plan.Refused()
}

// name says whose frontend an address and port are, be it an address of its own or a port of this node.
func (s *services) name(front netip.AddrPort, proto uint8) (observe.Service, bool) {
	snap := s.rows.Snapshot()
	if snap.Len() == 0 {
		return observe.Service{}, false
	}
	f := model.Frontend{Addr: front.Addr(), Port: front.Port(), Proto: proto}
	row, ok := snap.Get(f)
	if !ok && slices.Contains(s.self.Addrs, f.Addr) {
		f.Addr = unspecified(f.Addr.Is6())
		row, ok = snap.Get(f)
	}
	if !ok {
		f.Scope = model.ScopeInternal
		if row, ok = snap.Get(f); !ok {
			return observe.Service{}, false
		}
	}
	v, ok := s.stored.Get(row.ID)
	return observe.Service{Name: v.Name, Namespace: v.Namespace}, ok && v.Name != ""
}

func unspecified(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// wait returns when this node's table has a service as it was just stored, so that who asks next sees it; or after a while.
func (s *services) wait(ctx context.Context, done func(table.Snapshot[model.ServiceID, state.Service]) bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		snap := s.stored.Snapshot()
		if done(snap) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-snap.Changed():
		}
	}
}
