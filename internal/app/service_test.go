package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/control/service"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

var nodeOne = model.Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}

// testServices is services over tables that the test fills.
func testServices(t *testing.T) (*services, *table.Table[model.ServiceID, state.Service], *table.Table[string, model.Node]) {
	t.Helper()
	stored := table.New[model.ServiceID, state.Service]("services", table.Uint[model.ServiceID])
	nodes := table.New[string, model.Node]("nodes", table.String)
	return newServices(discard, service.Balancer{Self: nodeOne, Size: 251}, service.PortRange{Low: 30000, High: 32767}, stored, nodes), stored, nodes
}

func testService(id model.ServiceID, frontend string, backends ...string) state.Service {
	fe, err := model.ParseFrontend(frontend, model.ProtoTCP)
	if err != nil {
		panic(err)
	}
	v := state.Service{Service: model.Service{ID: id, Name: fmt.Sprint("s", id), Namespace: "shop", Frontend: fe}}
	if fe.Addr.IsUnspecified() {
		v.Type = model.ServiceNodePort
	}
	for _, b := range backends {
		ap, proto, err := model.ParseAddress(b, fe.Proto)
		if err != nil {
			panic(err)
		}
		v.Backends = append(v.Backends, model.Backend{Addr: ap.Addr(), Port: ap.Port(), Proto: proto})
	}
	return v
}

// until waits for a condition; what says what is so meanwhile.
func until(t *testing.T, cond func() bool, what func() string) {
	t.Helper()
	for range 1500 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what())
}

