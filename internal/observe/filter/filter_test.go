package filter

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

type ff = flowpb.FlowFilter

// sample is app2 on node1 asking app1 for a page.
func sample() *flowpb.Flow {
	return &flowpb.Flow{
		Uuid: "u1", Verdict: flowpb.Verdict_DROPPED, DropReasonDesc: flowpb.DropReason_POLICY_DENIED,
		IP: &flowpb.IP{Source: "10.0.1.5", Destination: "fd00::7", IpVersion: flowpb.IPVersion_IPv4, SourceXlated: "192.0.2.1"},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 4321, DestinationPort: 80,
			Flags: &flowpb.TCPFlags{SYN: true, ACK: true}}}},
		Source: &flowpb.Endpoint{ID: 1, Identity: 1000, Namespace: "shop", PodName: "app2-x7", ClusterName: "default",
			Labels:    []string{"k8s:id=app2", "k8s:tier=7", "any:bare"},
			Workloads: []*flowpb.Workload{{Name: "app2", Kind: "Deployment"}}},
		Destination: &flowpb.Endpoint{Identity: 1001, PodName: "app1", ClusterName: "east", Labels: []string{"k8s:id=app1"}},
		SourceNames: []string{"App2.Example.com."}, DestinationNames: []string{"app1.example.com"},
		NodeName: "east/node1", NodeLabels: []string{"zone=a"},
		EventType: &flowpb.CiliumEventType{Type: 1, SubType: 133}, TrafficDirection: flowpb.TrafficDirection_INGRESS,
		IsReply: wrapperspb.Bool(false), Interface: &flowpb.NetworkInterface{Index: 3, Name: "hy00"},
		SourceService: &flowpb.Service{Name: "front", Namespace: "shop"}, DestinationService: &flowpb.Service{Name: "back"},
		TraceContext: &flowpb.TraceContext{Parent: &flowpb.TraceParent{TraceId: "abc"}},
		IpTraceId:    &flowpb.IPTraceID{TraceId: 9},
	}
}

func web() *flowpb.Flow {
	f := sample()
	f.L7 = &flowpb.Layer7{Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Code: 404, Method: "GET", Url: "http://shop/cart?x=1",
		Headers: []*flowpb.HTTPHeader{{Key: "X-Id", Value: "7"}}}}}
	return f
}

func name() *flowpb.Flow {
	f := sample()
	f.L7 = &flowpb.Layer7{Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: "kube.cluster.local."}}}
	return f
}

