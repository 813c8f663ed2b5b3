package flowtext

import (
	"fmt"
	"strings"
	"time"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// Summary says what the packet or message is: "TCP Flags: SYN", "ICMPv4 EchoRequest", "DNS Query example.com. A".
func Summary(f *flowpb.Flow) string {
	if f.GetL7() != nil {
		return l7Summary(f.GetL7())
	}
	switch p := f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return "TCP Flags: " + TCPFlags(p.TCP.GetFlags())
	case *flowpb.Layer4_UDP:
		return "UDP"
	case *flowpb.Layer4_SCTP:
		return "SCTP"
	case *flowpb.Layer4_ICMPv4:
		return "ICMPv4 " + icmp(icmpv4, p.ICMPv4.GetType(), p.ICMPv4.GetCode())
	case *flowpb.Layer4_ICMPv6:
		return "ICMPv6 " + icmp(icmpv6, p.ICMPv6.GetType(), p.ICMPv6.GetCode())
	case *flowpb.Layer4_VRRP:
		return "VRRP"
	case *flowpb.Layer4_IGMP:
		return "IGMP"
	}
	switch f.GetIP().GetIpVersion() {
	case flowpb.IPVersion_IPv4:
		return "IPv4"
	case flowpb.IPVersion_IPv6:
		return "IPv6"
	}
	return ""
}

// TCPFlags lists the flags that are set: "SYN, ACK".
func TCPFlags(f *flowpb.TCPFlags) string {
	set := make([]string, 0, 4)
	for _, b := range []struct {
		on   bool
		name string
	}{{f.GetSYN(), "SYN"}, {f.GetACK(), "ACK"}, {f.GetRST(), "RST"}, {f.GetFIN(), "FIN"}, {f.GetPSH(), "PSH"},
		{f.GetURG(), "URG"}, {f.GetECE(), "ECE"}, {f.GetCWR(), "CWR"}, {f.GetNS(), "NS"}} {
		if b.on {
			set = append(set, b.name)
		}
	}
	return strings.Join(set, ", ")
}

// kind names a type and those of its codes that have a name.
type kind struct {
	name  string
	codes []string
}

var icmpv4 = map[uint32]kind{
	0: {"EchoReply", nil}, 3: {"DestinationUnreachable", []string{"Net", "Host", "Protocol", "Port", "FragmentationNeeded",
		"SourceRoutingFailed", "NetUnknown", "HostUnknown", "SourceIsolated", "NetAdminProhibited", "HostAdminProhibited",
		"NetTOS", "HostTOS", "CommAdminProhibited", "HostPrecedence", "PrecedenceCutoff"}},
	4: {"SourceQuench", nil}, 5: {"Redirect", []string{"Net", "Host", "TOS+Net", "TOS+Host"}}, 8: {"EchoRequest", nil},
	9: {"RouterAdvertisement", nil}, 10: {"RouterSolicitation", nil},
	11: {"TimeExceeded", []string{"TTLExceeded", "FragmentReassemblyTimeExceeded"}}, 12: {"ParameterProblem", nil},
	13: {"TimestampRequest", nil}, 14: {"TimestampReply", nil},
}

var icmpv6 = map[uint32]kind{
	1: {"DestinationUnreachable", []string{"NoRouteToDst", "AdminProhibited", "BeyondScopeOfSrc", "AddressUnreachable",
		"PortUnreachable", "SrcAddressFailedPolicy", "RejectRouteToDst"}},
	2: {"PacketTooBig", nil}, 3: {"TimeExceeded", []string{"HopLimitExceeded", "FragmentReassemblyTimeExceeded"}},
	4: {"ParameterProblem", nil}, 128: {"EchoRequest", nil}, 129: {"EchoReply", nil}, 133: {"RouterSolicitation", nil},
	134: {"RouterAdvertisement", nil}, 135: {"NeighborSolicitation", nil}, 136: {"NeighborAdvertisement", nil}, 137: {"Redirect", nil},
}