func TestServicesFollow(t *testing.T) {
	s, stored, nodes := testServices(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	rows := func(n int) {
		t.Helper()
		until(t, func() bool { return s.rows.Snapshot().Len() == n }, func() string { return fmt.Sprintf("%d rows, want %d", s.rows.Snapshot().Len(), n) })
	}
	stored.Set(1, testService(1, "10.96.0.1:80", "10.0.0.5:80"))
	rows(1)
	if s.rows.Snapshot().Complete() {
		t.Error("complete before its sources")
	}
	stored.SetComplete()
	nodes.SetComplete()
	until(t, func() bool { return s.rows.Snapshot().Complete() }, func() string { return "not complete" })
	stored.Set(2, testService(2, "10.96.0.2:80", "10.0.0.5:80", "10.1.0.5:80"))
	rows(2)
	nodes.Set("n2", model.Node{Name: "n2", Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.2")}}) // a node comes at that address
	rows(1)
	if _, _, refused := s.state(); !strings.Contains(fmt.Sprint(refused[2]), "the address of node n2") {
		t.Errorf("%v", refused)
	}
	nodes.Delete("n2")
	rows(2)
	if f, b, refused := s.state(); f != 2 || b != 3 || len(refused) != 0 {
		t.Error(f, b, refused)
	}
	stored.Delete(1)
	rows(1)
	stored.Set(3, testService(3, "192.0.2.1:80", "10.0.0.5:80")) // this node itself, which the store has not told
	until(t, func() bool { _, _, refused := s.state(); return len(refused) == 1 }, func() string { return "not refused" })
}

// TestServicesZone: the zone of this node is what the cluster says of it, whenever it says so.
func TestServicesZone(t *testing.T) {
	s, stored, nodes := testServices(t)
	v := testService(1, "10.96.0.1:80", "10.0.0.5:80", "10.1.0.5:80")
	v.Prefer, v.Backends[0].Hints, v.Backends[1].Hints = model.PreferClose, "z1", "z2"
	stored.Set(1, v)
	for zone, want := range map[string]int{"": 2, "z1": 1, "z3": 2, "z2": 1} {
		n := nodeOne
		if zone != "" {
			n.Labels = model.NewLabels(model.Label{Source: model.SourceNode, Key: "topology.kubernetes.io/zone", Value: zone})
		}
		nodes.Set(n.Name, n)
		s.sync(stored.Snapshot(), true)
		row, _ := s.rows.Get(v.Frontend)
		if len(row.Slots) != want || want == 1 && string(row.Slots[0].Hints) != zone {
			t.Errorf("zone %q: new flows to %v", zone, row.Slots)
		}
	}
}

// Of ten thousand services one changes: one row is written, and one alone.
func TestServicesChangeOne(t *testing.T) {
	s, stored, nodes := testServices(t)
	const n = 10_000
	stored.Update(func(x *table.Txn[model.ServiceID, state.Service]) {
		for i := range n {
			x.Set(model.ServiceID(i+1), testService(model.ServiceID(i+1), fmt.Sprintf("10.96.%d.%d:80", i>>8, i&255), "10.0.0.5:80", "10.1.0.5:80"))
		}
	})
	s.sync(stored.Snapshot(), true)
	snap := s.rows.Snapshot()
	if snap.Len() != n {
		t.Fatal(snap.Len())
	}
	stored.Set(77, testService(77, "10.96.0.76:80", "10.0.0.6:80"))
	stored.Set(78, testService(78, "10.96.0.77:80", "10.0.0.5:80", "10.1.0.5:80")) // as it is
	nodes.Set("n2", model.Node{Name: "n2", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}})
	s.sync(stored.Snapshot(), true)
	changed, ok := s.rows.Since(snap.Revision())
	if !ok || len(changed) != 1 || changed[0].String() != "10.96.0.76:80/TCP" {
		t.Errorf("%v %v", changed, ok)
	}
	// So far behind that the table does not know what has changed: all are looked at, and the one that has gone is gone.
	stored.Update(func(x *table.Txn[model.ServiceID, state.Service]) {
		x.Delete(5)
		for i := range n {
			if id := model.ServiceID(i + 1); id != 5 {
				v, _ := x.Get(id)
				x.Set(id, v)
			}
		}
	})
	if _, ok := stored.Since(s.seen); ok {
		t.Fatal("the table remembers everything: this test is about nothing")
	}
	snap = s.rows.Snapshot()
	s.sync(stored.Snapshot(), false)
	if changed, ok := s.rows.Since(snap.Revision()); !ok || len(changed) != 1 || s.rows.Snapshot().Len() != n-1 {
		t.Errorf("%v %v", changed, ok)
	}
}

func TestServicesName(t *testing.T) {
	s, stored, _ := testServices(t)
	if _, ok := s.name(netip.AddrPortFrom(nodeOne.Addrs[0], 80), 6); ok {
		t.Error("a name of nothing")
	}
	nameless := testService(5, "10.96.0.5:80")
	nameless.Name = ""
	for _, v := range []state.Service{testService(1, "10.96.0.1:80"), testService(2, "0.0.0.0:30001"), testService(3, "[::]:30002"), testService(4, "10.96.0.4:80/UDP/i"), nameless} {
		stored.Set(v.ID, v)
	}
	s.sync(stored.Snapshot(), true)
	r := resolver{service: s.name}
	for _, c := range []struct {
		addr  string
		port  uint16
		proto uint8
		want  string
	}{
		{"10.96.0.1", 80, 6, "s1"}, {"10.96.0.1", 80, 17, ""}, {"10.96.0.1", 81, 6, ""}, {"192.0.2.1", 30001, 6, "s2"}, {"2001:db8::1", 30002, 6, "s3"},
		{"192.0.2.1", 30002, 6, ""}, {"192.0.2.9", 30001, 6, ""}, {"10.96.0.4", 80, 17, "s4"}, {"10.96.0.5", 80, 6, ""},
	} {
		got, ok := r.Service(netip.AddrPortFrom(netip.MustParseAddr(c.addr), c.port), c.proto)
		want := observe.Service{Name: c.want, Namespace: "shop"}
		if ok != (c.want != "") || ok && got != want {
			t.Errorf("%s:%d/%d is %+v, want %s", c.addr, c.port, c.proto, got, c.want)
		}
	}
}

// serviceAgent is as much of an agent as services need, over a store of its own, with a file that the test fills.
func serviceAgent(t *testing.T) *Agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "hypha-app-") // short: sockets lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store, err := kvstore.Open(t.Context(), kvstore.Config{NodeName: "n1", Paths: paths.For(dir, "n1")}, kvstore.Deps{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	l, err := config.LoadAgent([]string{"--node-name=n1"}, func() []string { return nil })
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{cfg: l.Agent, log: discard, store: etcdState(store, netip.Addr{}), self: nodeOne}
	if err := a.openServices(); err != nil {
		t.Fatal(err)
	}
	if err := store.Nodes().Publish(nodeOne); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Ready(t.Context()), store.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.services.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return a
}

