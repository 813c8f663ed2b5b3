package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// Plan keeps what is decided of every service, and works only on what a change touches. It is not safe for concurrent use.
type Plan struct {
	balancer Balancer
	facts    *Facts
	services map[model.ServiceID]*model.Service
	places   map[model.Frontend]*place
	refused  map[model.ServiceID]error
	changed  map[model.Frontend]bool // rows since Take
	left     map[netip.AddrPort]bool // backends since Left
	checks   checks

	frontends, backends int
	worked              int // places decided so far
}

// place is an address, port and protocol, with the services that want it: one for each scope gets it.
type place struct {
	ids  []model.ServiceID
	rows []model.Balance
	ends int // backends behind the rows
}

// NewPlan makes a plan without services.
func NewPlan(b Balancer, f *Facts) *Plan {
	return &Plan{balancer: b, facts: f, services: map[model.ServiceID]*model.Service{}, places: map[model.Frontend]*place{},
		refused: map[model.ServiceID]error{}, changed: map[model.Frontend]bool{}, left: map[netip.AddrPort]bool{}, checks: newChecks()}
}

func placeOf(f model.Frontend) model.Frontend {
	f.Scope = model.ScopeExternal
	return f
}

// Set adds or replaces a service.
func (p *Plan) Set(s model.Service) {
	if old := p.services[s.ID]; old != nil {
		if old.Equal(&s) {
			return
		}
		if placeOf(old.Frontend) != placeOf(s.Frontend) {
			p.Delete(s.ID)
		} else {
			p.lose(old, &s)
			p.checks.leave(old)
		}
	}
	p.services[s.ID] = &s
	p.checks.join(&s)
	at := placeOf(s.Frontend)
	pl := p.places[at]
	if pl == nil {
		pl = &place{}
		p.places[at] = pl
	}
	if i, had := slices.BinarySearch(pl.ids, s.ID); !had {
		pl.ids = slices.Insert(pl.ids, i, s.ID)
	}
	p.decide(at)
}

// Delete removes a service; that it is not there is no error.
func (p *Plan) Delete(id model.ServiceID) {
	s := p.services[id]
	if s == nil {
		return
	}
	p.lose(s, nil)
	p.checks.leave(s)
	delete(p.services, id)
	delete(p.refused, id)
	at := placeOf(s.Frontend)
	pl := p.places[at]
	pl.ids = slices.DeleteFunc(pl.ids, func(x model.ServiceID) bool { return x == id })
	p.decide(at)
	if len(pl.ids) == 0 {
		delete(p.places, at)
	}
}

// SetFacts judges all services anew; only those that are judged otherwise now cost more than that.
func (p *Plan) SetFacts(f *Facts) {
	p.facts = f
	again := map[model.Frontend]bool{}
	for id, s := range p.services {
		if err := Validate(s, f); err != nil || p.refused[id] != nil {
			again[placeOf(s.Frontend)] = true
		}
	}
	for at := range again {
		p.decide(at)
	}
}

// SetSelf tells what this node is now. Where it has moved to another zone, everything is decided anew.
func (p *Plan) SetSelf(n model.Node) {
	moved := zone(&p.balancer.Self) != zone(&n)
	if p.balancer.Self = n; !moved {
		return
	}
	for at := range p.places {
		p.decide(at)
	}
}

// decide makes the rows of a place from the services that want it. Of two for the same scope the older number wins, on every
// node; a service for the internal scope goes before what the external policy of another makes of it.
func (p *Plan) decide(at model.Frontend) {
	p.worked++
	pl := p.places[at]
	var winner [2]*model.Service
	for _, id := range pl.ids {
		s := p.services[id]
		err := Validate(s, p.facts)
		if err == nil && winner[s.Frontend.Scope] != nil {
			w := winner[s.Frontend.Scope]
			err = fmt.Errorf("frontend %s is that of service %d (%s)", s.Frontend, w.ID, w.FullName())
		}
		if err != nil {
			p.refused[id] = err
			continue
		}
		delete(p.refused, id)
		winner[s.Frontend.Scope] = s
	}
	var rows []model.Balance
	ends := 0
	for _, s := range winner {
		if s == nil {
			continue
		}
		ends += len(s.Backends)
		for _, r := range p.balancer.Balance(s, pl.rows) {
			if w := winner[r.Frontend.Scope]; w == nil || w == s {
				rows = append(rows, r)
			}
		}
	}
	for _, r := range pl.rows {
		if !slices.ContainsFunc(rows, func(n model.Balance) bool { return equal(&n, &r) }) {
			p.changed[r.Frontend] = true
		}
	}
	for _, r := range rows {
		if !slices.ContainsFunc(pl.rows, func(o model.Balance) bool { return equal(&o, &r) }) {
			p.changed[r.Frontend] = true
		}
	}
	p.frontends += len(rows) - len(pl.rows)
	p.backends += ends - pl.ends
	pl.rows, pl.ends = rows, ends
	p.touchChecks(at)
}

// equal says whether two rows are the same. Tables that are taken over are the same memory.
func equal(a, b *model.Balance) bool {
	return a.Frontend == b.Frontend && a.ID == b.ID && a.Type == b.Type && a.Affinity == b.Affinity && a.RangesDeny == b.RangesDeny && a.Local == b.Local &&
		slices.Equal(a.Ranges, b.Ranges) && slices.Equal(a.Slots, b.Slots) && slices.Equal(a.Keep, b.Keep) && sameTable(a.Table, b.Table)
}

func sameTable(a, b []uint16) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// Take returns the rows that have changed since it was last called, and the frontends that have none any more.
func (p *Plan) Take() (rows []model.Balance, gone []model.Frontend) {
	for f := range p.changed {
		if r, ok := p.row(f); ok {
			rows = append(rows, r)
		} else {
			gone = append(gone, f)
		}
	}
	clear(p.changed)
	return rows, gone
}

func (p *Plan) row(f model.Frontend) (model.Balance, bool) {
	if pl := p.places[placeOf(f)]; pl != nil {
		for _, r := range pl.rows {
			if r.Frontend == f {
				return r, true
			}
		}
	}
	return model.Balance{}, false
}

// Count is how many rows there are, and how many backends behind them.
func (p *Plan) Count() (frontends, backends int) { return p.frontends, p.backends }

// Refused says which services are not served, and why. The map is the caller's.
func (p *Plan) Refused() map[model.ServiceID]error { return maps.Clone(p.refused) }

// IDs are the services it knows.
func (p *Plan) IDs() []model.ServiceID { return slices.Collect(maps.Keys(p.services)) }