// TestFields has for each field of the filter values that match and values that do not; TestEveryField checks that none
// is forgotten.
var fields = []struct {
	field     string
	flow      *flowpb.Flow
	yes, no   []*ff
	malformed []*ff
}{
	{"source_ip", sample(), []*ff{{SourceIp: []string{"10.0.1.5"}}, {SourceIp: []string{"::1", "10.0.0.0/16"}}, {SourceIp: []string{"10.0.1.77/24"}}},
		[]*ff{{SourceIp: []string{"10.0.1.50"}}, {SourceIp: []string{"fd00::7"}}}, []*ff{{SourceIp: []string{"10.0.1"}}, {SourceIp: []string{"10.0.0.0/33"}}, {SourceIp: []string{""}}}},
	{"destination_ip", sample(), []*ff{{DestinationIp: []string{"fd00::/8"}}}, []*ff{{DestinationIp: []string{"10.0.1.5"}}}, nil},
	{"source_ip_xlated", sample(), []*ff{{SourceIpXlated: []string{"192.0.2.0/24"}}}, []*ff{{SourceIpXlated: []string{"10.0.1.5"}}}, nil},
	{"source_pod", sample(), []*ff{{SourcePod: []string{"shop/app2"}}, {SourcePod: []string{"shop/"}}, {SourcePod: []string{"/app2"}}},
		[]*ff{{SourcePod: []string{"app2"}}, {SourcePod: []string{"other/app2"}}, {SourcePod: []string{"shop/pp2"}}}, []*ff{{SourcePod: []string{""}}, {SourcePod: []string{"a/b/c"}}}},
	{"destination_pod", sample(), []*ff{{DestinationPod: []string{"app1"}}, {DestinationPod: []string{"default/app"}}},
		[]*ff{{DestinationPod: []string{"shop/app1"}}}, nil},
	{"verdict", sample(), []*ff{{Verdict: []flowpb.Verdict{1, 2}}}, []*ff{{Verdict: []flowpb.Verdict{1}}}, nil},
	{"event_type", sample(), []*ff{{EventType: []*flowpb.EventTypeFilter{{Type: 1}}}, {EventType: []*flowpb.EventTypeFilter{{Type: 1, MatchSubType: true, SubType: 133}}}},
		[]*ff{{EventType: []*flowpb.EventTypeFilter{{Type: 4}}}, {EventType: []*flowpb.EventTypeFilter{{Type: 1, MatchSubType: true}}}}, []*ff{{EventType: []*flowpb.EventTypeFilter{nil}}}},
	{"source_fqdn", sample(), []*ff{{SourceFqdn: []string{"app2.example.com"}}, {SourceFqdn: []string{"*.EXAMPLE.com."}}},
		[]*ff{{SourceFqdn: []string{"example.com"}}, {SourceFqdn: []string{"app2xexample.com"}}}, []*ff{{SourceFqdn: []string{""}}}},
	{"destination_fqdn", sample(), []*ff{{DestinationFqdn: []string{"app1*"}}}, []*ff{{DestinationFqdn: []string{"app2*"}}}, nil},
	{"http_status_code", web(), []*ff{{HttpStatusCode: []string{"404"}}, {HttpStatusCode: []string{"4+"}}, {HttpStatusCode: []string{"40+"}}},
		[]*ff{{HttpStatusCode: []string{"40"}[:0], HttpMethod: []string{"PUT"}}, {HttpStatusCode: []string{"5+"}}}, []*ff{{HttpStatusCode: []string{"40"}}, {HttpStatusCode: []string{"+"}}, {HttpStatusCode: []string{"999"}}}},
	{"source_label", sample(), []*ff{{SourceLabel: []string{"id=app2"}}, {SourceLabel: []string{"k8s:id in (x, app2)"}}, {SourceLabel: []string{"bare,!gone"}},
		{SourceLabel: []string{"id!=app1"}}, {SourceLabel: []string{"tier>6, tier<8"}}, {SourceLabel: []string{"any:id==app2"}}, {SourceLabel: []string{"gone notin (a)"}}},
		[]*ff{{SourceLabel: []string{"container:id=app2"}}, {SourceLabel: []string{"id=app2,id=app3"}}, {SourceLabel: []string{"!id"}}, {SourceLabel: []string{"tier>7"}}, {SourceLabel: []string{"id notin (app2)"}}, {SourceLabel: []string{"gone"}}},
		[]*ff{{SourceLabel: []string{""}}, {SourceLabel: []string{"a in b"}}, {SourceLabel: []string{"a in (b"}}, {SourceLabel: []string{"a>x"}}, {SourceLabel: []string{"a,,b"}}, {SourceLabel: []string{"=v"}}}},
	{"destination_label", sample(), []*ff{{DestinationLabel: []string{"k8s:id=app1"}}}, []*ff{{DestinationLabel: []string{"id=app2"}}}, nil},
	{"protocol", web(), []*ff{{Protocol: []string{"TCP"}}, {Protocol: []string{"udp", "http"}}}, []*ff{{Protocol: []string{"udp", "icmp", "icmpv4", "icmpv6", "sctp", "vrrp", "igmp", "dns", "kafka"}}}, []*ff{{Protocol: []string{"quic"}}}},
	{"source_port", sample(), []*ff{{SourcePort: []string{"4321"}}, {SourcePort: []string{"4000-5000"}}}, []*ff{{SourcePort: []string{"80"}}}, []*ff{{SourcePort: []string{"65536"}}, {SourcePort: []string{"9-8"}}, {SourcePort: []string{"http"}}}},
	{"destination_port", sample(), []*ff{{DestinationPort: []string{"80"}}}, []*ff{{DestinationPort: []string{"4321"}}}, nil},
	{"reply", sample(), []*ff{{Reply: []bool{false}}}, []*ff{{Reply: []bool{true}}}, nil},
	{"source_service", sample(), []*ff{{SourceService: []string{"shop/fr"}}}, []*ff{{SourceService: []string{"front"}}}, nil},
	{"destination_service", sample(), []*ff{{DestinationService: []string{"back"}}}, []*ff{{DestinationService: []string{"shop/back"}}}, nil},
	{"dns_query", name(), []*ff{{DnsQuery: []string{"kube.*local"}}}, []*ff{{DnsQuery: []string{"^cluster"}}}, []*ff{{DnsQuery: []string{"("}}}},
	{"source_identity", sample(), []*ff{{SourceIdentity: []uint32{1000}}}, []*ff{{SourceIdentity: []uint32{1001}}}, nil},
	{"destination_identity", sample(), []*ff{{DestinationIdentity: []uint32{1001}}}, []*ff{{DestinationIdentity: []uint32{1000}}}, nil},
	{"http_method", web(), []*ff{{HttpMethod: []string{"get"}}}, []*ff{{HttpMethod: []string{"POST"}}}, []*ff{{HttpMethod: []string{""}}}},
	{"http_path", web(), []*ff{{HttpPath: []string{"^/cart$"}}}, []*ff{{HttpPath: []string{"shop"}}}, []*ff{{HttpPath: []string{"["}}}},
	{"http_url", web(), []*ff{{HttpUrl: []string{"shop/cart"}}}, []*ff{{HttpUrl: []string{"https"}}}, []*ff{{HttpUrl: []string{"["}}}},
	{"http_header", web(), []*ff{{HttpHeader: []*flowpb.HTTPHeader{{Key: "x-id", Value: "7"}}}}, []*ff{{HttpHeader: []*flowpb.HTTPHeader{{Key: "x-id", Value: "8"}}}}, []*ff{{HttpHeader: []*flowpb.HTTPHeader{{}}}}},
	{"tcp_flags", sample(), []*ff{{TcpFlags: []*flowpb.TCPFlags{{SYN: true}}}, {TcpFlags: []*flowpb.TCPFlags{{FIN: true}, {SYN: true, ACK: true}}}}, []*ff{{TcpFlags: []*flowpb.TCPFlags{{SYN: true, FIN: true}}}}, nil},
	{"node_name", sample(), []*ff{{NodeName: []string{"node1"}}, {NodeName: []string{"east/"}}, {NodeName: []string{"e*/node*"}}}, []*ff{{NodeName: []string{"west/node1"}}, {NodeName: []string{"node"}}}, []*ff{{NodeName: []string{""}}, {NodeName: []string{"a/b/c"}}}},
	{"ip_version", sample(), []*ff{{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv4}}}, []*ff{{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv6}}}, nil},
	{"source_workload", sample(), []*ff{{SourceWorkload: []*flowpb.Workload{{Name: "app2"}}}, {SourceWorkload: []*flowpb.Workload{{Kind: "deployment"}}}}, []*ff{{SourceWorkload: []*flowpb.Workload{{Name: "app2", Kind: "Job"}}}}, []*ff{{SourceWorkload: []*flowpb.Workload{{}}}}},
	{"destination_workload", sample(), nil, []*ff{{DestinationWorkload: []*flowpb.Workload{{Name: "app2"}}}}, nil},
	{"trace_id", sample(), []*ff{{TraceId: []string{"abc"}}}, []*ff{{TraceId: []string{"ab"}}}, []*ff{{TraceId: []string{""}}}},
	{"uuid", sample(), []*ff{{Uuid: []string{"u1"}}}, []*ff{{Uuid: []string{"u2"}}}, nil},
	{"traffic_direction", sample(), []*ff{{TrafficDirection: []flowpb.TrafficDirection{1}}}, []*ff{{TrafficDirection: []flowpb.TrafficDirection{2}}}, nil},
	{"drop_reason_desc", sample(), []*ff{{DropReasonDesc: []flowpb.DropReason{133}}}, []*ff{{DropReasonDesc: []flowpb.DropReason{181}}}, nil},
	{"interface", sample(), []*ff{{Interface: []*flowpb.NetworkInterface{{Name: "hy00"}}}, {Interface: []*flowpb.NetworkInterface{{Index: 3}}}}, []*ff{{Interface: []*flowpb.NetworkInterface{{Index: 3, Name: "eth0"}}}}, []*ff{{Interface: []*flowpb.NetworkInterface{{}}}}},
	{"node_labels", sample(), []*ff{{NodeLabels: []string{"zone=a"}}}, []*ff{{NodeLabels: []string{"zone=b"}}}, nil},
	{"source_cluster_name", sample(), []*ff{{SourceClusterName: []string{"default"}}}, []*ff{{SourceClusterName: []string{"east"}}}, nil},
	{"destination_cluster_name", sample(), []*ff{{DestinationClusterName: []string{"east"}}}, []*ff{{DestinationClusterName: []string{"eas"}}}, nil},
	{"ip_trace_id", sample(), []*ff{{IpTraceId: []uint64{9}}}, []*ff{{IpTraceId: []uint64{8}}}, nil},
	{"encrypted", sample(), []*ff{{Encrypted: []bool{false}}}, []*ff{{Encrypted: []bool{true}}}, nil},
	{"experimental", sample(), []*ff{expr("_flow.source.identity == 1000u"), expr("_flow.verdict == Verdict.DROPPED && _flow.l4.TCP.destination_port < 1024u")},
		[]*ff{expr("_flow.source.identity == 7u"), expr("_flow.source.labels[99] == 'x'")},
		[]*ff{expr("_flow.nope"), expr("1 + 1"), expr("("), expr(strings.Repeat("true || ", 2000) + "true")}},
}