func message(v state.Service) *connect.Request[agentv1.UpdateServiceRequest] {
	return connect.NewRequest(&agentv1.UpdateServiceRequest{Service: serviceMessage(&v, nil)})
}

func TestServiceAPI(t *testing.T) {
	a := serviceAgent(t)
	rd, ad, ctx := reader{a}, admin{a}, t.Context()
	resp, err := ad.UpdateService(ctx, message(testService(0, "10.96.0.1:80", "10.0.0.5:80")))
	if err != nil || !resp.Msg.GetCreated() || resp.Msg.GetService().GetId() != 1 {
		t.Fatal(resp, err)
	}
	list, err := rd.ListServices(ctx, connect.NewRequest(&agentv1.ListServicesRequest{})) // at once
	if err != nil || len(list.Msg.GetServices()) != 1 || list.Msg.GetServices()[0].GetBackends()[0].GetIp() != "10.0.0.5" {
		t.Fatal(list, err)
	}
	if resp, err = ad.UpdateService(ctx, message(testService(1, "10.96.0.1:80", "10.0.0.6:80"))); err != nil || resp.Msg.GetCreated() {
		t.Fatal(resp, err)
	}
	mine := testService(9, "10.96.0.9:80")
	for owner, id := range map[string]model.ServiceID{"n1": 9, "gone": 10} {
		mine.Owner, mine.ID, mine.Frontend.Port = state.FileOwner(owner), id, uint16(id)
		if _, _, err := a.store.kv.Services().Put(ctx, mine); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool { return a.store.kv.Services().Table().Snapshot().Len() == 3 }, func() string { return "not followed" })
	for _, c := range []struct {
		svc  state.Service
		code connect.Code
		want string
	}{
		{testService(0, "127.0.0.1:80"), connect.CodeInvalidArgument, "frontend 127.0.0.1:80/TCP: a loopback address"},
		{testService(0, "192.0.2.1:80"), connect.CodeInvalidArgument, "the address of node n1"},
		{testService(0, "10.0.0.7:80"), connect.CodeInvalidArgument, "the pods of node n1"},
		{testService(0, "0.0.0.0:80"), connect.CodeInvalidArgument, "port 80 is not in node-port-range (30000-32767)"},
		{testService(5, "10.96.0.1:80"), connect.CodeAlreadyExists, "is taken by service 1 (10.96.0.1:80/TCP, shop/s1)"},
		{testService(1, "10.96.0.2:80"), connect.CodeAlreadyExists, "number 1 is taken"},
		{testService(9, "10.96.0.9:9"), connect.CodePermissionDenied, "from the services file of node n1) belongs to somebody else: change that file"},
	} {
		if _, err := ad.UpdateService(ctx, message(c.svc)); connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	del := func(id uint32, all bool) (*agentv1.DeleteServiceResponse, error) {
		resp, err := ad.DeleteService(ctx, connect.NewRequest(&agentv1.DeleteServiceRequest{Id: id, All: all}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	for id, want := range map[uint32]connect.Code{0: connect.CodeInvalidArgument, 77: connect.CodeNotFound, 9: connect.CodePermissionDenied} {
		if _, err := del(id, false); connect.CodeOf(err) != want {
			t.Errorf("delete %d: %v", id, err)
		}
	}
	if m, err := del(0, true); err != nil || m.GetCount() != 2 || m.GetKept() != 1 { // 1, and that of a node that has gone
		t.Error(m, err)
	}
	if _, err := rd.GetService(ctx, connect.NewRequest(&agentv1.GetServiceRequest{Id: 1})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	if got, err := rd.GetService(ctx, connect.NewRequest(&agentv1.GetServiceRequest{Id: 9})); err != nil || got.Msg.GetService().GetSourceNode() != "n1" {
		t.Error(got, err)
	}
}

// What the API says of a service is that service.
func TestServiceMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := func(name string) uint16 { return rapid.Uint16().Draw(t, name) }
		addr := func(name string) netip.Addr {
			if rapid.Bool().Draw(t, name+" v6") {
				return netip.AddrFrom16([16]byte{0x20, 1, 15: rapid.Byte().Draw(t, name)})
			}
			return netip.AddrFrom4([4]byte{10, 96, 0, rapid.Byte().Draw(t, name)})
		}
		proto := rapid.SampledFrom([]uint8{6, 17, 132})
		v := model.Service{ID: model.ServiceID(rapid.Uint32Range(0, uint32(kvstore.MaxServiceID)).Draw(t, "id")), Name: rapid.StringMatching("[a-z]{0,9}").Draw(t, "name"),
			Type:     model.ServiceType(rapid.IntRange(0, 5).Draw(t, "type")),
			Frontend: model.Frontend{Addr: addr("frontend"), Port: port("port"), Proto: proto.Draw(t, "proto"), Scope: model.Scope(rapid.IntRange(0, 1).Draw(t, "scope"))},
			Affinity: time.Duration(rapid.IntRange(0, 86400).Draw(t, "affinity")) * time.Second, ExternalLocal: rapid.Bool().Draw(t, "ext"), InternalLocal: rapid.Bool().Draw(t, "int"),
			HealthPort: port("health"), Select: model.Selection(rapid.IntRange(0, 2).Draw(t, "select")),
			Prefer: model.Preference(rapid.IntRange(0, 3).Draw(t, "prefer"))}
		for range rapid.IntRange(0, 3).Draw(t, "backends") {
			v.Backends = append(v.Backends, model.Backend{Addr: addr("backend"), Port: port("bport"), Proto: proto.Draw(t, "bproto"), Weight: port("weight"),
				State: model.BackendState(rapid.IntRange(0, 3).Draw(t, "state")), Node: "n", Zone: "z",
				Hints: rapid.SampledFrom([]model.Zones{"", "z", "y,z"}).Draw(t, "hints")})
		}
		if rapid.Bool().Draw(t, "ranges") {
			v.Ranges, v.RangesDeny = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, rapid.Bool().Draw(t, "deny")
		}
		got, err := serviceOf(serviceMessage(&state.Service{Service: v}, nil))
		if err != nil || !got.Equal(&v) {
			t.Fatalf("%+v became %+v, %v", v, got, err)
		}
	})
	for want, change := range map[string]func(*agentv1.Service){
		`"x" is no IP address`:          func(m *agentv1.Service) { m.Frontend.Ip = "x" },
		"port 70000":                    func(m *agentv1.Service) { m.Frontend.Port = 70000 },
		"want TCP, UDP or SCTP":         func(m *agentv1.Service) { m.Backends[0].Protocol = "ICMP" },
		"weight 65536: want 1 to":       func(m *agentv1.Service) { m.Backends[0].Weight = 65536 },
		"backend state":                 func(m *agentv1.Service) { m.Backends[0].State = "dead" },
		"traffic policy":                func(m *agentv1.Service) { m.ExternalTrafficPolicy = "Remote" },
		"service type":                  func(m *agentv1.Service) { m.Type = "Ingress" },
		"want external or internal":     func(m *agentv1.Service) { m.Frontend.Scope = "all" },
		"want allow or deny":            func(m *agentv1.Service) { m.SourceRangesPolicy = "maybe" },
		"source range":                  func(m *agentv1.Service) { m.SourceRanges = []string{"x"} },
		"health-check node port":        func(m *agentv1.Service) { m.HealthCheckNodePort = 70000 },
		"want random or maglev":         func(m *agentv1.Service) { m.Selection = "best" },
		"id: 4294967295: want 1 to":     func(m *agentv1.Service) { m.Id = 1<<32 - 1 },
		`frontend: "" is no IP address`: func(m *agentv1.Service) { m.Frontend = nil },
	} {
		v := testService(1, "10.96.0.1:80", "10.0.0.5:80")
		m := proto.CloneOf(serviceMessage(&v, nil))
		change(m)
		if _, err := serviceOf(m); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The file's services are the cluster's for as long as they are in the file; what others have stays theirs.
func TestServiceFile(t *testing.T) {
	a := serviceAgent(t)
	ctx := t.Context()
	listed := table.New[model.Frontend, model.Service]("services file", table.Frontend)
	a.listed.listed = listed
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = a.listed.Run(run) }()
	defer func() { cancel(); <-done }()
	set := func(vs ...state.Service) {
		listed.Update(func(x *table.Txn[model.Frontend, model.Service]) {
			var all []model.Frontend
			for f := range x.All() {
				all = append(all, f)
			}
			for _, f := range all {
				x.Delete(f)
			}
			for _, v := range vs {
				x.Set(v.Frontend, v.Service)
			}
		})
	}
	owned := func(owner string) string {
		var out []string
		for _, v := range a.store.kv.Services().Table().Snapshot().All() {
			if v.Owner == owner {
				out = append(out, fmt.Sprintf("%s=%d", v.Frontend.Addr, len(v.Backends)))
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	holds := func(want string, problems ...string) {
		t.Helper()
		until(t, func() bool {
			got := a.listed.Problems()
			ok := len(got) == len(problems) && owned(a.listed.owner) == want
			for i := range got {
				ok = ok && strings.Contains(got[i].Error(), problems[i])
			}
			return ok
		}, func() string {
			return fmt.Sprintf("stored %s, problems %v; want %s, %q", owned(a.listed.owner), a.listed.Problems(), want, problems)
		})
	}
	one, two := testService(0, "10.96.0.1:80", "10.0.0.5:80"), testService(0, "10.96.0.2:80", "10.0.0.5:80")
	set(one, two)
	time.Sleep(300 * time.Millisecond)
	holds("") // a file that was not read yet says nothing
	listed.SetComplete()
	holds("10.96.0.1=1 10.96.0.2=1")

	// Others' services.
	theirs, same := testService(0, "10.96.0.3:80", "10.0.0.5:80"), testService(0, "10.96.0.4:80", "10.0.0.5:80")
	theirs.Owner, same.Owner = state.FileOwner("n2"), state.FileOwner("n2")
	for _, v := range []state.Service{theirs, same} {
		if _, _, err := a.store.kv.Services().Put(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	other := testService(0, "10.96.0.3:80", "10.0.0.5:80", "10.0.0.6:80")
	set(one, two, other, same)
	holds("10.96.0.1=1 10.96.0.2=1", "10.96.0.3:80/TCP: service 3 has this frontend already, otherwise (from the services file of node n2)")
	if n, err := a.store.kv.Services().Delete(ctx, theirs.Owner, 3, 4); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	holds("10.96.0.1=1 10.96.0.2=1 10.96.0.3=2 10.96.0.4=1") // given up: taken over

	// What must not be served is not stored, and the rest is.
	bad := testService(0, "10.96.0.1:80", "127.0.0.1:80")
	set(bad, testService(0, "192.0.2.1:80"), testService(0, "10.96.0.5:80"))
	holds("10.96.0.1=1 10.96.0.5=0", "10.96.0.1:80/TCP: backend 127.0.0.1:80/TCP: a loopback address", "192.0.2.1:80/TCP: frontend 192.0.2.1:80/TCP: it is the address of node n1")
	renumbered := one
	renumbered.ID = 50
	set(renumbered)
	holds("10.96.0.1=1")
	until(t, func() bool { _, ok := a.store.kv.Services().Table().Get(50); return ok }, func() string { return "not renumbered" })

	// An agent without a file removes what its file has told, and nothing else.
	theirs.ID = 0
	if _, _, err := a.store.kv.Services().Put(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	if err := a.openServices(); err != nil {
		t.Fatal(err)
	}
	done = make(chan struct{})
	again, stop := context.WithCancel(ctx)
	defer stop()
	go func() { defer close(done); _ = a.listed.Run(again) }()
	defer func() { stop(); <-done }()
	holds("")
	if got := owned(theirs.Owner); got != "10.96.0.3=1" {
		t.Error(got)
	}
}
