package observe

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
)

const (
	ruleAllow   model.RuleID = 1000
	ruleDefault model.RuleID = 1001
	ruleDeny    model.RuleID = 1002
)

// world is the demo: app1 and app2 here, a node elsewhere.
type world struct{}

var (
	app1  = netip.MustParseAddr("10.0.1.1")
	app2  = netip.MustParseAddr("10.0.1.2")
	app2b = netip.MustParseAddr("fd00::2")
	out   = netip.MustParseAddr("192.0.2.9")

	labels = map[model.IdentityID]model.Labels{
		2001: model.NewLabels(model.Label{Source: "k8s", Key: "id", Value: "app1"}),
		2002: model.NewLabels(model.Label{Source: "k8s", Key: "id", Value: "app2"}, model.Label{Source: "k8s", Key: model.KeyNamespace, Value: "shop"}),
		2:    model.NewLabels(model.Label{Source: "reserved", Key: "world"}),
	}
	l3 = []model.PolicyRef{{Name: "l3-rule", Labels: model.NewLabels(model.Label{Source: "unspec", Key: "name", Value: "l3-rule"}), Revision: 2}}
)

func (world) Endpoint(a netip.Addr, _ uint16) (Peer, bool) {
	switch a {
	case app1:
		return Peer{ID: 11, Identity: 2001, Namespace: "default", Pod: "app1", Workloads: []Workload{{"app1", "Deployment"}}}, true
	case app2, app2b:
		return Peer{ID: 12, Identity: 2002, Pod: "app2"}, true
	case out:
		return Peer{Identity: 2, Names: []string{"example.com"}}, true
	}
	return Peer{}, false
}
func (world) Identity(id model.IdentityID) (model.Labels, bool) { l, ok := labels[id]; return l, ok }
func (world) Rule(id model.RuleID) (model.RuleRef, bool) {
	switch id {
	case ruleAllow:
		return model.RuleRef{ID: id, Policies: l3, Section: "ingress[0]", Ingress: true, Text: "l3-rule ingress[0]"}, true
	case ruleDefault:
		return model.RuleRef{ID: id, Policies: l3, Ingress: true, Deny: true, Implicit: true, Text: "l3-rule ingress default deny"}, true
	case ruleDeny:
		return model.RuleRef{ID: id, Policies: []model.PolicyRef{{Kind: "CiliumNetworkPolicy", Namespace: "shop", Name: "no-out"}}, Section: "egressDeny[0]", Deny: true, Text: "shop/no-out egressDeny[0]"}, true
	}
	return model.RuleRef{}, false
}
func (world) Owner(uint64, bool) (netip.Addr, bool) { return netip.Addr{}, false }
func (world) Interface(n uint32) string {
	if n == 7 {
		return "hy0123456789"
	}
	return ""
}

func (world) Service(front netip.AddrPort, proto uint8) (Service, bool) {
	return Service{Name: "web", Namespace: "shop"}, front == netip.AddrPortFrom(vip, 80) && proto == 6
}

var vip = netip.MustParseAddr("10.96.0.1")

var when = time.Unix(1_700_000_000, 5)

func newObserver(t testing.TB, cfg Config) *Observer {
	t.Helper()
	cfg.Node = "node1"
	o, err := New(cfg, Deps{Resolver: world{}, Now: func() time.Time { return when }})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// tcp is app2 asking app1 for a page.
func tcp(typ, code, reason uint8, flags model.EventFlags) model.Event {
	return model.Event{Time: when, Type: typ, Code: code, Reason: reason, Flags: flags | model.EventL4, Proto: 6, TCPFlags: 0x02, EthProto: 0x0800,
		SrcPort: 4321, DstPort: 80, SrcEndpoint: 12, DstEndpoint: 11, SrcIdentity: 2002, DstIdentity: 2001, IfIndex: 7, Len: 74,
		Src: app2, Dst: app1, SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2}}
}

func with(e model.Event, change func(*model.Event)) model.Event { change(&e); return e }

