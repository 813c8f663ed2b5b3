package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

// Whatever the order of changes, the plan's rows are those of a plan that has never known anything else, and what Take tells adds
// up to them.
func TestPlanModel(t *testing.T) {
	nodes := []model.Node{self(), {Name: "n2", Addrs: addrs("192.0.2.2"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/30")}}} // on some frontends
	rapid.Check(t, func(t *rapid.T) {
		b := Balancer{Self: self(), Size: 251}
		known := NewFacts(PortRange{30000, 32767}, nodes[:1])
		p := NewPlan(b, known)
		want, told := map[model.ServiceID]model.Service{}, map[model.Frontend]model.Balance{}
		checks, left := map[uint16]model.HealthCheck{}, map[netip.AddrPort]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := model.ServiceID(rapid.IntRange(1, 6).Draw(t, "id"))
			before := want[id]
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				p.Delete(id)
				delete(want, id)
			case 1:
				known = NewFacts(PortRange{30000, 32767}, nodes[:rapid.IntRange(1, 2).Draw(t, "nodes")])
				p.SetFacts(known)
			default:
				s := model.Service{ID: id, Type: rapid.SampledFrom([]model.ServiceType{model.ServiceClusterIP, model.ServiceLoadBalancer, model.ServiceLocalRedirect}).Draw(t, "type"),
					Frontend: model.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, 0, byte(rapid.IntRange(2, 5).Draw(t, "vip"))}), Port: 80, Proto: 6,
						Scope: model.Scope(rapid.IntRange(0, 1).Draw(t, "scope"))},
					ExternalLocal: rapid.Bool().Draw(t, "local"), Select: model.Selection(rapid.IntRange(0, 2).Draw(t, "select"))}
				if s.Name = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"); s.ExternalLocal {
					s.HealthPort = rapid.SampledFrom([]uint16{0, 31000, 31001}).Draw(t, "health")
				}
				if rapid.IntRange(0, 3).Draw(t, "port") == 0 {
					s.Type, s.Frontend.Addr, s.Frontend.Port = model.ServiceNodePort, netip.IPv4Unspecified(), rapid.Uint16Range(31000, 31002).Draw(t, "node port")
				}
				s.Backends = crowd(rapid.IntRange(240, 255).Draw(t, "first"), rapid.IntRange(0, 4).Draw(t, "n"))
				p.Set(s)
				want[id] = s
			}
			after := want[id]
			for _, b := range before.Backends {
				if placeOf(before.Frontend) != placeOf(after.Frontend) || !endsOf(after.Backends)[endOf(b)] {
					left[endOf(b)] = true
				}
			}
			if rapid.Bool().Draw(t, "take") {
				take(p, told)
				takeChecks(p, checks)
			}
		}
		take(p, told)
		fresh := NewPlan(b, known)
		for _, s := range want {
			fresh.Set(s)
		}
		rows := map[model.Frontend]model.Balance{}
		take(fresh, rows)
		if !maps.EqualFunc(told, rows, func(x, y model.Balance) bool { return equal(&x, &y) }) {
			t.Fatalf("told %v\nmake %v", told, rows)
		}
		takeChecks(p, checks)
		answers := map[uint16]model.HealthCheck{}
		takeChecks(fresh, answers)
		if !maps.Equal(checks, answers) || fmt.Sprint(p.RefusedChecks()) != fmt.Sprint(fresh.RefusedChecks()) {
			t.Fatalf("answers %v, afresh %v; refused %v, afresh %v", checks, answers, p.RefusedChecks(), fresh.RefusedChecks())
		}
		if got := p.Left(); !maps.Equal(got, left) || p.Left() != nil {
			t.Fatalf("left: %v, want %v", got, left)
		}
		f, e := p.Count()
		if f2, e2 := fresh.Count(); f != len(rows) || f != f2 || e != e2 {
			t.Fatalf("counted %d, %d; there are %d, %d", f, e, f2, e2)
		}
		if x, y := fmt.Sprint(p.Refused()), fmt.Sprint(fresh.Refused()); x != y {
			t.Fatalf("refused %s, afresh %s", x, y)
		}
	})
}

func endOf(b model.Backend) netip.AddrPort { return netip.AddrPortFrom(b.Addr, b.Port) }

func takeChecks(p *Plan, into map[uint16]model.HealthCheck) {
	rows, gone := p.TakeChecks()
	for _, port := range gone {
		delete(into, port)
	}
	maps.Copy(into, rows)
}

func take(p *Plan, into map[model.Frontend]model.Balance) {
	rows, gone := p.Take()
	for _, f := range gone {
		delete(into, f)
	}
	for _, r := range rows {
		into[r.Frontend] = r
	}
}

