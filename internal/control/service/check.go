package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// checks keeps which services want which health-check node port, and which ports a change has touched. A service of several
// frontends is several here, with one name and one port.
type checks struct {
	wanted  map[uint16][]model.ServiceID // sorted
	touched map[uint16]bool              // since TakeChecks
	refused map[uint16]error
}

func newChecks() checks {
	return checks{wanted: map[uint16][]model.ServiceID{}, touched: map[uint16]bool{}, refused: map[uint16]error{}}
}

func (c *checks) join(s *model.Service) {
	if s.HealthPort == 0 {
		return
	}
	ids := c.wanted[s.HealthPort]
	if i, had := slices.BinarySearch(ids, s.ID); !had {
		c.wanted[s.HealthPort] = slices.Insert(ids, i, s.ID)
	}
	c.touched[s.HealthPort] = true
}

func (c *checks) leave(s *model.Service) {
	if s.HealthPort == 0 {
		return
	}
	ids := slices.DeleteFunc(c.wanted[s.HealthPort], func(id model.ServiceID) bool { return id == s.ID })
	if c.wanted[s.HealthPort] = ids; len(ids) == 0 {
		delete(c.wanted, s.HealthPort)
	}
	c.touched[s.HealthPort] = true
}

// touch notes that what is answered at a port may have changed, if anybody wants it.
func (c *checks) touch(port uint16) {
	if len(c.wanted[port]) > 0 {
		c.touched[port] = true
	}
}

// touchChecks notes what a decision about a place means for health-check node ports: of its services, and where it is a port of
// the nodes itself.
func (p *Plan) touchChecks(at model.Frontend) {
	for _, id := range p.places[at].ids {
		p.checks.touch(p.services[id].HealthPort)
	}
	if at.Addr.IsUnspecified() && at.Proto == model.ProtoTCP {
		p.checks.touch(at.Port)
	}
}

// TakeChecks returns what this node answers at the health-check node ports that were touched since it was last called, and at
// which of them it answers nothing.
func (p *Plan) TakeChecks() (rows map[uint16]model.HealthCheck, gone []uint16) {
	rows = map[uint16]model.HealthCheck{}
	for port := range p.checks.touched {
		if c, ok := p.check(port); ok {
			rows[port] = c
		} else {
			gone = append(gone, port)
		}
	}
	clear(p.checks.touched)
	return rows, gone
}

// check counts the backends that this node has itself of the service whose port it is: of two, the one with the older number.
func (p *Plan) check(port uint16) (c model.HealthCheck, ok bool) {
	delete(p.checks.refused, port)
	var owner *model.Service
	var local [2]map[netip.Addr]bool // by IP version: a service of both has the same backends twice
	for _, id := range p.checks.wanted[port] {
		s := p.services[id]
		switch {
		case p.refused[id] != nil:
			continue
		case owner == nil:
			owner = s
		case s.FullName() != owner.FullName():
			p.checks.refused[port] = fmt.Errorf("health-check node port %d of service %d (%s) is that of service %d (%s)", port, id, s.FullName(), owner.ID, owner.FullName())
			continue
		}
		for i := range s.Backends {
			b := &s.Backends[i]
			if b.State != model.BackendActive || !p.balancer.here(b) {
				continue
			}
			v := version(b.Addr)
			if local[v] == nil {
				local[v] = map[netip.Addr]bool{}
			}
			local[v][b.Addr] = true
		}
	}
	if owner == nil {
		return c, false
	}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if pl := p.places[model.Frontend{Addr: a, Port: port, Proto: model.ProtoTCP}]; pl != nil && len(pl.rows) > 0 {
			p.checks.refused[port] = fmt.Errorf("health-check node port %d of service %d (%s) is the port of service %d", port, owner.ID, owner.FullName(), pl.rows[0].ID)
			return c, false
		}
	}
	return model.HealthCheck{Namespace: owner.Namespace, Name: owner.Name, Local: max(len(local[0]), len(local[1]))}, true
}

// RefusedChecks says which health-check node ports are not served as somebody wants, and why. The map is the caller's.
func (p *Plan) RefusedChecks() map[uint16]error { return maps.Clone(p.checks.refused) }