func expr(s string) *ff {
	return &ff{Experimental: &flowpb.FlowFilter_Experimental{CelExpression: []string{s}}}
}

func TestFields(t *testing.T) {
	for _, c := range fields {
		t.Run(c.field, func(t *testing.T) {
			for want, list := range map[bool][]*ff{true: c.yes, false: c.no} {
				for _, f := range list {
					s, err := Compile([]*ff{f}, nil)
					if err != nil {
						t.Fatalf("%v: %v", f, err)
					}
					if got := s.Match(c.flow); got != want {
						t.Errorf("%v: match %v, want %v", f, got, want)
					}
					if s.Match(&flowpb.Flow{}) && want && c.field != "encrypted" && !strings.Contains(f.String(), "gone notin") && !strings.Contains(f.String(), "!=") {
						t.Errorf("%v matches an empty flow", f)
					}
				}
			}
			for _, f := range c.malformed {
				if _, err := Compile([]*ff{f}, nil); err == nil {
					t.Errorf("%v: no error", f)
				} else if !strings.Contains(err.Error(), "whitelist[0]: "+c.field) {
					t.Errorf("%v: error %q does not name the field", f, err)
				}
			}
		})
	}
}

func TestEveryField(t *testing.T) {
	have := map[string]bool{}
	for _, c := range fields {
		have[c.field] = len(c.yes) > 0 || len(c.no) > 0
	}
	fds := (&ff{}).ProtoReflect().Descriptor().Fields()
	for i := range fds.Len() {
		if n := string(fds.Get(i).Name()); !have[n] {
			t.Errorf("field %s has no test", n)
		}
	}
}