func icmp(kinds map[uint32]kind, typ, code uint32) string {
	k, ok := kinds[typ]
	switch {
	case !ok:
		return fmt.Sprintf("%d(%d)", typ, code)
	case int(code) < len(k.codes):
		return k.name + "(" + k.codes[code] + ")"
	case code != 0:
		return fmt.Sprintf("%s(%d)", k.name, code)
	}
	return k.name
}

func l7Summary(l7 *flowpb.Layer7) string {
	latency := time.Duration(l7.GetLatencyNs())
	switch r := l7.GetRecord().(type) {
	case *flowpb.Layer7_Http:
		h := r.Http
		head := h.GetProtocol()
		if head == "" {
			head = "HTTP"
		}
		if l7.GetType() == flowpb.L7FlowType_RESPONSE {
			return fmt.Sprintf("%s %d %s (%s %s)", head, h.GetCode(), ms(latency), h.GetMethod(), h.GetUrl())
		}
		return fmt.Sprintf("%s %s %s", head, h.GetMethod(), h.GetUrl())
	case *flowpb.Layer7_Dns:
		d := r.Dns
		types := strings.Join(d.GetQtypes(), ",")
		if l7.GetType() != flowpb.L7FlowType_RESPONSE {
			return fmt.Sprintf("DNS Query %s %s", d.GetQuery(), types)
		}
		if d.GetRcode() != 0 {
			return fmt.Sprintf("DNS Answer RCode: %s TTL: %d (%s %s %s)", rcode(d.GetRcode()), d.GetTtl(), "Query", d.GetQuery(), types)
		}
		var parts []string
		if len(d.GetIps()) > 0 {
			parts = append(parts, fmt.Sprintf("%q", strings.Join(d.GetIps(), ",")))
		}
		if len(d.GetCnames()) > 0 {
			parts = append(parts, fmt.Sprintf("CNAMEs: %q", strings.Join(d.GetCnames(), ",")))
		}
		parts = append(parts, fmt.Sprintf("TTL: %d", d.GetTtl()))
		return fmt.Sprintf("DNS Answer %s (Query %s %s)", strings.Join(parts, " "), d.GetQuery(), types)
	case *flowpb.Layer7_Kafka:
		k := r.Kafka
		if l7.GetType() == flowpb.L7FlowType_RESPONSE {
			return fmt.Sprintf("Kafka response %s error %d topic '%s' (%s)", k.GetApiKey(), k.GetErrorCode(), k.GetTopic(), ms(latency))
		}
		return fmt.Sprintf("Kafka request %s correlation id %d topic '%s'", k.GetApiKey(), k.GetCorrelationId(), k.GetTopic())
	}
	return ""
}

func ms(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// Names of RFC 1035 section 4.1.1.
var rcodes = [...]string{"NoError", "Format Error", "Server Failure", "Non-Existent Domain", "Not Implemented", "Query Refused"}

func rcode(n uint32) string {
	if int64(n) < int64(len(rcodes)) {
		return rcodes[n]
	}
	return fmt.Sprintf("%d", n)
}

// Protocol names the transport, or the IP version where there is none.
func Protocol(f *flowpb.Flow) string {
	switch f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return "TCP"
	case *flowpb.Layer4_UDP:
		return "UDP"
	case *flowpb.Layer4_SCTP:
		return "SCTP"
	case *flowpb.Layer4_ICMPv4:
		return "ICMPv4"
	case *flowpb.Layer4_ICMPv6:
		return "ICMPv6"
	case *flowpb.Layer4_VRRP:
		return "VRRP"
	case *flowpb.Layer4_IGMP:
		return "IGMP"
	}
	if v := f.GetIP().GetIpVersion(); v != flowpb.IPVersion_IP_NOT_USED {
		return v.String()
	}
	return "Unknown"
}
