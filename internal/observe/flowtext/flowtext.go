// Package flowtext says in the field's own words what a flow is: event types, trace points, drop reasons, policy match
// types, verdicts, a one-line summary. Text that comes from workloads is passed through as it is: who prints it on a
// terminal escapes it.
package flowtext

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// Event types of the flow API (CiliumEventType.type).
const (
	EventDrop          = 1
	EventDebug         = 2
	EventCapture       = 3
	EventTrace         = 4
	EventPolicyVerdict = 5
	EventRecorder      = 6
	EventSock          = 7
	EventAccessLog     = 129
	EventAgent         = 130
)

var eventNames = map[string]int32{
	"drop": EventDrop, "debug": EventDebug, "capture": EventCapture, "trace": EventTrace,
	"policy-verdict": EventPolicyVerdict, "recorder": EventRecorder, "trace-sock": EventSock, "l7": EventAccessLog,
	"agent": EventAgent,
}

// EventTypes are the names of event types, sorted.
func EventTypes() []string { return slices.Sorted(maps.Keys(eventNames)) }

// EventType is the number of a name.
func EventType(name string) (int32, bool) { n, ok := eventNames[name]; return n, ok }

// EventName is the name of a number.
func EventName(n int32) string {
	for name, v := range eventNames {
		if v == n {
			return name
		}
	}
	return fmt.Sprintf("%d", n)
}

var points = [...]string{"to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy",
	"from-host", "from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto"}

// TracePoints are the names of trace points, by their datapath number.
func TracePoints() []string { return points[:] }

// TracePoint is the name of a datapath trace point.
func TracePoint(n int32) string {
	if n >= 0 && int(n) < len(points) {
		return points[n]
	}
	return fmt.Sprintf("%d", n)
}

// ObservationPoint is the API's value for a datapath trace point: the same, but 101 for 0.
func ObservationPoint(n uint8) flowpb.TraceObservationPoint {
	if n == 0 {
		return flowpb.TraceObservationPoint_TO_ENDPOINT
	}
	return flowpb.TraceObservationPoint(n)
}

var matchTypes = [...]string{"none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only"}

// MatchType names a policy match type.
func MatchType(n uint32) string {
	if int64(n) < int64(len(matchTypes)) {
		return matchTypes[n]
	}
	return fmt.Sprintf("unknown (%d)", n)
}

// Words of drop reasons that are not written in lower case.
var acronyms = map[string]string{
	"ct": "CT:", "l2": "L2", "l3": "L3", "l4": "L4", "icmpv4": "ICMPv4", "icmpv6": "ICMPv6", "ipv6": "IPv6", "ip": "IP",
	"nat": "NAT", "snat": "SNAT", "fib": "FIB", "edt": "EDT", "vni": "VNI", "vlan": "VLAN", "tc": "TC", "ttl": "TTL", "id": "ID",
	"tcp": "TCP", "ack": "ACK", "lb": "LB", "dsr": "DSR", "sid": "SID", "clusterip": "ClusterIP", "igmp": "IGMP", "src": "source",
	"nat46": "NAT46", "nat64": "NAT64", "ep": "endpoint", "proxymap": "proxy map",
}

// Reasons whose sentence is not that of their enum name.
var dropTexts = map[flowpb.DropReason]string{
	flowpb.DropReason_DROP_REASON_UNKNOWN:                "unknown",
	flowpb.DropReason_INVALID_SOURCE_MAC:                 "Invalid source mac",
	flowpb.DropReason_INVALID_DESTINATION_MAC:            "Invalid destination mac",
	flowpb.DropReason_INVALID_SOURCE_IP:                  "Invalid source ip",
	flowpb.DropReason_INVALID_PACKET_DROPPED:             "Invalid packet",
	flowpb.DropReason_CT_CANNOT_CREATE_ENTRY_FROM_PACKET: "CT: Can't create entry from packet",
	flowpb.DropReason_ERROR_WHILE_CORRECTING_L3_CHECKSUM: "Error while correcting L3 checksum",
	flowpb.DropReason_POLICY_DENY:                        "Policy denied by denylist",
	flowpb.DropReason_IS_A_CLUSTERIP:                     "Is a ClusterIP",
	flowpb.DropReason_DROP_HOST_NOT_READY:                "Host datapath not ready",
	flowpb.DropReason_DROP_EP_NOT_READY:                  "Endpoint policy program not available",
	flowpb.DropReason_DROP_NO_EGRESS_IP:                  "No Egress IP configured",
	flowpb.DropReason_DROP_RATE_LIMITED:                  "Rate limited",
	flowpb.DropReason_DROP_PUNT_PROXY:                    "Punt to proxy",
}

// DropReason is the sentence for a drop reason, such as "Policy denied".
func DropReason(r flowpb.DropReason) string {
	if t, ok := dropTexts[r]; ok {
		return t
	}
	name, ok := flowpb.DropReason_name[int32(r)]
	if !ok {
		return fmt.Sprintf("%d", int32(r))
	}
	words := strings.Split(strings.ToLower(name), "_")
	for i, w := range words {
		if a, ok := acronyms[w]; ok {
			words[i] = a
		} else if i == 0 || words[i-1] == "CT:" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, " ")
}

// Type is what kind of event a flow was: a trace point, a drop reason, "policy-verdict:L3-Only EGRESS", "http-request".
func Type(f *flowpb.Flow) string {
	if l7 := f.GetL7(); l7 != nil {
		return l7Type(l7)
	}
	et := f.GetEventType()
	switch et.GetType() {
	case EventTrace:
		return TracePoint(et.GetSubType())
	case EventDrop:
		return DropReason(f.GetDropReasonDesc())
	case EventPolicyVerdict:
		match := "none"
		if f.GetVerdict() == flowpb.Verdict_FORWARDED || f.GetVerdict() == flowpb.Verdict_REDIRECTED || f.GetPolicyMatchType() != 0 {
			match = MatchType(f.GetPolicyMatchType())
		}
		return strings.TrimSpace("policy-verdict:" + match + " " + Direction(f.GetTrafficDirection()))
	case EventCapture:
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(f.GetDebugCapturePoint().String(), "DBG_CAPTURE_"), "_", "-"))
	case EventSock:
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(f.GetSockXlatePoint().String(), "SOCK_XLATE_POINT_"), "_", "-"))
	}
	return "UNKNOWN"
}

func l7Type(l7 *flowpb.Layer7) string {
	kind := strings.ToLower(l7.GetType().String())
	switch r := l7.GetRecord().(type) {
	case *flowpb.Layer7_Http:
		return "http-" + kind
	case *flowpb.Layer7_Dns:
		return strings.TrimSpace("dns-" + kind + " " + r.Dns.GetObservationSource())
	case *flowpb.Layer7_Kafka:
		return "kafka-" + kind
	}
	return "l7-" + kind
}

// Direction is INGRESS, EGRESS or nothing.
func Direction(d flowpb.TrafficDirection) string {
	if d == flowpb.TrafficDirection_TRAFFIC_DIRECTION_UNKNOWN {
		return ""
	}
	return d.String()
}

// Verdict is the verdict as people know it: ALLOWED, DENIED and AUDITED where policy was asked, else the API's name.
func Verdict(f *flowpb.Flow) string {
	if f.GetEventType().GetType() == EventPolicyVerdict {
		switch f.GetVerdict() {
		case flowpb.Verdict_FORWARDED:
			return "ALLOWED"
		case flowpb.Verdict_DROPPED:
			return "DENIED"
		case flowpb.Verdict_AUDIT:
			return "AUDITED"
		}
	}
	return f.GetVerdict().String()
}
