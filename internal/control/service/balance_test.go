package service

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

func self() model.Node {
	return model.Node{Name: "n1", Addrs: addrs("192.0.2.1"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
}

// short writes backends: "10.0.0.5 10.0.0.6", by address.
func short(bs []model.Backend) string {
	var out []string
	for _, b := range bs {
		out = append(out, b.Addr.String())
	}
	return strings.Join(out, " ")
}

func TestBalance(t *testing.T) {
	// A backend: address, then its state's first letter, its weight, @node.
	parse := func(t *testing.T, text string) (out []model.Backend) {
		for f := range strings.FieldsSeq(text) {
			f, node, _ := strings.Cut(f, "@")
			f, weight, _ := strings.Cut(f, "*")
			f, state, _ := strings.Cut(f, ",")
			b := backend(t, f+":80")
			b.Node = node
			b.State = map[string]model.BackendState{"": 0, "t": model.BackendTerminating, "q": model.BackendQuarantined, "m": model.BackendMaintenance}[state]
			for _, c := range weight {
				b.Weight = 10*b.Weight + uint16(c-'0')
			}
			out = append(out, b)
		}
		return out
	}
	const remote, here = "10.1.0.7", "10.0.0.5"
	for name, tc := range map[string]struct {
		typ        model.ServiceType
		ext, int   bool // Local
		scope      model.Scope
		backends   string
		want, keep string // of the row for everybody; "-": no such row
		inside     string // slots of the internal row, "-": none
	}{
		"all":                 {backends: remote + " " + here, want: here + " " + remote, inside: "-"},
		"nobody":              {backends: "", want: "", inside: "-"},
		"terminating":         {backends: here + ",t " + remote, want: remote, keep: here, inside: "-"},
		"only terminating":    {backends: here + ",t " + remote + ",q", want: here, keep: remote, inside: "-"},
		"nobody healthy":      {backends: here + ",q " + remote + ",m", want: "", keep: here + " " + remote, inside: "-"},
		"internal Local":      {int: true, backends: here + " " + remote, want: here, inside: "-"},
		"Local by node":       {int: true, backends: "10.9.9.9@n1 10.0.0.6@n2", want: "10.9.9.9", inside: "-"},
		"Local, node itself":  {int: true, backends: "192.0.2.1 192.0.2.2", want: "192.0.2.1", inside: "-"},
		"Local, terminating":  {int: true, backends: here + ",t " + remote, want: here, inside: "-"},
		"Local, nobody":       {int: true, backends: remote, want: "", inside: "-"},
		"external Local":      {typ: model.ServiceLoadBalancer, ext: true, backends: here + " " + remote, want: here, inside: here + " " + remote},
		"of no meaning":       {ext: true, backends: here + " " + remote, want: here + " " + remote, inside: "-"},
		"nor this":            {typ: model.ServiceLoadBalancer, int: true, backends: remote, want: remote, inside: "-"},
		"internal only":       {typ: model.ServiceLoadBalancer, ext: true, scope: model.ScopeInternal, backends: remote, want: "-", inside: remote},
		"host port":           {typ: model.ServiceHostPort, backends: here + " " + remote, want: here, inside: "-"},
		"host port elsewhere": {typ: model.ServiceHostPort, backends: remote, want: "-", inside: "-"},
		"redirect":            {typ: model.ServiceLocalRedirect, backends: here + ",t", want: here, inside: "-"},
		"redirect elsewhere":  {typ: model.ServiceLocalRedirect, backends: remote, want: "-", inside: "-"},
		"weights":             {backends: here + "*200 " + remote + "*100", want: here + " " + here + " " + remote, inside: "-"},
		"equal weights":       {backends: here + "*77 " + remote + "*77", want: here + " " + remote, inside: "-"},
		"weight of the gone":  {backends: here + ",q*5 " + remote + "*3", want: remote, keep: here, inside: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			s := web(t, "10.96.0.1:80")
			s.Type, s.ExternalLocal, s.InternalLocal, s.Frontend.Scope, s.Backends = tc.typ, tc.ext, tc.int, tc.scope, parse(t, tc.backends)
			rows := map[model.Scope]model.Balance{}
			for _, r := range (&Balancer{Self: self()}).Balance(&s, nil) {
				rows[r.Frontend.Scope] = r
				if r.ID != 1 || r.Frontend.Port != 80 || r.Table != nil || r.Type != tc.typ {
					t.Errorf("%+v", r)
				}
			}
			check := func(scope model.Scope, want string) {
				t.Helper()
				r, ok := rows[scope]
				if ok != (want != "-") || ok && short(r.Slots) != want {
					t.Errorf("scope %d: %q (%v), want %q", scope, short(r.Slots), ok, want)
				}
			}
			check(model.ScopeExternal, tc.want)
			check(model.ScopeInternal, tc.inside)
			if r, ok := rows[model.ScopeExternal]; ok && short(r.Keep) != tc.keep {
				t.Errorf("kept: %q, want %q", short(r.Keep), tc.keep)
			}
		})
	}
}

// What other nodes serve has no row here, whatever kind it is.
func TestElsewhere(t *testing.T) {
	for _, typ := range []model.ServiceType{model.ServiceNodePort, model.ServiceLoadBalancer, model.ServiceExternalIPs} {
		s := web(t, "10.96.0.1:80", "10.0.0.5:80")
		s.Type, s.Elsewhere, s.ExternalLocal = typ, true, true
		if rows := (&Balancer{Self: self()}).Balance(&s, nil); len(rows) != 0 {
			t.Errorf("%s: %+v", typ, rows)
		}
	}
}

// Which backends are near, by kube-proxy's rules.
func TestTopology(t *testing.T) {
	const a, b, c = "10.1.0.1", "10.1.0.2", "10.0.0.3" // the last lives here
	for name, tc := range map[string]struct {
		off        bool
		zone       string // of this node
		prefer     model.Preference
		local      bool   // internal traffic policy
		backends   string // address, then its state's first letter, /its zone, :zones it is for, @nodes it is for
		want, keep string
	}{
		"off, and a wish":           {off: true, zone: "z1", prefer: model.PreferClose, backends: a + ":z1 " + b + ":z2", want: a, keep: b},
		"for nodes":                 {backends: a + "@n1+n2 " + b + "@n2", want: a, keep: b},
		"for nodes, one without":    {backends: a + "@n1 " + b, want: a + " " + b},
		"for other nodes":           {backends: a + "@n3 " + b + "@n2", want: a + " " + b},
		"a node before a zone":      {zone: "z1", backends: a + ":z1@n2 " + b + ":z2@n1", want: b, keep: a},
		"off":                       {off: true, zone: "z1", backends: a + ":z1 " + b + ":z2", want: a + " " + b},
		"hinted":                    {zone: "z1", backends: a + ":z1 " + b + ":z2", want: a, keep: b},
		"for several zones":         {zone: "z2", backends: a + ":z1+z2 " + b + ":z2 " + c + ":z1", want: a + " " + b, keep: c},
		"a name's beginning":        {zone: "z", backends: a + ":z1 " + b + ":z2", want: a + " " + b},
		"one without a hint":        {zone: "z1", backends: a + ":z1 " + b, want: a + " " + b},
		"none for here":             {zone: "z3", backends: a + ":z1 " + b + ":z2", want: a + " " + b},
		"the node has no zone":      {backends: a + ":z1 " + b + ":z2", want: a + " " + b},
		"who is not ready":          {zone: "z1", backends: a + ",q:z1 " + b + ",m " + c + ":z2", want: c, keep: a + " " + b},
		"not ready have no say":     {zone: "z1", backends: a + ":z1 " + b + ",q " + c + ":z2", want: a, keep: b + " " + c},
		"nobody ready":              {zone: "z1", backends: a + ",t:z1 " + b + ",t:z2", want: a + " " + b},
		"local goes first":          {zone: "z1", local: true, backends: a + ":z1 " + c + ":z2", want: c},
		"a zone is no hint":         {zone: "z1", backends: a + "/z1 " + b + "/z2", want: a + " " + b},
		"close: its own zone":       {zone: "z1", prefer: model.PreferClose, backends: a + "/z1 " + b + "/z2", want: a, keep: b},
		"same zone":                 {zone: "z2", prefer: model.PreferSameZone, backends: a + "/z1 " + b + "/z2", want: b, keep: a},
		"a hint before the zone":    {zone: "z1", prefer: model.PreferClose, backends: a + "/z1:z2 " + b + "/z2:z1", want: b, keep: a},
		"one without a zone":        {zone: "z1", prefer: model.PreferClose, backends: a + "/z1 " + b, want: a + " " + b},
		"same node":                 {zone: "z1", prefer: model.PreferSameNode, backends: a + "/z1 " + c + "/z2", want: c, keep: a},
		"same node without a zone":  {prefer: model.PreferSameNode, backends: a + " " + c, want: c, keep: a},
		"same node, none: the zone": {zone: "z1", prefer: model.PreferSameNode, backends: a + "/z1 " + b + "/z2", want: a, keep: b},
		"same node, not ready":      {zone: "z1", prefer: model.PreferSameNode, backends: a + "/z1 " + c + ",t/z2", want: a, keep: c},
	} {
		t.Run(name, func(t *testing.T) {
			s := web(t, "10.96.0.1:80")
			s.Prefer, s.InternalLocal = tc.prefer, tc.local
			for f := range strings.FieldsSeq(tc.backends) {
				f, nodes, _ := strings.Cut(f, "@")
				f, zones, _ := strings.Cut(f, ":")
				f, zone, _ := strings.Cut(f, "/")
				f, state, _ := strings.Cut(f, ",")
				x := backend(t, f+":80")
				x.Zone, x.Hints = zone, model.NewZones(strings.Split(zones, "+")...)
				x.NodeHints = model.NewZones(strings.Split(nodes, "+")...)
				x.State = map[string]model.BackendState{"": 0, "t": model.BackendTerminating, "q": model.BackendQuarantined, "m": model.BackendMaintenance}[state]
				s.Backends = append(s.Backends, x)
			}
			node := self()
			if tc.zone != "" {
				node.Labels = model.NewLabels(model.Label{Source: model.SourceNode, Key: zoneLabel, Value: tc.zone})
			}
			r := (&Balancer{Self: node, Topology: !tc.off}).Balance(&s, nil)[0]
			slices.SortFunc(r.Keep, func(x, y model.Backend) int { return x.Addr.Compare(y.Addr) })
			slices.SortFunc(r.Slots, func(x, y model.Backend) int { return strings.Compare(x.Addr.String(), y.Addr.String()) })
			want := strings.Fields(tc.want)
			slices.Sort(want)
			if short(r.Slots) != strings.Join(want, " ") {
				t.Errorf("new flows to %q, want %q", short(r.Slots), tc.want)
			}
			keep := map[string]bool{}
			for x := range strings.FieldsSeq(tc.keep) {
				keep[x] = true
			}
			if len(r.Keep) != len(keep) || slices.ContainsFunc(r.Keep, func(x model.Backend) bool { return !keep[x.Addr.String()] }) {
				t.Errorf("kept %q, want %q", short(r.Keep), tc.keep)
			}
		})
	}
}

// Whatever the service: no backend that must not get a flow gets one, none that may is forgotten, nobody is in both lists, and
// the order in which backends are given means nothing.
func TestBalanceLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := model.Service{ID: 7, Type: model.ServiceType(rapid.IntRange(0, 5).Draw(t, "type")), ExternalLocal: rapid.Bool().Draw(t, "ext"), InternalLocal: rapid.Bool().Draw(t, "int"),
			Select: model.Selection(rapid.IntRange(0, 2).Draw(t, "select")), Frontend: model.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: 6}}
		s.Backends = crowd(250, rapid.IntRange(0, 12).Draw(t, "n")) // from 10.0.0.250 on: some are here
		for i := range s.Backends {
			s.Backends[i].State = model.BackendState(rapid.IntRange(0, 3).Draw(t, "state"))
			s.Backends[i].Weight = rapid.SampledFrom([]uint16{0, 1, 2, 3, 100, 65535}).Draw(t, "weight")
			s.Backends[i].Node = rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node")
		}
		s.Prefer = model.Preference(rapid.IntRange(0, 3).Draw(t, "prefer"))
		b := Balancer{Self: self(), Size: 251, Select: model.Selection(rapid.IntRange(0, 2).Draw(t, "default"))}
		rows := b.Balance(&s, nil)
		given := slices.Clone(s.Backends)
		s.Backends = rapid.Permutation(s.Backends).Draw(t, "order")
		if again := b.Balance(&s, nil); !slices.EqualFunc(rows, again, same) {
			t.Fatal("the order of backends matters")
		}
		for _, r := range rows {
			active, count := false, map[model.Backend]int{}
			for _, x := range r.Slots {
				count[x]++
				active = active || x.State == model.BackendActive
				if x.State > model.BackendTerminating || slices.Contains(r.Keep, x) || !slices.Contains(given, x) || r.Local && !b.here(&x) {
					t.Fatalf("%+v gets flows", x)
				}
			}
			for x := range count {
				if active && x.State == model.BackendTerminating {
					t.Fatalf("%+v gets new flows beside active ones", x)
				}
				if r.Table != nil && count[x] != 1 {
					t.Fatal("a Maglev table says how often")
				}
			}
			for _, x := range given {
				if (!r.Local || b.here(&x)) && count[x] == 0 && !slices.Contains(r.Keep, x) {
					t.Fatalf("%+v is forgotten", x)
				}
				// Of a service that prefers some, the others keep what they have.
				if x.State == model.BackendActive && (!r.Local || b.here(&x)) && count[x] == 0 && (s.Prefer == model.PreferNone || !active || !slices.Contains(r.Keep, x)) {
					t.Fatalf("%+v is active and gets nothing", x)
				}
			}
			if !slices.IsSortedFunc(r.Slots, func(x, y model.Backend) int { return x.Addr.Compare(y.Addr) }) {
				t.Fatalf("not in order: %s", short(r.Slots))
			}
			if len(r.Slots) > int(maxSpread(len(given)))+len(given) {
				t.Fatalf("%d slots", len(r.Slots))
			}
		}
	})
}

