package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
)

// hostile is text as an attacker in a pod would choose it.
const hostile = "x\x1b[31m\u202e\u009by"

// fakeAgent answers the API from fixed data and notes each request in a file, one line each.
type fakeAgent struct {
	agentv1connect.UnimplementedReaderHandler
	agentv1connect.UnimplementedAdminHandler
	mode string // "", "warning", "failure", "empty", "hostile", "old"
	log  string
	mu   sync.Mutex
	asks int
}

// start serves both sockets under dir/node until stop is called.
func (f *fakeAgent) start(dir, node string) (stop func(), err error) {
	run := filepath.Join(dir, node)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, err
	}
	rd, ad := agentv1connect.ReaderHandler(f), agentv1connect.AdminHandler(f)
	if f.mode == "old" { // an agent before some calls were invented
		rd, ad = agentv1connect.UnimplementedReaderHandler{}, agentv1connect.UnimplementedAdminHandler{}
	}
	var servers []*http.Server
	var serving sync.WaitGroup
	stop = func() {
		for _, s := range servers {
			_ = s.Close()
		}
		serving.Wait() // a server closed before it began to serve closes its listener only then
	}
	for _, name := range []string{"agent.sock", "admin.sock"} {
		mux := http.NewServeMux()
		mux.Handle(agentv1connect.NewReaderHandler(rd))
		if name == "admin.sock" {
			mux.Handle(agentv1connect.NewAdminHandler(ad))
		}
		l, err := net.Listen("unix", filepath.Join(run, name))
		if err != nil {
			stop()
			return nil, err
		}
		s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
		servers = append(servers, s)
		serving.Go(func() { _ = s.Serve(l) })
	}
	return stop, nil
}

// note writes a request to the log.
func (f *fakeAgent) note(m proto.Message) {
	if f.log == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := protojson.Marshal(m)
	if err != nil {
		panic(err)
	}
	w, err := os.OpenFile(f.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer w.Close()
	var c bytes.Buffer // protojson puts in spaces at random
	if err := json.Compact(&c, b); err != nil {
		panic(err)
	}
	fmt.Fprintf(w, "%s %s\n", m.ProtoReflect().Descriptor().Name(), c.Bytes())
}

// reply notes a request and wraps its answer.
func reply[T any](f *fakeAgent, q proto.Message, m *T) (*connect.Response[T], error) {
	f.note(q)
	return connect.NewResponse(m), nil
}

type (
	ctx        = context.Context
	ask[T any] = *connect.Request[T]
	ans[T any] = *connect.Response[T]
)

func missing(format string, args ...any) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf(format, args...))
}

