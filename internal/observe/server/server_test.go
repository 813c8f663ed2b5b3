package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	peerpb "github.com/hypha-net/hypha/api/peer"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nobody is a resolver that knows nothing.
type nobody struct{}

func (nobody) Endpoint(netip.Addr, uint16) (observe.Peer, bool) { return observe.Peer{}, false }
func (nobody) Identity(model.IdentityID) (model.Labels, bool)   { return nil, false }
func (nobody) Rule(model.RuleID) (model.RuleRef, bool)          { return model.RuleRef{}, false }
func (nobody) Interface(uint32) string                          { return "" }
func (nobody) Service(netip.Addr, uint16, uint8) (observe.Service, bool) {
	return observe.Service{}, false
}

// cluster is a table of nodes by hand.
type cluster struct {
	mu      sync.Mutex
	nodes   []model.Node
	changed chan struct{}
}

func (c *cluster) get() ([]model.Node, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes, c.changed
}

func (c *cluster) set(ns ...model.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = ns
	close(c.changed)
	c.changed = make(chan struct{})
}

type bed struct {
	obs   *observe.Observer
	srv   *Server
	nodes *cluster
	conn  *grpc.ClientConn
	creds credentials.TransportCredentials
	ctx   context.Context
}

var epoch = time.Unix(1_700_000_000, 0)

// newBed serves on a unix socket, or with TLS on TCP, and connects gRPC's own client to it.
func newBed(t *testing.T, capacity int, withTLS bool) *bed {
	t.Helper()
	obs, err := observe.New(observe.Config{Node: "node1", Cluster: "default", Version: "v1.2.3", Capacity: capacity}, observe.Deps{Resolver: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{obs: obs, nodes: &cluster{changed: make(chan struct{})}}
	if b.srv, err = New(Deps{Observer: obs, Nodes: b.nodes.get, TLS: withTLS}); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	var conf *tls.Config
	var target string
	creds := insecure.NewCredentials()
	if withTLS {
		dir := t.TempDir()
		if conf, err = TLSConfig(TLSFiles{}, dir, []string{ServerName("default", "node1"), "127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, CertFile))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(raw)
		creds = credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "node1.default.hubble-grpc.cilium.io"})
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		target = l.Addr().String()
	} else {
		path := filepath.Join(t.TempDir(), "hubble.sock")
		if l, err = net.Listen("unix", path); err != nil {
			t.Fatal(err)
		}
		target = "unix://" + path
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(ctx, l, conf) }()
	if b.conn, err = grpc.NewClient(target, grpc.WithTransportCredentials(creds)); err != nil {
		t.Fatal(err)
	}
	b.ctx, b.creds = ctx, creds
	t.Cleanup(func() {
		_ = b.conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return b
}

// event i of a bed: UDP from port i, at second i.
func event(i int) model.Event {
	return model.Event{Type: model.EventTrace, Time: epoch.Add(time.Duration(i) * time.Second), Proto: 17, Flags: model.EventL4,
		SrcPort: uint16(i), DstPort: 53, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}
}

func (b *bed) feed(from, to int) {
	for i := from; i < to; i++ {
		b.obs.Handle(event(i))
	}
}

// stream opens a server stream by hand, as gRPC's generated code does.
func (b *bed) stream(t *testing.T, ctx context.Context, method string, req proto.Message) grpc.ClientStream {
	t.Helper()
	s, err := b.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(req), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	return s
}

const getFlows = "/observer.Observer/GetFlows"

// ports reads a finite stream: the source port of each flow, and -n for n lost events.
func (b *bed) ports(t *testing.T, req *observerpb.GetFlowsRequest) ([]int, error) {
	t.Helper()
	s := b.stream(t, b.ctx, getFlows, req)
	got := []int{}
	for {
		var r observerpb.GetFlowsResponse
		err := s.RecvMsg(&r)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if l := r.GetLostEvents(); l != nil {
			got = append(got, -int(l.GetNumEventsLost()))
			continue
		}
		got = append(got, int(r.GetFlow().GetL4().GetUDP().GetSourcePort()))
	}
}

func at(i int) *timestamppb.Timestamp {
	return timestamppb.New(epoch.Add(time.Duration(i) * time.Second))
}

func TestGetFlowsSelection(t *testing.T) {
	b := newBed(t, 15, false)
	b.feed(0, 20) // 5..19 are left
	odd := []*flowpb.FlowFilter{{SourcePort: []string{"5", "7", "9", "11", "13", "15", "17", "19"}}}
	span := func(a, b int) (out []int) {
		for i := a; i < b; i++ {
			out = append(out, i)
		}
		return out
	}
	for _, c := range []struct {
		name string
		req  *observerpb.GetFlowsRequest
		want []int
	}{
		{"all", &observerpb.GetFlowsRequest{}, span(5, 20)},
		{"last", &observerpb.GetFlowsRequest{Number: 3}, span(17, 20)},
		{"last of more than there are", &observerpb.GetFlowsRequest{Number: 100}, span(5, 20)},
		{"first", &observerpb.GetFlowsRequest{Number: 3, First: true}, span(5, 8)},
		{"since", &observerpb.GetFlowsRequest{Since: at(16)}, span(16, 20)},
		{"until", &observerpb.GetFlowsRequest{Until: at(7)}, span(5, 8)},
		{"since and until", &observerpb.GetFlowsRequest{Since: at(7), Until: at(9)}, span(7, 10)},
		{"last until", &observerpb.GetFlowsRequest{Number: 2, Until: at(9)}, span(8, 10)},
		{"first since", &observerpb.GetFlowsRequest{Number: 2, First: true, Since: at(9)}, span(9, 11)},
		{"whitelist", &observerpb.GetFlowsRequest{Number: 2, Whitelist: odd}, []int{17, 19}},
		{"blacklist", &observerpb.GetFlowsRequest{Number: 2, Blacklist: odd}, []int{16, 18}},
		{"nothing", &observerpb.GetFlowsRequest{Since: at(100)}, []int{}},
	} {
		got, err := b.ports(t, c.req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, d)
		}
	}
}

func TestGetFlowsRefuses(t *testing.T) {
	b := newBed(t, 15, false)
	for _, req := range []*observerpb.GetFlowsRequest{
		{First: true, Follow: true},
		{Whitelist: []*flowpb.FlowFilter{{SourceIp: []string{"x"}}}},
		{Blacklist: []*flowpb.FlowFilter{{DnsQuery: []string{"("}}}},
		{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"nope"}}},
		{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"uuid.x"}}},
		{Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		if _, err := b.ports(t, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v, want InvalidArgument", req, err)
		}
	}
}