// base is what all of them have in common.
func base() *flowpb.Flow {
	return &flowpb.Flow{
		Time: timestamppb.New(when), NodeName: "node1", Emitter: &flowpb.Emitter{Name: "hypha", Version: "v1"}, Type: flowpb.FlowType_L3_L4,
		Ethernet:    &flowpb.Ethernet{Source: "02:00:00:00:00:01", Destination: "02:00:00:00:00:02"},
		IP:          &flowpb.IP{Source: "10.0.1.2", Destination: "10.0.1.1", IpVersion: flowpb.IPVersion_IPv4},
		L4:          &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 4321, DestinationPort: 80, Flags: &flowpb.TCPFlags{SYN: true}}}},
		Source:      &flowpb.Endpoint{ID: 12, Identity: 2002, Namespace: "shop", PodName: "app2", ClusterName: "default", Labels: []string{"k8s:id=app2", "k8s:io.kubernetes.pod.namespace=shop"}},
		Destination: &flowpb.Endpoint{ID: 11, Identity: 2001, Namespace: "default", PodName: "app1", ClusterName: "default", Labels: []string{"k8s:id=app1"}, Workloads: []*flowpb.Workload{{Name: "app1", Kind: "Deployment"}}},
		Interface:   &flowpb.NetworkInterface{Index: 7, Name: "hy0123456789"}, Summary: "TCP Flags: SYN",
	}
}

var l3pb = []*flowpb.Policy{{Name: "l3-rule", Labels: []string{"unspec:name=l3-rule"}, Revision: 2}}