func (f *fakeAgent) Status(_ ctx, q ask[agentv1.StatusRequest]) (ans[agentv1.StatusResponse], error) {
	f.mu.Lock()
	f.asks++
	asks := f.asks
	f.mu.Unlock()
	m := &agentv1.StatusResponse{
		Version: "v0.1.0 0123456789ab", NodeName: "n1", ClusterName: "default", Addresses: []string{"192.168.0.1", "fd00::1"},
		PodCidrs: []string{"10.0.0.0/24", "fd00:10::/120"}, Endpoints: 2, EndpointsReady: 2, Identities: 13, Nodes: 2, PolicyRevision: 3,
		Policies: 1, RoutingMode: "tunnel", EventsStored: 100, FlowsCurrent: 50, FlowsMax: 4095, Kvstore: "embedded, http://127.0.0.1:2379",
		StateDir: "/var/lib/hypha", Kernel: "6.18.44",
		Components: []*agentv1.Component{
			{Name: "datapath", Message: "tcx, 2 workloads"}, {Name: "kvstore", Message: "connected"},
			{Name: "encryption", State: agentv1.Component_DISABLED, Message: "off"}},
		Maps: fakeMaps(),
	}
	bad := func(s agentv1.Component_State) {
		m.State, m.Components[1] = s, &agentv1.Component{Name: "kvstore", State: s, Message: "no answer for 12s", Remedy: "start etcd"}
	}
	switch {
	case f.mode == "warning":
		bad(agentv1.Component_WARNING)
	case f.mode == "failure", f.mode == "mending" && asks < 3:
		bad(agentv1.Component_FAILURE)
	case f.mode == "hostile":
		m.State = agentv1.Component_FAILURE
		m.Components = []*agentv1.Component{{Name: hostile, State: agentv1.Component_FAILURE, Message: hostile, Remedy: hostile}}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) endpoints() []*agentv1.Endpoint {
	switch f.mode {
	case "empty":
		return nil
	case "hostile":
		return []*agentv1.Endpoint{{Id: 7, Name: hostile, Namespace: hostile, Labels: []string{"k8s:a=" + hostile}, State: hostile, Ipv4: "10.0.0.7"}}
	}
	return []*agentv1.Endpoint{
		{Id: 12, Name: "app1", Namespace: "default", ContainerId: "c1", Interface: "eth0", HostInterface: "hy0011223344", Netns: "/run/netns/app1",
			Mac: "02:00:00:00:00:01", Ipv4: "10.0.0.12", Ipv6: "fd00:10::c", Labels: []string{"k8s:id=app1", "k8s:io.kubernetes.pod.namespace=default"},
			Identity: 256, State: "ready", PolicyRevision: 3, PolicySet: 5, IngressEnforced: true,
			NamedPorts: []*agentv1.NamedPort{{Name: "http", Port: 80, Protocol: "TCP"}}},
		{Id: 345, Name: "app2", Namespace: "default", Labels: []string{"k8s:id=app2"}, Identity: 257, State: "regenerating",
			PolicyRevision: 2, Ipv4: "10.0.0.13", Audit: true, EgressEnforced: true},
	}
}

func (f *fakeAgent) ListEndpoints(_ ctx, q ask[agentv1.ListEndpointsRequest]) (ans[agentv1.ListEndpointsResponse], error) {
	m := &agentv1.ListEndpointsResponse{}
	s := q.Msg.GetSelector()
	if s == "abc" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New(`endpoint "abc": want a number from 1 to 65535, or kind:value`))
	}
	for _, ep := range f.endpoints() {
		if s == "" || s == fmt.Sprint(ep.GetId()) || s == "pod-name:"+ep.GetNamespace()+"/"+ep.GetName() || s == "ipv4:"+ep.GetIpv4() || s == "both" {
			m.Endpoints = append(m.Endpoints, ep)
		}
	}
	if s != "" && len(m.GetEndpoints()) == 0 {
		return nil, missing("endpoint %s not found", s)
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) UpdateEndpoint(_ ctx, q ask[agentv1.UpdateEndpointRequest]) (ans[agentv1.UpdateEndpointResponse], error) {
	ep := f.endpoints()[0]
	for _, l := range q.Msg.GetAddLabels() {
		if strings.HasPrefix(l, "reserved:") {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("label %s: reserved labels cannot be set", l))
		}
	}
	ep.Labels, ep.Identity = append(ep.GetLabels(), q.Msg.GetAddLabels()...), 300
	if q.Msg.Audit != nil {
		ep.Audit = q.Msg.GetAudit()
	}
	return reply(f, q.Msg, &agentv1.UpdateEndpointResponse{Endpoint: ep})
}