func TestFollow(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", withTLS), func(t *testing.T) {
			b := newBed(t, 15, withTLS)
			b.feed(0, 5)
			ctx, cancel := context.WithCancel(b.ctx)
			defer cancel()
			s := b.stream(t, ctx, getFlows, &observerpb.GetFlowsRequest{Follow: true, Number: 2})
			b2 := []int{}
			recv := func() int {
				var r observerpb.GetFlowsResponse
				if err := s.RecvMsg(&r); err != nil {
					t.Fatal(err)
				}
				if r.GetNodeName() != "node1" || r.GetTime() == nil {
					t.Fatalf("response without node or time: %v", &r)
				}
				return int(r.GetFlow().GetL4().GetUDP().GetSourcePort())
			}
			b2 = append(b2, recv(), recv())
			h, err := s.Header()
			if err != nil || len(h.Get(versionHeader)) != 1 || h.Get(versionHeader)[0] != "v1.2.3" {
				t.Errorf("header %v, %v", h, err)
			}
			b.feed(5, 7)
			b2 = append(b2, recv(), recv())
			if d := cmp.Diff([]int{3, 4, 5, 6}, b2); d != "" {
				t.Error(d)
			}
			cancel()
			var r observerpb.GetFlowsResponse
			if err := s.RecvMsg(&r); status.Code(err) != codes.Canceled {
				t.Errorf("after cancel: %v", err)
			}
		})
	}
}