func TestDecode(t *testing.T) {
	deny := []*flowpb.Policy{{Name: "no-out", Namespace: "shop", Kind: "CiliumNetworkPolicy"}}
	for _, c := range []struct {
		name string
		e    model.Event
		want func(*flowpb.Flow)
	}{
		{"drop by default", with(tcp(1, 133, 0, model.EventIngress), func(e *model.Event) { e.Rule, e.File, e.Line = ruleDefault, 1, 42 }), func(f *flowpb.Flow) {
			f.Verdict, f.DropReason, f.DropReasonDesc = flowpb.Verdict_DROPPED, 133, flowpb.DropReason_POLICY_DENIED
			f.EventType = &flowpb.CiliumEventType{Type: 1, SubType: 133}
			f.TrafficDirection, f.File = flowpb.TrafficDirection_INGRESS, &flowpb.FileInfo{Name: "pod.bpf.c", Line: 42}
			f.IngressDeniedBy, f.PolicyLog = l3pb, []string{"l3-rule ingress default deny"}
			f.Summary = "TCP Flags: SYN; rule: l3-rule ingress default deny"
		}},
		{"drop by a deny rule, seen from the other side", with(tcp(1, 181, 0, 0), func(e *model.Event) { e.Rule = ruleDeny }), func(f *flowpb.Flow) {
			f.Verdict, f.DropReason, f.DropReasonDesc = flowpb.Verdict_DROPPED, 181, flowpb.DropReason_POLICY_DENY
			f.EventType = &flowpb.CiliumEventType{Type: 1, SubType: 181}
			f.EgressDeniedBy, f.PolicyLog = deny, []string{"shop/no-out egressDeny[0]"}
			f.Summary = "TCP Flags: SYN; rule: shop/no-out egressDeny[0]"
		}},
		{"drop that nobody can name", model.Event{Time: when, Type: 1, Code: 139, Flags: model.EventIngress}, func(f *flowpb.Flow) {
			f.Ethernet, f.IP, f.L4, f.Interface, f.Summary = nil, nil, nil, nil, ""
			f.Source, f.Destination = &flowpb.Endpoint{}, &flowpb.Endpoint{}
			f.Verdict, f.DropReason, f.DropReasonDesc = flowpb.Verdict_DROPPED, 139, flowpb.DropReason_UNSUPPORTED_L3_PROTOCOL
			f.EventType, f.TrafficDirection = &flowpb.CiliumEventType{Type: 1, SubType: 139}, flowpb.TrafficDirection_INGRESS
		}},
		{"trace of a new connection", with(tcp(4, 0, 1, model.EventIngress|model.EventReplyKnown), func(e *model.Event) { e.Rule = ruleAllow }), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_ENDPOINT, flowpb.TraceReason_NEW
			f.EventType, f.TrafficDirection, f.IsReply = &flowpb.CiliumEventType{Type: 4}, flowpb.TrafficDirection_INGRESS, wrapperspb.Bool(false)
			f.IngressAllowedBy, f.PolicyLog = l3pb, []string{"l3-rule ingress[0]"}
		}},
		{"trace of a reply: the connection's direction", tcp(4, 11, 3, model.EventEgress|model.EventReplyKnown|model.EventReply), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_NETWORK, flowpb.TraceReason_REPLY
			f.EventType, f.TrafficDirection, f.IsReply, f.Reply = &flowpb.CiliumEventType{Type: 4, SubType: 11}, flowpb.TrafficDirection_INGRESS, wrapperspb.Bool(true), true
		}},
		{"to a service", with(tcp(4, 0, 1, 0), func(e *model.Event) { e.Dst, e.DstEndpoint, e.DstIdentity = vip, 0, 2 }), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_ENDPOINT, flowpb.TraceReason_NEW
			f.EventType, f.IP.Destination = &flowpb.CiliumEventType{Type: 4}, "10.96.0.1"
			f.Destination = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}
			f.DestinationService = &flowpb.Service{Name: "web", Namespace: "shop"}
		}},
		{"from a service", with(tcp(4, 0, 1, 0), func(e *model.Event) { e.Src, e.SrcEndpoint, e.SrcIdentity, e.SrcPort = vip, 0, 2, 80 }), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_ENDPOINT, flowpb.TraceReason_NEW
			f.EventType, f.IP.Source = &flowpb.CiliumEventType{Type: 4}, "10.96.0.1"
			f.L4.GetTCP().SourcePort = 80
			f.Source = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}
			f.SourceService = &flowpb.Service{Name: "web", Namespace: "shop"}
		}},
		{"trace from the overlay", with(tcp(4, 9, 2, model.EventIngress|model.EventTunnel), func(e *model.Event) { e.Tunnel, e.VNI, e.SrcEndpoint = netip.MustParseAddr("172.16.0.2"), 2002, 0 }), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_FROM_OVERLAY, flowpb.TraceReason_ESTABLISHED
			f.EventType, f.TrafficDirection = &flowpb.CiliumEventType{Type: 4, SubType: 9}, flowpb.TrafficDirection_INGRESS
			f.Tunnel = &flowpb.Tunnel{Protocol: flowpb.Tunnel_VXLAN, Vni: 2002, IP: &flowpb.IP{Source: "172.16.0.2", IpVersion: flowpb.IPVersion_IPv4},
				L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: 8472}}}}
		}},
		{"masqueraded", with(tcp(4, 11, 1, model.EventEgress), func(e *model.Event) {
			e.Dst, e.DstEndpoint, e.DstIdentity, e.Xlated = out, 0, 2, netip.MustParseAddr("::ffff:198.51.100.1")
		}), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_NETWORK, flowpb.TraceReason_NEW
			f.EventType, f.TrafficDirection = &flowpb.CiliumEventType{Type: 4, SubType: 11}, flowpb.TrafficDirection_EGRESS
			f.IP.Destination, f.IP.SourceXlated = "192.0.2.9", "198.51.100.1"
			f.Destination, f.DestinationNames = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}, []string{"example.com"}
		}},
		{"verdict allow", with(tcp(5, model.VerdictAllow, 2, model.EventIngress|model.EventReplyKnown), func(e *model.Event) { e.Rule = ruleAllow }), func(f *flowpb.Flow) {
			f.Verdict, f.PolicyMatchType, f.EventType = flowpb.Verdict_FORWARDED, 2, &flowpb.CiliumEventType{Type: 5}
			f.TrafficDirection, f.IsReply = flowpb.TrafficDirection_INGRESS, wrapperspb.Bool(false)
			f.IngressAllowedBy, f.PolicyLog = l3pb, []string{"l3-rule ingress[0]"}
		}},
		{"verdict allow without policy", with(tcp(5, model.VerdictAllow, 0, model.EventEgress), func(e *model.Event) { e.Rule = model.RuleNoPolicy }), func(f *flowpb.Flow) {
			f.Verdict, f.EventType, f.TrafficDirection = flowpb.Verdict_FORWARDED, &flowpb.CiliumEventType{Type: 5}, flowpb.TrafficDirection_EGRESS
			f.PolicyLog = []string{"no policy selects the workload in this direction"}
		}},
		{"verdict deny", with(tcp(5, model.VerdictDeny, 0, model.EventIngress), func(e *model.Event) { e.Rule = ruleDefault }), func(f *flowpb.Flow) {
			f.Verdict, f.EventType, f.TrafficDirection = flowpb.Verdict_DROPPED, &flowpb.CiliumEventType{Type: 5}, flowpb.TrafficDirection_INGRESS
			f.DropReason, f.DropReasonDesc, f.IngressDeniedBy = 133, flowpb.DropReason_POLICY_DENIED, l3pb
			f.PolicyLog, f.Summary = []string{"l3-rule ingress default deny"}, "TCP Flags: SYN; rule: l3-rule ingress default deny"
		}},
		{"verdict audit", with(tcp(5, model.VerdictDeny|model.VerdictAudit, 0, model.EventEgress|model.EventAudit), func(e *model.Event) { e.Rule = ruleDeny }), func(f *flowpb.Flow) {
			f.Verdict, f.EventType, f.TrafficDirection = flowpb.Verdict_AUDIT, &flowpb.CiliumEventType{Type: 5}, flowpb.TrafficDirection_EGRESS
			f.DropReason, f.DropReasonDesc, f.EgressDeniedBy = 181, flowpb.DropReason_POLICY_DENY, deny
			f.PolicyLog, f.Summary = []string{"shop/no-out egressDeny[0]"}, "TCP Flags: SYN; rule: shop/no-out egressDeny[0]"
		}},
		{"verdict redirect", tcp(5, model.VerdictRedirect, 2, model.EventIngress), func(f *flowpb.Flow) {
			f.Verdict, f.PolicyMatchType, f.EventType, f.TrafficDirection = flowpb.Verdict_REDIRECTED, 2, &flowpb.CiliumEventType{Type: 5}, flowpb.TrafficDirection_INGRESS
		}},
		{"verdict auth", tcp(5, model.VerdictAuth, 0, model.EventIngress), func(f *flowpb.Flow) {
			f.Verdict, f.EventType, f.TrafficDirection = flowpb.Verdict_DROPPED, &flowpb.CiliumEventType{Type: 5}, flowpb.TrafficDirection_INGRESS
			f.DropReason, f.DropReasonDesc = 189, flowpb.DropReason_AUTH_REQUIRED
		}},
		{"rule that is gone", with(tcp(1, 133, 0, model.EventIngress), func(e *model.Event) { e.Rule = 4711 }), func(f *flowpb.Flow) {
			f.Verdict, f.DropReason, f.DropReasonDesc = flowpb.Verdict_DROPPED, 133, flowpb.DropReason_POLICY_DENIED
			f.EventType, f.TrafficDirection = &flowpb.CiliumEventType{Type: 1, SubType: 133}, flowpb.TrafficDirection_INGRESS
			f.PolicyLog, f.Summary = []string{"rule 4711, which is not in force any more"}, "TCP Flags: SYN; rule: rule 4711, which is not in force any more"
		}},
		{"ICMPv6", with(tcp(4, 5, 1, 0), func(e *model.Event) {
			e.Proto, e.Src, e.Dst, e.SrcPort, e.DstPort = 58, app2b, app2b, 128, 0
			e.DstEndpoint, e.DstIdentity = 12, 2002
		}), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_FROM_ENDPOINT, flowpb.TraceReason_NEW
			f.EventType, f.Summary = &flowpb.CiliumEventType{Type: 4, SubType: 5}, "ICMPv6 EchoRequest"
			f.IP = &flowpb.IP{Source: "fd00::2", Destination: "fd00::2", IpVersion: flowpb.IPVersion_IPv6}
			f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: 128}}}
			f.Destination = f.Source
		}},
		{"later fragment", with(tcp(4, 0, 2, model.EventIngress|model.EventFragment), func(e *model.Event) {}), func(f *flowpb.Flow) {
			f.Verdict, f.TraceObservationPoint, f.TraceReason = flowpb.Verdict_FORWARDED, flowpb.TraceObservationPoint_TO_ENDPOINT, flowpb.TraceReason_ESTABLISHED
			f.EventType, f.TrafficDirection, f.Summary = &flowpb.CiliumEventType{Type: 4}, flowpb.TrafficDirection_INGRESS, "TCP later fragment"
			f.L4.GetTCP().Flags = nil
		}},
		{"unknown kind of event", tcp(99, 7, 0, 0), func(f *flowpb.Flow) {
			f.Verdict, f.EventType = flowpb.Verdict_ERROR, &flowpb.CiliumEventType{Type: 99, SubType: 7}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newObserver(t, Config{Cluster: "default", Version: "v1", SourceFiles: map[uint8]string{1: "pod.bpf.c"}})
			o.Handle(c.e)
			r, ok := o.Flows().Get(0)
			if !ok {
				t.Fatal("no flow")
			}
			if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(r.Flow().Uuid) {
				t.Errorf("uuid %q", r.Flow().Uuid)
			}
			got := proto.CloneOf(r.Flow())
			got.Uuid = ""
			want := base()
			c.want(want)
			if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestClusterInNames(t *testing.T) {
	o := newObserver(t, Config{Cluster: "east"})
	o.Handle(tcp(4, 0, 1, 0))
	r, _ := o.Flows().Get(0)
	if r.Flow().NodeName != "east/node1" || r.Flow().Source.ClusterName != "east" {
		t.Errorf("node %q, cluster %q", r.Flow().NodeName, r.Flow().Source.ClusterName)
	}
	if d := cmp.Diff([]Namespace{{"east", "default"}, {"east", "shop"}}, o.Namespaces()); d != "" {
		t.Error(d)
	}
}

// TestLabelsFollowTheirIdentity: a number that is given to another label set shows the new one.
func TestLabelsFollowTheirIdentity(t *testing.T) {
	c := labelCache{}
	a := model.NewLabels(model.Label{Source: "k8s", Key: "a"})
	b := model.NewLabels(model.Label{Source: "k8s", Key: "b"})
	for _, s := range []struct {
		set  model.Labels
		want string
	}{{a, "k8s:a"}, {a, "k8s:a"}, {b, "k8s:b"}, {nil, ""}, {a, "k8s:a"}} {
		if got := strings.Join(c.strings(300, s.set), ","); got != s.want {
			t.Errorf("got %q, want %q", got, s.want)
		}
	}
}

// TestAccounting: whatever comes, seen is stored plus lost, and a reader that walks along gets all of it.
func TestAccounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, err := New(Config{Node: "n", Capacity: 7}, Deps{Resolver: world{}})
		if err != nil {
			t.Fatal(err)
		}
		rd := o.Flows().Reader(0)
		var stored, lost, flows, told, missed uint64
		entries := uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				n := rapid.Uint64Range(0, 1000).Draw(t, "n")
				o.Lost(rapid.IntRange(0, 3).Draw(t, "cpu"), n)
				lost += n
				if n > 0 {
					entries++
				}
			case 1:
				for range rapid.IntRange(1, 10).Draw(t, "burst") {
					o.Handle(tcp(rapid.Uint8().Draw(t, "type"), rapid.Uint8().Draw(t, "code"), rapid.Uint8().Draw(t, "reason"), model.EventFlags(rapid.Uint8().Draw(t, "flags"))))
					stored++
					entries++
				}
			case 2:
				for {
					v, l, ok := rd.Next()
					if !ok && l == 0 {
						break
					}
					missed += l
					if ok && v.Lost != nil {
						told++
					} else if ok {
						flows++
					}
				}
				if flows+told+missed != entries {
					t.Fatalf("reader: %d flows, %d remarks, %d missed of %d", flows, told, missed, entries)
				}
			}
			if s := o.Stats(); s.Seen != stored+lost || s.Stored != stored || s.Lost != lost {
				t.Fatalf("stats %+v, want stored %d lost %d", s, stored, lost)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	o, err := New(Config{Node: "n"}, Deps{Resolver: world{}, Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o.Handle(with(tcp(1, 133, 0, model.EventIngress), func(e *model.Event) { e.Rule = ruleDefault }))
	}
	o.Handle(tcp(4, 0, 1, model.EventIngress))
	o.Lost(0, 5)
	o.NoteReaderLoss(2)
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range fams {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.Counter.GetValue()
		}
	}
	want := map[string]float64{
		"hubble_flows_processed_total TCP  Drop DROPPED":               3,
		"hubble_flows_processed_total TCP to-endpoint Trace FORWARDED": 1,
		"hubble_drop_total INGRESS TCP POLICY_DENIED":                  3,
		"hubble_lost_events_total PERF_EVENT_RING_BUFFER":              5,
		"hubble_lost_events_total HUBBLE_RING_BUFFER":                  2,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := New(Config{Node: "n"}, Deps{Resolver: world{}, Metrics: reg}); err == nil {
		t.Error("registered twice without an error")
	}
}

func TestAgentEvents(t *testing.T) {
	o := newObserver(t, Config{})
	ep := model.Endpoint{ID: 7, Name: "app1", Namespace: "default", Labels: labels[2001]}
	e := model.IPEntry{Prefix: netip.MustParsePrefix("10.0.1.1/32"), Identity: 2001, Tunnel: netip.MustParseAddr("172.16.0.2"), Name: "app1", Namespace: "default"}
	o.Agent.EndpointCreated(ep)
	o.Agent.EndpointDeleted(ep)
	o.Agent.EndpointRegenerated(ep, nil)
	o.Agent.PolicyDeleted([]string{"a"}, 3, 1)
	o.Agent.IPCacheUpserted(e, &model.IPEntry{Identity: 5})
	o.Agent.IPCacheDeleted(e)
	want := []string{
		`type: ENDPOINT_CREATED endpoint_update: {id: 7 labels: "k8s:id=app1" pod_name: "app1" namespace: "default"}`,
		`type: ENDPOINT_DELETED endpoint_update: {id: 7 labels: "k8s:id=app1" pod_name: "app1" namespace: "default"}`,
		`type: ENDPOINT_REGENERATE_SUCCESS endpoint_regenerate: {id: 7 labels: "k8s:id=app1"}`,
		`type: POLICY_DELETED policy_update: {labels: "a" revision: 3 rule_count: 1}`,
		`type: IPCACHE_UPSERTED ipcache_update: {cidr: "10.0.1.1/32" identity: 2001 old_identity: {value: 5} host_ip: "172.16.0.2" namespace: "default" pod_name: "app1"}`,
		`type: IPCACHE_DELETED ipcache_update: {cidr: "10.0.1.1/32" identity: 2001 host_ip: "172.16.0.2" namespace: "default" pod_name: "app1"}`,
	}
	for i, w := range want {
		r, ok := o.Agent.Ring().Get(uint64(i))
		if !ok || r.Time != when {
			t.Fatalf("event %d: %v, %v", i, r.Time, ok)
		}
		wm := &flowpb.AgentEvent{}
		if err := prototext.Unmarshal([]byte(w), wm); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wm, r.Event, protocmp.Transform()); d != "" {
			t.Errorf("event %d: %s", i, d)
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	o, err := New(Config{Node: "n"}, Deps{Resolver: world{}})
	if err != nil {
		b.Fatal(err)
	}
	e := with(tcp(4, 0, 1, model.EventIngress|model.EventReplyKnown), func(e *model.Event) { e.Rule = ruleAllow })
	b.ReportAllocs()
	for b.Loop() {
		o.Handle(e)
	}
}

// A packet of a service's client names the service, though its addresses are the backend's by then.
func TestServiceOfAPacket(t *testing.T) {
	o := newObserver(t, Config{})
	for _, c := range []struct {
		reply    bool
		src, dst string
	}{{false, "", "web"}, {true, "web", ""}} {
		e := tcp(4, 0, 1, model.EventReplyKnown)
		e.Front = netip.AddrPortFrom(vip, 80)
		if c.reply {
			e.Flags |= model.EventReply
		}
		f := o.dec.see(&e).flow()
		if f.GetSourceService().GetName() != c.src || f.GetDestinationService().GetName() != c.dst {
			t.Errorf("reply %v: services %v and %v", c.reply, f.GetSourceService(), f.GetDestinationService())
		}
	}
}
