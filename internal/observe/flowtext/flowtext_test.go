package flowtext

import (
	"strings"
	"testing"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

func TestDropReason(t *testing.T) {
	for r, want := range map[flowpb.DropReason]string{
		132: "Invalid source ip", 133: "Policy denied", 181: "Policy denied by denylist", 151: "Stale or unroutable IP",
		155: "CT: Map insertion failed", 137: "CT: Unknown L4 protocol", 165: "No configuration available to perform policy decision",
		170: "Encapsulation traffic is prohibited", 171: "Invalid identity", 172: "Unknown sender",
		175: "First logical datagram fragment not found", 189: "Auth required", 196: "TTL exceeded", 0: "unknown", 255: "255",
		176: "Forbidden ICMPv6 message", 167: "No mapping for NAT masquerade", 169: "FIB lookup failed",
	} {
		if got := DropReason(r); got != want {
			t.Errorf("DropReason(%d) = %q, want %q", r, got, want)
		}
	}
	for n := range flowpb.DropReason_name {
		if got := DropReason(flowpb.DropReason(n)); got == "" || strings.Contains(got, "_") {
			t.Errorf("DropReason(%d) = %q", n, got)
		}
	}
}

func TestTypeAndVerdict(t *testing.T) {
	event := func(typ, sub int32) *flowpb.CiliumEventType { return &flowpb.CiliumEventType{Type: typ, SubType: sub} }
	for _, c := range []struct {
		f             *flowpb.Flow
		kind, verdict string
	}{
		{&flowpb.Flow{EventType: event(4, 0), Verdict: flowpb.Verdict_FORWARDED}, "to-endpoint", "FORWARDED"},
		{&flowpb.Flow{EventType: event(4, 11), Verdict: flowpb.Verdict_FORWARDED}, "to-network", "FORWARDED"},
		{&flowpb.Flow{EventType: event(4, 99)}, "99", "VERDICT_UNKNOWN"},
		{&flowpb.Flow{EventType: event(1, 133), DropReasonDesc: 133, Verdict: flowpb.Verdict_DROPPED}, "Policy denied", "DROPPED"},
		{&flowpb.Flow{EventType: event(5, 0), PolicyMatchType: 1, TrafficDirection: 2, Verdict: flowpb.Verdict_FORWARDED}, "policy-verdict:L3-Only EGRESS", "ALLOWED"},
		{&flowpb.Flow{EventType: event(5, 0), PolicyMatchType: 2, TrafficDirection: 1, Verdict: flowpb.Verdict_REDIRECTED}, "policy-verdict:L3-L4 INGRESS", "REDIRECTED"},
		{&flowpb.Flow{EventType: event(5, 0), TrafficDirection: 1, Verdict: flowpb.Verdict_DROPPED}, "policy-verdict:none INGRESS", "DENIED"},
		{&flowpb.Flow{EventType: event(5, 0), TrafficDirection: 1, Verdict: flowpb.Verdict_AUDIT}, "policy-verdict:none INGRESS", "AUDITED"},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 1, Record: &flowpb.Layer7_Http{}}}, "http-request", "VERDICT_UNKNOWN"},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 2, Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{ObservationSource: "proxy"}}}}, "dns-response proxy", "VERDICT_UNKNOWN"},
		{&flowpb.Flow{}, "UNKNOWN", "VERDICT_UNKNOWN"},
	} {
		if got := Type(c.f); got != c.kind {
			t.Errorf("Type = %q, want %q", got, c.kind)
		}
		if got := Verdict(c.f); got != c.verdict {
			t.Errorf("%s: Verdict = %q, want %q", c.kind, got, c.verdict)
		}
	}
}

func TestSummary(t *testing.T) {
	l4 := func(l *flowpb.Layer4) *flowpb.Flow { return &flowpb.Flow{L4: l} }
	for _, c := range []struct {
		f    *flowpb.Flow
		want string
	}{
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{Flags: &flowpb.TCPFlags{SYN: true, ACK: true}}}}), "TCP Flags: SYN, ACK"},
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{}}), "UDP"},
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 8}}}), "ICMPv4 EchoRequest"},
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 3, Code: 3}}}), "ICMPv4 DestinationUnreachable(Port)"},
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 200, Code: 3}}}), "ICMPv4 200(3)"},
		{l4(&flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: 135}}}), "ICMPv6 NeighborSolicitation"},
		{&flowpb.Flow{IP: &flowpb.IP{IpVersion: flowpb.IPVersion_IPv6}}, "IPv6"},
		{&flowpb.Flow{}, ""},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 1, Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Method: "GET", Url: "http://a/", Protocol: "HTTP/1.1"}}}}, "HTTP/1.1 GET http://a/"},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 2, LatencyNs: 2e6, Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Code: 200, Method: "GET", Url: "http://a/", Protocol: "HTTP/1.1"}}}}, "HTTP/1.1 200 2ms (GET http://a/)"},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 1, Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: "a.", Qtypes: []string{"A"}}}}}, "DNS Query a. A"},
		{&flowpb.Flow{L7: &flowpb.Layer7{Type: 2, Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: "a.", Qtypes: []string{"A"}, Ips: []string{"1.2.3.4"}, Ttl: 5}}}}, `DNS Answer "1.2.3.4" TTL: 5 (Query a. A)`},
	} {
		if got := Summary(c.f); got != c.want {
			t.Errorf("Summary = %q, want %q", got, c.want)
		}
	}
}