func TestFollowUntil(t *testing.T) {
	b := newBed(t, 15, false)
	start := time.Now()
	got, err := b.ports(t, &observerpb.GetFlowsRequest{Follow: true, Until: timestamppb.New(start.Add(200 * time.Millisecond))})
	if err != nil || len(got) != 0 || time.Since(start) < 150*time.Millisecond {
		t.Errorf("got %v, %v after %v", got, err, time.Since(start))
	}
}

// TestSlowClient lets a client sleep while far more flows come than the ring holds: the writer must not wait, and what
// the client reads plus what it is told to have lost must be all.
func TestSlowClient(t *testing.T) {
	b := newBed(t, 1023, false)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	s := b.stream(t, ctx, getFlows, &observerpb.GetFlowsRequest{Follow: true})
	if _, err := s.Header(); err != nil { // the server has begun
		t.Fatal(err)
	}
	b.feed(0, 1)
	var r observerpb.GetFlowsResponse
	if err := s.RecvMsg(&r); err != nil {
		t.Fatal(err)
	}
	const n = 60_000 // far more than ring and flow control windows hold
	start := time.Now()
	b.feed(1, n)
	if d := time.Since(start); d > 10*time.Second {
		t.Fatalf("writing %d flows took %v beside a client that does not read", n, d)
	}
	got, lost := 1, 0
	for got+lost < n {
		var r observerpb.GetFlowsResponse
		if err := s.RecvMsg(&r); err != nil {
			t.Fatalf("after %d read, %d lost: %v", got, lost, err)
		}
		switch l := r.GetLostEvents(); {
		case l != nil && l.GetSource() != flowpb.LostEventSource_HUBBLE_RING_BUFFER:
			t.Fatalf("lost at %v", l.GetSource())
		case l != nil:
			lost += int(l.GetNumEventsLost())
		default:
			if p := int(r.GetFlow().GetL4().GetUDP().GetSourcePort()); p != int(uint16(got+lost)) {
				t.Fatalf("flow %d after %d read and %d lost", p, got, lost)
			}
			got++
		}
	}
	if got+lost != n || lost == 0 {
		t.Errorf("read %d + lost %d, want %d and some loss", got, lost, n)
	}
	if st := b.obs.Stats(); st.Seen != n || st.Stored != n || st.Lost != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestKernelLossIsTold(t *testing.T) {
	b := newBed(t, 15, false)
	b.feed(0, 1)
	b.obs.Lost(3, 17)
	b.obs.Lost(3, 0)
	b.feed(1, 2)
	got, err := b.ports(t, &observerpb.GetFlowsRequest{Number: 2})
	if d := cmp.Diff([]int{0, -17, 1}, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if st := b.obs.Stats(); st.Seen != 19 || st.Stored != 2 || st.Lost != 17 {
		t.Errorf("stats %+v", st)
	}
}

func TestFieldMask(t *testing.T) {
	b := newBed(t, 15, false)
	b.feed(0, 1)
	for _, req := range []*observerpb.GetFlowsRequest{
		{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"verdict", "IP.source", "IP", "l4.UDP.destination_port"}}},
		{Experimental: &observerpb.GetFlowsRequest_Experimental{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"IP", "IP.source", "verdict", "l4.UDP.destination_port"}}}},
	} {
		s := b.stream(t, b.ctx, getFlows, req)
		var r observerpb.GetFlowsResponse
		if err := s.RecvMsg(&r); err != nil {
			t.Fatal(err)
		}
		want := &flowpb.Flow{Verdict: flowpb.Verdict_FORWARDED, IP: &flowpb.IP{Source: "10.0.0.1", Destination: "10.0.0.2", IpVersion: flowpb.IPVersion_IPv4},
			L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: 53}}}}
		if !proto.Equal(want, r.GetFlow()) {
			t.Errorf("got %v, want %v", r.GetFlow(), want)
		}
		if r.GetTime() == nil {
			t.Error("the mask took the response's time")
		}
	}
}

