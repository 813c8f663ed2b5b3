package service

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/internal/model"
)

// What is counted are the places with an active backend of this node, once each, whichever frontend of the service they are behind.
func TestChecks(t *testing.T) {
	const port = 31000
	plan := func() *Plan { return NewPlan(Balancer{Self: self()}, NewFacts(PortRange{30000, 32767}, nil)) }
	service := func(id model.ServiceID, name, frontend string, backends ...string) model.Service {
		s := web(t, frontend, backends...)
		s.ID, s.Type, s.ExternalLocal, s.HealthPort, s.Name, s.Namespace = id, model.ServiceLoadBalancer, true, port, name, "shop"
		return s
	}
	holds := func(p *Plan, local int, refused string) {
		t.Helper()
		rows, gone := p.TakeChecks()
		if local < 0 {
			if len(rows) != 0 || len(gone) != 1 || gone[0] != port {
				t.Errorf("answers %v, gone %v; want none", rows, gone)
			}
		} else if want := (model.HealthCheck{Namespace: "shop", Name: "web", Local: local}); len(rows) != 1 || rows[port] != want {
			t.Errorf("%v, want %v", rows, want)
		}
		got := ""
		if err := p.RefusedChecks()[port]; err != nil {
			got = err.Error()
		}
		if got != refused {
			t.Errorf("refused: %q, want %q", got, refused)
		}
	}
	p := plan()
	p.Set(service(1, "web", "203.0.113.1:80", "10.0.0.5:80", "10.0.0.6:80", "10.1.0.7:80"))
	holds(p, 2, "")
	p.Set(service(2, "web", "203.0.113.1:443", "10.0.0.5:443", "10.0.0.9:443")) // another port of the same service
	holds(p, 3, "")
	p.Set(service(3, "web", "[2001:db8:1::1]:80", "[fd00::5]:80")) // its other IP version: the same places
	holds(p, 3, "")
	s := service(1, "web", "203.0.113.1:80", "10.0.0.5:80", "10.0.0.6:80", "10.1.0.7:80")
	s.Backends[1].State = model.BackendTerminating
	p.Set(s)
	holds(p, 2, "")
	p.Delete(2)
	holds(p, 1, "")
	p.Set(service(4, "other", "203.0.113.4:80", "10.0.0.7:80"))
	holds(p, 1, "health-check node port 31000 of service 4 (shop/other) is that of service 1 (shop/web)")
	p.Delete(4)
	holds(p, 1, "")
	if rows, gone := p.TakeChecks(); len(rows)+len(gone) != 0 {
		t.Errorf("nothing has changed: %v, %v", rows, gone)
	}
	// A node comes whose address the frontend has: neither is served.
	p.Delete(3)
	holds(p, 1, "")
	p.SetFacts(NewFacts(PortRange{30000, 32767}, []model.Node{{Name: "n2", Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}}))
	holds(p, -1, "")
	p.SetFacts(NewFacts(PortRange{30000, 32767}, nil))
	holds(p, 1, "")
	// A service wants the port itself.
	np := web(t, fmt.Sprintf("0.0.0.0:%d", port), "10.0.0.5:80")
	np.ID, np.Type = 9, model.ServiceNodePort
	p.Set(np)
	holds(p, -1, "health-check node port 31000 of service 1 (shop/web) is the port of service 9")
	p.Delete(9)
	holds(p, 1, "")
	p.Delete(1)
	holds(p, -1, "")
}