func (f *fakeAgent) EndpointLog(_ ctx, q ask[agentv1.EndpointLogRequest]) (ans[agentv1.EndpointLogResponse], error) {
	m := &agentv1.EndpointLogResponse{}
	if q.Msg.GetId() == 12 {
		m.Entries = []*agentv1.EndpointLogEntry{{Time: timestamppb.New(time.Unix(1700000000, 0)), State: "ready", Code: "OK", Message: "policy revision 3 in force"}}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) ListIdentities(_ ctx, q ask[agentv1.ListIdentitiesRequest]) (ans[agentv1.ListIdentitiesResponse], error) {
	m := &agentv1.ListIdentitiesResponse{}
	if f.mode != "empty" {
		for _, i := range []*agentv1.Identity{{Id: 1, Labels: []string{"reserved:host"}, Class: 1, References: 1},
			{Id: 256, Labels: []string{"k8s:id=app1", "k8s:team=x"}, Class: 4, References: 1}} {
			if q.Msg.GetId() == 0 || q.Msg.GetId() == i.GetId() {
				m.Identities = append(m.Identities, i)
			}
		}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) ListNodes(_ ctx, q ask[agentv1.ListNodesRequest]) (ans[agentv1.ListNodesResponse], error) {
	m := &agentv1.ListNodesResponse{Nodes: []*agentv1.Node{
		{Name: "n1", Cluster: "default", Addresses: []string{"192.168.0.1", "fd00::1"}, PodCidrs: []string{"10.0.0.0/24", "fd00:10::/120"}, Local: true, Routers: []string{"10.0.0.1"}},
		{Name: "n2", Cluster: "west", Addresses: []string{"192.168.0.2"}, PodCidrs: []string{"10.0.1.0/24"}, FlowAddress: "192.168.0.2:4244"}}}
	if f.mode == "empty" {
		m.Nodes = nil
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) ListIPs(_ ctx, q ask[agentv1.ListIPsRequest]) (ans[agentv1.ListIPsResponse], error) {
	m := &agentv1.ListIPsResponse{Entries: []*agentv1.IPEntry{
		{Prefix: "0.0.0.0/0", Identity: 2, Source: "generated"},
		{Prefix: "10.0.0.12/32", Identity: 256, Labels: []string{"k8s:id=app1", "k8s:team=x"}, Source: "local", Name: "app1", Namespace: "default"}}}
	if q.Msg.GetLongest() {
		m.Entries = m.GetEntries()[1:]
	}
	if f.mode == "empty" {
		m.Entries = nil
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) services() []*agentv1.Service {
	b := func(ip, state string) *agentv1.Backend {
		return &agentv1.Backend{Ip: ip, Port: 8080, Protocol: "TCP", State: state}
	}
	switch f.mode {
	case "empty":
		return nil
	case "hostile":
		return []*agentv1.Service{{Id: 1, Name: hostile, Type: hostile, Frontend: &agentv1.Frontend{Ip: hostile, Protocol: hostile}, Refused: hostile,
			Backends: []*agentv1.Backend{b(hostile, hostile)}}}
	}
	weighted := b("fd00::6", "maintenance")
	weighted.Weight, weighted.Node, weighted.Zone, weighted.Hints = 3, "n2", "z", []string{"y", "z"}
	return []*agentv1.Service{
		{Id: 1, Name: "web", Namespace: "shop", Type: "ClusterIP", Frontend: &agentv1.Frontend{Ip: "10.96.0.1", Port: 80, Protocol: "TCP", Scope: "external"}, Source: "api",
			ExternalTrafficPolicy: "Cluster", InternalTrafficPolicy: "Cluster", Backends: []*agentv1.Backend{b("10.0.0.5", "active"), b("10.0.0.6", "terminating")}},
		{Id: 2, Type: "LoadBalancer", Frontend: &agentv1.Frontend{Ip: "fd00:96::1", Port: 80, Protocol: "TCP", Scope: "internal"}, Source: "file", SourceNode: "n2",
			ExternalTrafficPolicy: "Local", InternalTrafficPolicy: "Cluster", AffinitySeconds: 10800, HealthCheckNodePort: 30001, SourceRanges: []string{"fd00::/8"}, SourceRangesPolicy: "allow",
			Selection: "maglev", TrafficDistribution: "PreferSameZone", Backends: []*agentv1.Backend{weighted}, Refused: "frontend [fd00:96::1]:80/TCP/i: it is the address of node n7"},
		{Id: 3, Type: "NodePort", Frontend: &agentv1.Frontend{Ip: "0.0.0.0", Port: 30003, Protocol: "UDP", Scope: "external"}, Source: "api"},
	}
}

func (f *fakeAgent) ListServices(_ ctx, q ask[agentv1.ListServicesRequest]) (ans[agentv1.ListServicesResponse], error) {
	return reply(f, q.Msg, &agentv1.ListServicesResponse{Services: f.services()})
}

func (f *fakeAgent) GetService(_ ctx, q ask[agentv1.GetServiceRequest]) (ans[agentv1.GetServiceResponse], error) {
	for _, s := range f.services() {
		if s.GetId() == q.Msg.GetId() {
			return reply(f, q.Msg, &agentv1.GetServiceResponse{Service: s})
		}
	}
	return nil, missing("there is no service %d", q.Msg.GetId())
}

func (f *fakeAgent) UpdateService(_ ctx, q ask[agentv1.UpdateServiceRequest]) (ans[agentv1.UpdateServiceResponse], error) {
	s := q.Msg.GetService()
	switch s.GetFrontend().GetIp() {
	case "127.0.0.1":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("service refused: frontend 127.0.0.1:80/TCP: a loopback address means another place on each machine"))
	case "10.96.0.2":
		return nil, connect.NewError(connect.CodeAlreadyExists, errors.New("update service: frontend 10.96.0.2:80/TCP is taken by service 5 (10.96.0.2:80/TCP, shop/web)"))
	}
	m := &agentv1.UpdateServiceResponse{Service: s, Created: s.GetId() == 0 || s.GetId() > 3}
	if s.GetId() == 0 {
		m.Service.Id = 4
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) DeleteService(_ ctx, q ask[agentv1.DeleteServiceRequest]) (ans[agentv1.DeleteServiceResponse], error) {
	switch id := q.Msg.GetId(); {
	case id == 2:
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("delete service: service 2 ([fd00:96::1]:80/TCP/i, from the services file of node n2) belongs to somebody else: change that file"))
	case id > 3:
		return nil, missing("there is no service %d", id)
	}
	if q.Msg.GetAll() {
		return reply(f, q.Msg, &agentv1.DeleteServiceResponse{Count: 2, Kept: 1})
	}
	return reply(f, q.Msg, &agentv1.DeleteServiceResponse{Count: 1})
}

func (f *fakeAgent) GetPrefilter(_ ctx, q ask[agentv1.GetPrefilterRequest]) (ans[agentv1.GetPrefilterResponse], error) {
	m := &agentv1.GetPrefilterResponse{Revision: 3, Deny: []string{"192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"}, DroppedPackets: 12, DroppedBytes: 840,
		Devices: []*agentv1.PrefilterDevice{{Name: "eth0", Mode: "native"}, {Name: "eth1"}}}
	switch f.mode {
	case "empty":
		m = &agentv1.GetPrefilterResponse{Revision: 1}
	case "hostile":
		m.Deny, m.Devices = []string{hostile}, []*agentv1.PrefilterDevice{{Name: hostile, Mode: hostile}}
	case "off":
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the prefilter is off: set enable-xdp-prefilter and restart the agent"))
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) UpdatePrefilter(_ ctx, q ask[agentv1.UpdatePrefilterRequest]) (ans[agentv1.UpdatePrefilterResponse], error) {
	switch {
	case q.Msg.GetRevision() > 3:
		return nil, connect.NewError(connect.CodeAborted, errors.New("the list has changed meanwhile: revision 9 was given, it is at revision 3"))
	case q.Msg.GetCidrs()[0] == "0.0.0.0/0":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("0.0.0.0/0 covers 192.168.0.2 (node n2): the nodes of the cluster would not hear of each other any more"))
	}
	return reply(f, q.Msg, &agentv1.UpdatePrefilterResponse{Revision: 4, Count: uint32(len(q.Msg.GetCidrs()))})
}

func (f *fakeAgent) DeletePrefilter(_ ctx, q ask[agentv1.DeletePrefilterRequest]) (ans[agentv1.DeletePrefilterResponse], error) {
	if q.Msg.GetCidrs()[0] == "10.0.0.0/8" {
		return nil, missing("not on the list: 10.0.0.0/8")
	}
	return reply(f, q.Msg, &agentv1.DeletePrefilterResponse{Revision: 4, Count: uint32(len(q.Msg.GetCidrs()))})
}

const fakeRules = `[{"endpointSelector":{"matchLabels":{"id":"app1"}},"labels":[{"key":"name","value":"l3-rule"}]}]`

func (f *fakeAgent) GetPolicy(_ ctx, q ask[agentv1.GetPolicyRequest]) (ans[agentv1.GetPolicyResponse], error) {
	if f.mode == "empty" || len(q.Msg.GetLabels()) > 0 && q.Msg.GetLabels()[0] != "name=l3-rule" {
		return reply(f, q.Msg, &agentv1.GetPolicyResponse{Json: "[]", Revision: 3})
	}
	return reply(f, q.Msg, &agentv1.GetPolicyResponse{Json: fakeRules, Revision: 3, Count: 1})
}

func (f *fakeAgent) ImportPolicy(_ ctx, q ask[agentv1.ImportPolicyRequest]) (ans[agentv1.ImportPolicyResponse], error) {
	if strings.Contains(q.Msg.GetDocument(), "bad") {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s: document 1: [0].ingres: unknown field", q.Msg.GetFilename()))
	}
	m := &agentv1.ImportPolicyResponse{Revision: 4, Count: 1}
	if strings.Contains(q.Msg.GetDocument(), "odd") {
		m.Warnings = []string{"rule 0 selects nothing"}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) DeletePolicy(_ ctx, q ask[agentv1.DeletePolicyRequest]) (ans[agentv1.DeletePolicyResponse], error) {
	m := &agentv1.DeletePolicyResponse{Revision: 3}
	if q.Msg.GetAll() || q.Msg.GetName() == "l3-rule" || len(q.Msg.GetLabels()) > 0 && q.Msg.GetLabels()[0] == "name=l3-rule" {
		m.Revision, m.Count = 5, 1
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) ListSelectors(_ ctx, q ask[agentv1.ListSelectorsRequest]) (ans[agentv1.ListSelectorsResponse], error) {
	m := &agentv1.ListSelectorsResponse{}
	if f.mode != "empty" {
		m.Selectors = []*agentv1.Selector{{Selector: "any:id=app2", Users: 1, Identities: []uint32{257, 300}, Policies: []string{"l3-rule"}}}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) WaitPolicy(c ctx, q ask[agentv1.WaitPolicyRequest]) (ans[agentv1.WaitPolicyResponse], error) {
	if q.Msg.GetRevision() > 3 {
		<-c.Done()
		return nil, connect.NewError(connect.CodeDeadlineExceeded, errors.New("endpoint 345 enforces revision 2"))
	}
	return reply(f, q.Msg, &agentv1.WaitPolicyResponse{Revision: 3})
}

func (f *fakeAgent) TracePolicy(_ ctx, q ask[agentv1.TracePolicyRequest]) (ans[agentv1.TracePolicyResponse], error) {
	if q.Msg.GetSource().GetPod() == "nobody" {
		return nil, missing("no workload default/nobody on any node")
	}
	m := &agentv1.TracePolicyResponse{Verdict: "denied", Revision: 3, SourceLabels: []string{"k8s:id=app3"}, DestinationLabels: []string{"k8s:id=app1"},
		Egress: &agentv1.TraceVerdict{Verdict: "allowed", Rule: 1, RuleText: "no policy selects it", Implicit: true},
		Ingress: &agentv1.TraceVerdict{Verdict: "denied", Rule: 77, RuleText: "default deny", Policies: []string{"l3-rule"}, Implicit: true,
			Log: []string{"peer class 4", "no entry matches"}}}
	if q.Msg.GetPort() == 80 {
		m.Verdict = "allowed"
		m.Ingress = &agentv1.TraceVerdict{Verdict: "allowed", Rule: 300, RuleText: "from id=app2 to port 80/TCP", Policies: []string{"l3-rule"}, Section: "ingress[0]"}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) GetConfig(_ ctx, q ask[agentv1.GetConfigRequest]) (ans[agentv1.GetConfigResponse], error) {
	return reply(f, q.Msg, &agentv1.GetConfigResponse{Options: []*agentv1.ConfigOption{
		{Name: "policy-audit-mode", Value: "false", Default: "false", Source: "default", Changeable: true},
		{Name: "enable-policy", Value: "always", Default: "default", Source: "flag", Changeable: true},
		{Name: "tunnel-port", Value: "8472", Default: "8472", Source: "default"},
		{Name: "etcd-endpoints", Value: "https://u:pw123@e:2379,https://f:2379", Source: "file"},
		{Name: "api-token", Value: "pw123", Source: "file"}}})
}

func (f *fakeAgent) UpdateConfig(_ ctx, q ask[agentv1.UpdateConfigRequest]) (ans[agentv1.UpdateConfigResponse], error) {
	m := &agentv1.UpdateConfigResponse{}
	for n, v := range q.Msg.GetOptions() {
		if v == "sometimes" {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s: want default, always or never", n))
		}
		if v != "always" {
			m.Changed = append(m.Changed, &agentv1.ConfigOption{Name: n, Value: v})
		}
	}
	return reply(f, q.Msg, m)
}

func fakeMaps() []*agentv1.MapStatus {
	return []*agentv1.MapStatus{
		{Name: "ct_v1", Type: "LRUHash", Entries: 2, MaxEntries: 262144, Pin: "/sys/fs/bpf/hypha/n1-00000000/maps/ct_v1", KeySize: 40, ValueSize: 88},
		{Name: "policy_v1", Type: "Hash", Entries: 95, MaxEntries: 100, KeySize: 12, ValueSize: 200, Errors: 3, LastError: "map is full"}}
}

func (f *fakeAgent) ListMaps(_ ctx, q ask[agentv1.ListMapsRequest]) (ans[agentv1.ListMapsResponse], error) {
	if f.mode == "empty" {
		return reply(f, q.Msg, &agentv1.ListMapsResponse{})
	}
	return reply(f, q.Msg, &agentv1.ListMapsResponse{Maps: fakeMaps()})
}

var fakeRows = map[string][]string{ // "COLUMN=value COLUMN=value"
	"ct_v1": {"PROTOCOL=6 SOURCE=10.0.0.13:40000 DESTINATION=10.0.0.12:80 EXPIRES=6h0m0s FLAGS=seen-reply",
		"PROTOCOL=58 SOURCE=[fd00::9]:1 DESTINATION=[fd00::8]:128 EXPIRES=60s FLAGS="},
	"ipcache_exact_v1":   {"PREFIX=10.0.0.12 IDENTITY=256 TUNNEL=- FLAGS="},
	"ipcache_v1":         {"PREFIX=0.0.0.0/0 IDENTITY=2 TUNNEL=- FLAGS=", "PREFIX=10.0.1.0/24 IDENTITY=2 TUNNEL=192.168.0.2 FLAGS=overlay"},
	"class_v1":           {"IDENTITY=256 CLASS=4"},
	"class_at_v1":        {"IDENTITY=256 AREA=2 CLASS=9"},
	"area_v1":            {"PREFIX=10.0.0.0/8 AREA=2 STRICT=true"},
	"policy_v1":          {"SET=5 CLASS=4 DIRECTION=ingress ENTRIES=6:80+allow,+1:8+allow,+any+allow DEFAULT=deny", "SET=5 CLASS=6 DIRECTION=ingress ENTRIES=17:0-65535+allow,+132:80-90+allow DEFAULT=deny", "SET=6 CLASS=0 DIRECTION=egress ENTRIES= DEFAULT=allow"},
	"policy_overflow_v1": {"SET=6 CLASS=4 DIRECTION=egress KIND=lookup PROTOCOL=6 PORT=80/16 ENTRY=6:80+allow"},
	"endpoints_v1":       {"ADDRESS=10.0.0.12 ENDPOINT=12 IDENTITY=256 POLICY-SET=5"},
	"metrics_v1":         {"REASON=0 DIRECTION=ingress PACKETS=10 BYTES=840", "REASON=133 DIRECTION=ingress PACKETS=2 BYTES=148"},
	"state_v1":           {"EPOCH=4 AUDIT=false"},
	"lb_frontend_v1": {"FRONTEND=10.96.0.1:80 PROTOCOL=6 SCOPE=external SERVICE=1 TYPE=ClusterIP SLOTS=5 COUNT=2 SELECTION=random AFFINITY=0s RANGES=0 FLAGS=",
		"FRONTEND=10.96.0.2:53 PROTOCOL=17 SCOPE=internal SERVICE=2 TYPE=LoadBalancer SLOTS=6 COUNT=1 SELECTION=maglev+251 AFFINITY=3h0m0s RANGES=4 FLAGS=ranges-deny,local",
		"FRONTEND=[fd00::1]:80 PROTOCOL=6 SCOPE=external SERVICE=3 TYPE=ClusterIP SLOTS=0 COUNT=0 SELECTION=random AFFINITY=0s RANGES=0 FLAGS="},
	"lb_slot_v1": {"SLOTS=5 INDEX=1 BACKEND=10.0.0.6:8080 PROTOCOL=6", "SLOTS=5 INDEX=0 BACKEND=10.0.0.5:8080 PROTOCOL=6", "SLOTS=6 INDEX=0 BACKEND=10.0.0.7:53 PROTOCOL=17",
		"SLOTS=7 INDEX=0 BACKEND=10.0.0.8:53 PROTOCOL=17"},
	"lb_reverse_v1":  {"SOCKET=77 PROTOCOL=6 BACKEND=10.0.0.5:8080 FRONTEND=10.96.0.1:80 SERVICE=1"},
	"lb_source_v1":   {"RANGES=4 PREFIX=192.0.2.0/24"},
	"lb_affinity_v1": {"SERVICE=2 CLIENT=10.0.0.9 BACKEND=10.0.0.7:53 AGE=5s"},
	"lb_maglev_v1":   {},
	"nat_v2":         {}, "frag_v1": {}, "devices_v1": {},
}

func (f *fakeAgent) DumpMap(_ ctx, q ask[agentv1.DumpMapRequest], s *connect.ServerStream[agentv1.MapRow]) error {
	f.note(q.Msg)
	all, ok := fakeRows[q.Msg.GetName()]
	if !ok {
		return missing("no map %q", q.Msg.GetName())
	}
	if f.mode == "empty" {
		return nil
	}
	for _, text := range all {
		m := &agentv1.MapRow{}
		for c := range strings.FieldsSeq(text) {
			n, v, _ := strings.Cut(c, "=")
			m.Columns = append(m.Columns, &agentv1.Column{Name: n, Value: strings.ReplaceAll(v, "+", " ")})
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeAgent) FlushMap(_ ctx, q ask[agentv1.FlushMapRequest]) (ans[agentv1.FlushMapResponse], error) {
	return reply(f, q.Msg, &agentv1.FlushMapResponse{Deleted: 2})
}

func (f *fakeAgent) ListMetrics(_ ctx, q ask[agentv1.ListMetricsRequest]) (ans[agentv1.ListMetricsResponse], error) {
	m := &agentv1.ListMetricsResponse{Metrics: []*agentv1.Metric{
		{Name: "hypha_drop_count_total", Labels: map[string]string{"reason": "Policy denied", "direction": "ingress"}, Value: 12, Type: "counter"},
		{Name: "hypha_policy_seconds", Value: 0.25, Count: 3, Type: "histogram"}}}
	if f.mode == "empty" {
		m.Metrics = nil
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) Monitor(c ctx, q ask[agentv1.MonitorRequest], s *connect.ServerStream[agentv1.MonitorEvent]) error {
	f.note(q.Msg)
	at := timestamppb.New(time.Unix(1700000000, 5000).UTC())
	text := "xx drop (Policy denied) to endpoint 12: 10.0.0.13:1 -> 10.0.0.12:80 tcp SYN"
	if f.mode == "hostile" {
		text = hostile
	}
	for _, m := range []*agentv1.MonitorEvent{
		{Time: at, Type: "drop", Cpu: 1, Summary: text, Fields: []*agentv1.Column{{Name: "type", Value: "drop"}, {Name: "reason", Value: "Policy denied"}, {Name: "source-identity", Value: "257"}, {Name: "length", Value: "74"}}},
		{Time: at, Type: "lost", Cpu: 1, Lost: 9},
	} {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	if f.mode == "long" {
		<-c.Done()
	}
	return nil
}

func (f *fakeAgent) KVGet(_ ctx, q ask[agentv1.KVGetRequest]) (ans[agentv1.KVGetResponse], error) {
	m := &agentv1.KVGetResponse{}
	if strings.HasPrefix("cilium/.heartbeat", q.Msg.GetKey()) && (q.Msg.GetPrefix() || q.Msg.GetKey() == "cilium/.heartbeat") {
		m.Pairs = []*agentv1.KVPair{{Key: "cilium/.heartbeat", Value: []byte("2026\x1b[31m"), Revision: 7}}
	}
	return reply(f, q.Msg, m)
}

func (f *fakeAgent) KVSet(_ ctx, q ask[agentv1.KVSetRequest]) (ans[agentv1.KVSetResponse], error) {
	return reply(f, q.Msg, &agentv1.KVSetResponse{})
}

func (f *fakeAgent) KVDelete(_ ctx, q ask[agentv1.KVDeleteRequest]) (ans[agentv1.KVDeleteResponse], error) {
	m := &agentv1.KVDeleteResponse{}
	if strings.HasPrefix(q.Msg.GetKey(), "cilium") {
		m.Deleted = 1
	}
	return reply(f, q.Msg, m)
}