func TestAgentAndDebugEvents(t *testing.T) {
	b := newBed(t, 15, false)
	b.obs.Agent.Started(epoch)
	b.obs.Agent.PolicyUpdated([]string{"unspec:name=l3-rule"}, 2, 1)
	b.obs.Agent.EndpointRegenerated(model.Endpoint{ID: 7}, errors.New("boom"))
	b.obs.Debug.Add(&flowpb.DebugEvent{Message: "hello"})
	s := b.stream(t, b.ctx, "/observer.Observer/GetAgentEvents", &observerpb.GetAgentEventsRequest{Number: 2})
	var types []string
	for {
		var r observerpb.GetAgentEventsResponse
		if err := s.RecvMsg(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		types = append(types, r.GetAgentEvent().GetType().String())
	}
	if d := cmp.Diff([]string{"POLICY_UPDATED", "ENDPOINT_REGENERATE_FAILURE"}, types); d != "" {
		t.Error(d)
	}
	s = b.stream(t, b.ctx, "/observer.Observer/GetDebugEvents", &observerpb.GetDebugEventsRequest{})
	var r observerpb.GetDebugEventsResponse
	if err := s.RecvMsg(&r); err != nil || r.GetDebugEvent().GetMessage() != "hello" {
		t.Errorf("%v, %v", &r, err)
	}
}

func TestStatusNodesNamespaces(t *testing.T) {
	b := newBed(t, 15, true)
	b.feed(0, 20)
	var st observerpb.ServerStatusResponse
	var header metadata.MD
	if err := b.conn.Invoke(b.ctx, "/observer.Observer/ServerStatus", &observerpb.ServerStatusRequest{}, &st, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if st.NumFlows != 15 || st.MaxFlows != 15 || st.SeenFlows != 20 || st.Version != "v1.2.3" || st.UptimeNs == 0 || st.FlowsRate == 0 {
		t.Errorf("status %v", &st)
	}
	if d := cmp.Diff([]string{"v1.2.3"}, header.Get(versionHeader)); d != "" {
		t.Error(d)
	}
	b.nodes.set(model.Node{Name: "node2", Cluster: "default", FlowAddr: "10.0.0.2:4244"}, model.Node{Name: "node1", Cluster: "default", FlowAddr: "10.0.0.1:4244"})
	var ns observerpb.GetNodesResponse
	if err := b.conn.Invoke(b.ctx, "/observer.Observer/GetNodes", &observerpb.GetNodesRequest{}, &ns); err != nil {
		t.Fatal(err)
	}
	if len(ns.Nodes) != 2 || ns.Nodes[0].SeenFlows != 20 || ns.Nodes[0].State != 1 || ns.Nodes[1].State != 0 ||
		ns.Nodes[1].Tls.GetServerName() != "node2.default.hubble-grpc.cilium.io" {
		t.Errorf("nodes %v", &ns)
	}
	var spaces observerpb.GetNamespacesResponse
	if err := b.conn.Invoke(b.ctx, "/observer.Observer/GetNamespaces", &observerpb.GetNamespacesRequest{}, &spaces); err != nil {
		t.Fatal(err)
	}
}

func TestPeers(t *testing.T) {
	b := newBed(t, 15, false)
	n := func(name, addr string) model.Node { return model.Node{Name: name, Cluster: "east", FlowAddr: addr} }
	b.nodes.set(n("a", "1.1.1.1:4244"), n("silent", ""))
	s := b.stream(t, b.ctx, "/peer.Peer/Notify", &peerpb.NotifyRequest{})
	recv := func() string {
		var r peerpb.ChangeNotification
		if err := s.RecvMsg(&r); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(r.Type, " ", r.Name, " ", r.Address, r.GetTls() != nil)
	}
	got := []string{recv()}
	b.nodes.set(n("a", "1.1.1.2:4244"))
	got = append(got, recv())
	b.nodes.set(n("b", "1.1.1.3:4244"))
	got = append(got, recv(), recv())
	want := []string{"PEER_ADDED east/a 1.1.1.1:4244false", "PEER_UPDATED east/a 1.1.1.2:4244false", "PEER_ADDED east/b 1.1.1.3:4244false", "PEER_DELETED east/a 1.1.1.2:4244false"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestHealth(t *testing.T) {
	b := newBed(t, 15, false)
	c := healthpb.NewHealthClient(b.conn)
	for _, svc := range healthNames {
		r, err := c.Check(b.ctx, &healthpb.HealthCheckRequest{Service: svc})
		if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", svc, r, err)
		}
	}
	if _, err := c.Check(b.ctx, &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown service: %v", err)
	}
	if l, err := c.List(b.ctx, &healthpb.HealthListRequest{}); err != nil || len(l.Statuses) != len(healthNames) {
		t.Errorf("list: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	w, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", r, err)
	}
}

// hello is the beginning of a TLS handshake that does not go on.
var hello = []byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}

// stall opens connections whose handshakes do not go on, of every other one not even begin.
func stall(t *testing.T, b *bed, n int) {
	t.Helper()
	for i := range n {
		c, err := net.Dial("tcp", b.conn.Target())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if i%2 == 0 {
			if _, err := c.Write(hello); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// served is how long a new client waits for an answer, the best of three.
func served(t *testing.T, b *bed) time.Duration {
	t.Helper()
	best := time.Hour
	for range 3 {
		conn, err := grpc.NewClient(b.conn.Target(), grpc.WithTransportCredentials(b.creds))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = healthpb.NewHealthClient(conn).Check(b.ctx, &healthpb.HealthCheckRequest{})
		best = min(best, time.Since(start))
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return best
}

// TestCVE_2023_41378_StalledHandshake: a handshake that does not go on does not keep others out.
func TestCVE_2023_41378_StalledHandshake(t *testing.T) {
	c := score.Start(t, "CVE-2023-41378", "stalled TLS handshakes, one silent, on the flow API's port")
	b := newBed(t, 15, true)
	stall(t, b, 2)
	took := served(t, b)
	if took > time.Second {
		t.Errorf("a new client waited %v", took)
	}
	c.Count(2, "connections")
	c.Say("a new client served in %v", took.Round(time.Millisecond))
}

// TestCase42StalledHandshakes: neither do a thousand.
func TestCase42StalledHandshakes(t *testing.T) {
	c := score.Start(t, "42", "1000 stalled TLS handshakes on the flow API's port")
	b := newBed(t, 15, true)
	const n = 1000
	stall(t, b, n)
	took := served(t, b)
	if took > time.Second {
		t.Errorf("a new client waited %v", took)
	}
	c.Count(n, "connections")
	c.Say("a new client served in %v", took.Round(time.Millisecond))
}

func TestNoPlaintextOffTheNode(t *testing.T) {
	b := newBed(t, 15, false)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := b.srv.Serve(b.ctx, l, nil); err == nil {
		t.Error("served plaintext on all addresses")
	}
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	hosts := []string{"node1", "127.0.0.1"}
	get := func() *x509.Certificate {
		t.Helper()
		conf, err := TLSConfig(TLSFiles{}, dir, hosts)
		if err != nil {
			t.Fatal(err)
		}
		if conf.MinVersion != tls.VersionTLS12 {
			t.Errorf("minimum version %x", conf.MinVersion)
		}
		c, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := get()
	if again := get(); !again.Equal(first) {
		t.Error("a good certificate was replaced")
	}
	if st, err := os.Stat(filepath.Join(dir, KeyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", st.Mode(), err)
	}
	hosts = append(hosts, "10.0.0.9")
	second := get()
	if second.Equal(first) || second.VerifyHostname("10.0.0.9") != nil {
		t.Error("a new address is not in the certificate")
	}
	if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := get(); third.Equal(second) {
		t.Error("damaged key in use")
	}
	if _, err := os.Stat(filepath.Join(dir, KeyFile+".damaged")); err != nil {
		t.Error(err)
	}
	c := &certs{cert: filepath.Join(dir, CertFile), key: filepath.Join(dir, KeyFile), hosts: hosts}
	before, err := c.get(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.get(time.Now().Add(certLife - certRenew + time.Hour))
	if err != nil || after.Leaf.Equal(before.Leaf) {
		t.Errorf("not renewed in time: %v", err)
	}
	for _, f := range []TLSFiles{{Cert: "x"}, {Cert: filepath.Join(dir, "no"), Key: "no"}, {ClientCA: filepath.Join(dir, KeyFile)}} {
		if _, err := TLSConfig(f, dir, hosts); err == nil {
			t.Errorf("%+v: no error", f)
		}
	}
}
