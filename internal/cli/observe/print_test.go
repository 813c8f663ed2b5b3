package observe

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	relaypb "github.com/hypha-net/hypha/api/relay"
	"github.com/hypha-net/hypha/internal/escape"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: (-want +got)\n%s", path, d)
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 123e6, time.UTC)

func res(sec int, f *flowpb.Flow) *observerpb.GetFlowsResponse {
	f.Time, f.NodeName = timestamppb.New(noon.Add(time.Duration(sec)*time.Second)), "node1"
	return &observerpb.GetFlowsResponse{Time: f.Time, NodeName: "node1", ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f}}
}

func tcpFlow(verdict flowpb.Verdict, typ, sub int32, reply *wrapperspb.BoolValue) *flowpb.Flow {
	f := &flowpb.Flow{
		Verdict: verdict, EventType: &flowpb.CiliumEventType{Type: typ, SubType: sub}, IsReply: reply, Type: flowpb.FlowType_L3_L4,
		IP:          &flowpb.IP{Source: "10.0.1.2", Destination: "10.0.1.1", IpVersion: flowpb.IPVersion_IPv4},
		L4:          &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 4321, DestinationPort: 80, Flags: &flowpb.TCPFlags{SYN: true}}}},
		Source:      &flowpb.Endpoint{ID: 12, Identity: 2002, Namespace: "default", PodName: "app2", Labels: []string{"k8s:id=app2"}},
		Destination: &flowpb.Endpoint{ID: 11, Identity: 2001, Namespace: "default", PodName: "app1", Labels: []string{"k8s:id=app1"}},
		Summary:     "TCP Flags: SYN", TrafficDirection: flowpb.TrafficDirection_INGRESS,
	}
	return f
}

