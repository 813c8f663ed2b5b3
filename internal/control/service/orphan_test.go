package service

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/hypha-net/hypha/internal/model"
)

func TestOrphans(t *testing.T) {
	p := NewPlan(Balancer{Self: self()}, NewFacts(PortRange{30000, 32767}, nil))
	vip := web(t, "10.96.0.1:80", "10.0.0.5:80", "10.0.0.6:80")
	vip.Backends[1].State = model.BackendMaintenance
	inside := web(t, "10.96.0.1:80", "10.0.0.7:80")
	inside.ID, inside.Frontend.Scope = 2, model.ScopeInternal
	port := web(t, "0.0.0.0:30001", "10.0.0.5:80")
	port.ID, port.Type = 3, model.ServiceNodePort
	refused := web(t, "10.96.0.3:80", "10.0.0.5:80")
	refused.ID, refused.RangesDeny = 4, true
	for _, s := range []model.Service{vip, inside, port, refused} {
		p.Set(s)
	}
	if len(p.Refused()) != 1 {
		t.Fatal(p.Refused())
	}
	for _, c := range []struct {
		front, back string
		proto       uint8
		orphan      bool
	}{
		{"10.96.0.1:80", "10.0.0.5:80", 6, false},
		{"10.96.0.1:80", "10.0.0.6:80", 6, false},        // in maintenance
		{"10.96.0.1:80", "10.0.0.7:80", 6, false},        // of the internal scope
		{"10.96.0.1:80", "10.0.0.8:80", 6, true},         // nobody's
		{"10.96.0.1:80", "10.0.0.5:81", 6, true},         // another port
		{"10.96.0.1:80", "10.0.0.5:80", 17, true},        // another protocol: no such frontend
		{"10.96.0.1:81", "10.0.0.5:80", 6, true},         // no such frontend
		{"10.96.0.2:80", "10.0.0.5:80", 6, true},         // no such frontend
		{"10.96.0.3:80", "10.0.0.5:80", 6, false},        // not served, but still its own
		{"192.0.2.1:30001", "10.0.0.5:80", 6, false},     // a port of the nodes
		{"127.0.0.1:30001", "10.0.0.5:80", 6, false},     // for their own processes
		{"192.0.2.1:30001", "10.0.0.6:80", 6, true},      // not of that service
		{"[2001:db8::1]:30001", "[fd00::5]:80", 6, true}, // no port of that IP version
	} {
		talk := model.Talk{Socket: 1, Proto: c.proto, Front: netip.MustParseAddrPort(c.front), Back: netip.MustParseAddrPort(c.back)}
		if got := p.Orphans([]model.Talk{talk}); slices.Contains(got, talk) != c.orphan {
			t.Errorf("%+v: orphan %v", talk, !c.orphan)
		}
	}
}