func TestLists(t *testing.T) {
	tcp, udp, drop := &ff{Protocol: []string{"tcp"}}, &ff{Protocol: []string{"udp"}}, &ff{Verdict: []flowpb.Verdict{flowpb.Verdict_DROPPED}}
	for _, c := range []struct {
		name        string
		allow, deny []*ff
		want        bool
	}{
		{"nothing asked", nil, nil, true},
		{"one of two filters", []*ff{udp, tcp}, nil, true},
		{"none of the filters", []*ff{udp}, nil, false},
		{"denied", nil, []*ff{udp, tcp}, false},
		{"deny beats allow", []*ff{tcp}, []*ff{drop}, false},
		{"not denied", []*ff{tcp}, []*ff{udp}, true},
		{"fields are and", []*ff{{Protocol: []string{"tcp"}, SourcePort: []string{"1"}}}, nil, false},
		{"empty filter takes all", []*ff{{}}, nil, true},
		{"nil filter takes all", []*ff{nil}, nil, true},
	} {
		s, err := Compile(c.allow, c.deny)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := s.Match(sample()); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if (Set{}).Match(nil) {
		t.Error("no flow matches")
	}
	if _, err := Compile(make([]*ff, MaxFilters+1), nil); err == nil {
		t.Error("too many filters: no error")
	}
	if _, err := Compile([]*ff{{Uuid: make([]string, MaxValues+1)}}, nil); err == nil {
		t.Error("too many values: no error")
	}
}

func BenchmarkMatch(b *testing.B) {
	s, err := Compile([]*ff{{SourcePod: []string{"shop/app2"}, Verdict: []flowpb.Verdict{2}, DestinationPort: []string{"80"}}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	f := sample()
	b.ReportAllocs()
	for b.Loop() {
		if !s.Match(f) {
			b.Fatal("no match")
		}
	}
}