// samples has one of each kind that the printers tell apart.
func samples() []*observerpb.GetFlowsResponse {
	yes, no := wrapperspb.Bool(true), wrapperspb.Bool(false)
	policy := []*flowpb.Policy{{Name: "l3-rule", Labels: []string{"unspec:name=l3-rule"}, Revision: 2}}
	allowed := tcpFlow(flowpb.Verdict_FORWARDED, 5, 0, no)
	allowed.PolicyMatchType, allowed.IngressAllowedBy = 2, policy
	denied := tcpFlow(flowpb.Verdict_DROPPED, 5, 0, no)
	denied.Source.PodName, denied.Source.Identity = "app3", 2003
	denied.DropReasonDesc, denied.IngressDeniedBy = flowpb.DropReason_POLICY_DENIED, policy
	denied.Summary += "; rule: l3-rule ingress default deny"
	dropped := tcpFlow(flowpb.Verdict_DROPPED, 1, 133, nil)
	dropped.Source, dropped.DropReasonDesc, dropped.IngressDeniedBy, dropped.Summary = denied.Source, denied.DropReasonDesc, policy, denied.Summary
	audited := tcpFlow(flowpb.Verdict_AUDIT, 5, 0, no)
	reply := tcpFlow(flowpb.Verdict_FORWARDED, 4, 0, yes)
	reply.Source, reply.Destination = reply.Destination, reply.Source
	reply.L4.GetTCP().SourcePort, reply.L4.GetTCP().DestinationPort = 80, 4321
	reply.Summary = "TCP Flags: SYN, ACK"
	world := tcpFlow(flowpb.Verdict_FORWARDED, 4, 3, no)
	world.Destination = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}
	world.IP.Destination, world.IP.SourceXlated = "2001:db8::9", "192.0.2.1"
	named := tcpFlow(flowpb.Verdict_FORWARDED, 4, 11, no)
	named.Destination, named.DestinationNames = world.Destination, []string{"example.com"}
	ping := tcpFlow(flowpb.Verdict_FORWARDED, 4, 2, no)
	ping.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 8}}}
	ping.Destination, ping.IP.Destination, ping.Summary = &flowpb.Endpoint{Identity: 1}, "10.0.1.254", "ICMPv4 EchoRequest"
	http := tcpFlow(flowpb.Verdict_FORWARDED, 129, 0, no)
	http.Type, http.Summary = flowpb.FlowType_L7, ""
	http.L7 = &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Method: "GET", Url: "http://app1/", Protocol: "HTTP/1.1"}}}
	arp := &flowpb.Flow{Verdict: flowpb.Verdict_DROPPED, EventType: &flowpb.CiliumEventType{Type: 1, SubType: 139},
		DropReasonDesc: flowpb.DropReason_UNSUPPORTED_L3_PROTOCOL, Ethernet: &flowpb.Ethernet{Source: "02:00:00:00:00:01", Destination: "ff:ff:ff:ff:ff:ff"}}
	var out []*observerpb.GetFlowsResponse
	for i, f := range []*flowpb.Flow{allowed, denied, dropped, audited, reply, world, named, ping, http, arp} {
		out = append(out, res(i, f))
	}
	return append(out,
		&observerpb.GetFlowsResponse{Time: timestamppb.New(noon), NodeName: "node1", ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{
			LostEvents: &flowpb.LostEvent{Source: flowpb.LostEventSource_HUBBLE_RING_BUFFER, NumEventsLost: 1}}},
		&observerpb.GetFlowsResponse{Time: timestamppb.New(noon), NodeName: "node1", ResponseTypes: &observerpb.GetFlowsResponse_NodeStatus{
			NodeStatus: &relaypb.NodeStatusEvent{StateChange: relaypb.NodeState_NODE_UNAVAILABLE, NodeNames: []string{"node2"}, Message: "gone\x1b[2J"}}})
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*printer)
	}{
		{"compact", func(p *printer) {}},
		{"compact-node-policies", func(p *printer) { p.node, p.policies = true, true }},
		{"compact-numeric", func(p *printer) { p.numeric, p.timeFormat = true, "RFC3339Nano" }},
		{"compact-color", func(p *printer) { p.paint = true }},
		{"dict", func(p *printer) { p.output, p.node = "dict", true }},
		{"table", func(p *printer) { p.output = "table" }},
		{"table-color", func(p *printer) { p.output, p.node, p.paint = "table", true, true }},
		{"jsonpb", func(p *printer) { p.output = "jsonpb" }},
		{"json", func(p *printer) { p.output = "json" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			p := &printer{printOptions: printOptions{output: "compact", timeFormat: "StampMilli", translate: true}, out: &out, err: &errs}
			c.set(p)
			for _, r := range samples() {
				if err := p.response(r); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.close(); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, out.String())
			if !strings.HasPrefix(c.name, "json") {
				if want := `NODE_UNAVAILABLE: node2: gone\x1b[2J` + "\n"; errs.String() != want {
					t.Errorf("standard error %q, want %q", errs.String(), want)
				}
			}
		})
	}
}