func same(a, b model.Balance) bool {
	return a.Frontend == b.Frontend && slices.Equal(a.Slots, b.Slots) && slices.Equal(a.Keep, b.Keep) && slices.Equal(a.Table, b.Table)
}

// A Maglev table is made again only where those who are in it have changed.
func TestBalanceKeepsTable(t *testing.T) {
	s := web(t, "10.96.0.1:80", "10.0.0.5:80", "10.0.0.6:80", "10.0.0.7:80")
	b := Balancer{Self: self(), Size: 251, Select: model.SelectMaglev}
	rows := b.Balance(&s, nil)
	s.Name, s.Affinity, s.Backends[0].Zone = "other", 5, "z"
	again := b.Balance(&s, rows)
	if &again[0].Table[0] != &rows[0].Table[0] {
		t.Error("made again though nobody changed")
	}
	s.Backends[2].State = model.BackendMaintenance
	left := b.Balance(&s, again)
	if &left[0].Table[0] == &rows[0].Table[0] || slices.Max(left[0].Table) != 1 {
		t.Error("taken over though somebody has gone")
	}
	s.Backends = s.Backends[:1]
	if one := b.Balance(&s, left); one[0].Table != nil || len(one[0].Slots) != 1 {
		t.Error("one backend needs no table")
	}
}