func TestPlanRefuses(t *testing.T) {
	p := NewPlan(Balancer{Self: self()}, NewFacts(PortRange{30000, 32767}, nil))
	a, b := web(t, "10.1.0.1:80", "10.0.0.5:80"), web(t, "10.1.0.1:80", "10.0.0.6:80")
	b.ID = 2
	p.Set(b)
	p.Set(a) // has the older number
	if err := p.Refused()[2]; err == nil || !strings.Contains(err.Error(), "is that of service 1 (shop/web)") {
		t.Errorf("%v", p.Refused())
	}
	p.Delete(1)
	if r, ok := p.row(b.Frontend); !ok || r.ID != 2 || len(p.Refused()) != 0 {
		t.Errorf("the other one is not served: %v %v", r, p.Refused())
	}
	p.Take()
	p.SetFacts(facts()) // a node comes whose pods live there
	if _, gone := p.Take(); len(gone) != 1 || !strings.Contains(fmt.Sprint(p.Refused()[2]), "pods of node n2") {
		t.Errorf("%v %v", gone, p.Refused())
	}
	p.SetFacts(NewFacts(PortRange{30000, 32767}, nil))
	if rows, _ := p.Take(); len(rows) != 1 || len(p.Refused()) != 0 {
		t.Errorf("%v %v", rows, p.Refused())
	}
}

// An internal frontend of its own goes before what an external policy makes of the external one.
func TestPlanScopes(t *testing.T) {
	p := NewPlan(Balancer{Self: self()}, facts())
	ext, in := web(t, "10.96.0.1:80", "10.0.0.5:80", "10.1.0.5:80"), web(t, "10.96.0.1:80/TCP/i", "10.1.0.6:80")
	ext.Type, in.Type, ext.ExternalLocal, in.ID = model.ServiceLoadBalancer, model.ServiceLoadBalancer, true, 2
	rows := map[model.Frontend]model.Balance{}
	check := func(want ...string) {
		t.Helper()
		take(p, rows)
		var got []string
		for f, r := range rows {
			got = append(got, fmt.Sprintf("%s=%d:%s", f, r.ID, short(r.Slots)))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	p.Set(ext)
	check("10.96.0.1:80/TCP/i=1:10.0.0.5 10.1.0.5", "10.96.0.1:80/TCP=1:10.0.0.5")
	p.Set(in)
	check("10.96.0.1:80/TCP/i=2:10.1.0.6", "10.96.0.1:80/TCP=1:10.0.0.5")
	p.Delete(2)
	check("10.96.0.1:80/TCP/i=1:10.0.0.5 10.1.0.5", "10.96.0.1:80/TCP=1:10.0.0.5")
	p.Delete(1)
	check()
}

// Of ten thousand services, a change of one is the work of one.
func TestPlanWorksOnChanges(t *testing.T) {
	const n = 10_000
	p := NewPlan(Balancer{Self: self(), Size: 251, Select: model.SelectMaglev}, facts())
	for i := range n {
		p.Set(numbered(i))
	}
	rows, gone := p.Take()
	if len(rows) != n || len(gone) != 0 || p.worked != n {
		t.Fatalf("%d rows, %d gone, %d places decided", len(rows), len(gone), p.worked)
	}
	before, _ := p.row(numbered(77).Frontend)
	p.worked = 0
	s := numbered(77)
	p.Set(s) // as it is
	s.Affinity = 3600e9
	p.Set(s)
	rows, gone = p.Take()
	if len(rows) != 1 || len(gone) != 0 || p.worked != 1 || rows[0].Affinity != s.Affinity || &rows[0].Table[0] != &before.Table[0] {
		t.Errorf("%d rows, %d gone, %d places decided", len(rows), len(gone), p.worked)
	}
	p.worked = 0
	p.SetFacts(NewFacts(PortRange{30000, 32767}, []model.Node{self(), {Name: "new", Addrs: []netip.Addr{numbered(5).Frontend.Addr}}}))
	if rows, gone = p.Take(); len(rows) != 0 || len(gone) != 1 || p.worked != 1 {
		t.Errorf("%d rows, %d gone, %d places decided", len(rows), len(gone), p.worked)
	}
}

func numbered(i int) model.Service {
	s := model.Service{ID: model.ServiceID(i + 1), Frontend: model.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80, Proto: 6}}
	s.Backends = crowd(1<<16+4*i, 4)
	return s
}

func BenchmarkPlanUpdate(b *testing.B) {
	p := NewPlan(Balancer{Self: self(), Size: DefaultTableSize}, facts())
	for i := range 10_000 {
		p.Set(numbered(i))
	}
	p.Take()
	for i := 0; b.Loop(); i++ {
		s := numbered(i % 10_000)
		s.Backends[0].State = model.BackendState((i/10_000 + 1) % 2)
		p.Set(s)
		p.Take()
	}
}