func TestAgentEventFormats(t *testing.T) {
	events := []*observerpb.GetAgentEventsResponse{
		{AgentEvent: &flowpb.AgentEvent{Type: flowpb.AgentEventType_AGENT_STARTED, Notification: &flowpb.AgentEvent_AgentStart{AgentStart: &flowpb.TimeNotification{Time: timestamppb.New(noon)}}}},
		{AgentEvent: &flowpb.AgentEvent{Type: flowpb.AgentEventType_POLICY_UPDATED, Notification: &flowpb.AgentEvent_PolicyUpdate{PolicyUpdate: &flowpb.PolicyUpdateNotification{Labels: []string{"unspec:name=l3-rule"}, Revision: 2, RuleCount: 1}}}},
		{AgentEvent: &flowpb.AgentEvent{Type: flowpb.AgentEventType_IPCACHE_UPSERTED, Notification: &flowpb.AgentEvent_IpcacheUpdate{IpcacheUpdate: &flowpb.IPCacheNotification{Cidr: "10.0.0.1/32", Identity: 5, OldIdentity: wrapperspb.UInt32(4), PodName: "x\x1b"}}}},
	}
	for _, f := range []string{"compact", "dict", "table", "jsonpb"} {
		var out bytes.Buffer
		p := &printer{printOptions: printOptions{output: f, timeFormat: "StampMilli", node: true}, out: &out}
		for _, e := range events {
			e.Time, e.NodeName = timestamppb.New(noon), "node1"
			if err := p.agentEvent(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.debugEvent(&observerpb.GetDebugEventsResponse{Time: timestamppb.New(noon), NodeName: "node1", DebugEvent: &flowpb.DebugEvent{Message: "m", Cpu: wrapperspb.Int32(1), Source: &flowpb.Endpoint{ID: 3}}}); err != nil {
			t.Fatal(err)
		}
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
		golden(t, "events-"+f, out.String())
	}
}

// TestCVE_2025_48056_TerminalEscapes: whatever text a workload can choose, no format lets a terminal act upon it.
func TestCVE_2025_48056_TerminalEscapes(t *testing.T) {
	c := score.Start(t, "CVE-2025-48056", "terminal escapes in every text of a flow, in every output format")
	shown := 0
	const evil = "a\x1b]0;owned\x07\u009b31m\u202eb\nc\tREDIRECTED"
	f := tcpFlow(flowpb.Verdict_DROPPED, 1, 133, wrapperspb.Bool(false))
	f.Source = &flowpb.Endpoint{PodName: evil, Namespace: evil, Labels: []string{evil}}
	f.Destination, f.DestinationNames = &flowpb.Endpoint{}, []string{evil}
	f.Summary = evil
	f.IngressDeniedBy = []*flowpb.Policy{{Name: evil, Namespace: evil, Kind: evil}}
	dns := tcpFlow(flowpb.Verdict_FORWARDED, 129, 0, nil)
	dns.Summary = ""
	dns.L7 = &flowpb.Layer7{Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: evil, ObservationSource: evil, Cnames: []string{evil}, Ips: []string{evil}}}, Type: 2}
	svc := tcpFlow(flowpb.Verdict_FORWARDED, 4, 0, nil)
	svc.Source, svc.SourceService, svc.IP.Destination, svc.Destination = nil, &flowpb.Service{Name: evil}, evil, nil
	for _, format := range formats {
		for _, numeric := range []bool{false, true} {
			var out, errs bytes.Buffer
			p := &printer{printOptions: printOptions{output: format, timeFormat: "StampMilli", translate: true, node: true, policies: true, numeric: numeric}, out: &out, err: &errs}
			for _, one := range []*flowpb.Flow{f, dns, svc} {
				r := res(0, one)
				r.NodeName, one.NodeName = evil, evil
				if err := p.response(r); err != nil {
					t.Fatal(err)
				}
				shown++
			}
			if err := p.close(); err != nil {
				t.Fatal(err)
			}
			for _, r := range out.String() + errs.String() {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Fatalf("-o %s: %q in the output:\n%q", format, r, out.String())
				}
			}
			if lines := strings.Count(out.String(), "\n"); format == "compact" && lines != 3 {
				t.Errorf("-o compact: %d lines for 3 flows:\n%s", lines, out.String())
			}
			if format != "json" && format != "jsonpb" && !strings.Contains(out.String(), escape.Text(evil)) {
				t.Errorf("-o %s does not show what there was:\n%s", format, out.String())
			}
		}
	}
	c.Count(shown, "flows")
	c.Say("printed in %d formats, 0 characters that a terminal obeys", len(formats))
}

func TestPaint(t *testing.T) {
	for _, c := range []struct {
		mode string
		want bool
	}{{"auto", false}, {"never", false}, {"always", true}} {
		if got := newEnv().paint(c.mode, &bytes.Buffer{}); got != c.want {
			t.Errorf("%s into a file: %v", c.mode, got)
		}
	}
}
