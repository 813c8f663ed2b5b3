package monitor

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// Field is one named value of an event.
type Field struct{ Name, Value string }

// TypeName is "drop", "trace" or "policy-verdict".
func TypeName(e *model.Event) string {
	for n, t := range types {
		if t == e.Type {
			return n
		}
	}
	return fmt.Sprintf("type-%d", e.Type)
}

// Summary is the line for one event, in the words the field knows.
func Summary(e *model.Event, link func(ifindex uint32) string) string {
	flow := fmt.Sprintf("%s -> %s %s", end(e.Src, e.SrcPort, e), end(e.Dst, e.DstPort, e), Protocol(e))
	who := fmt.Sprintf("identity %d->%d", uint32(e.SrcIdentity), uint32(e.DstIdentity))
	switch e.Type {
	case model.EventDrop:
		return fmt.Sprintf("xx drop (%s) to endpoint %d, ifindex %s, line %d, rule %d, %s: %s",
			DropReason(e.Code), e.DstEndpoint, link(e.IfIndex), e.Line, e.Rule, who, flow)
	case model.EventPolicyVerdict:
		local, remote := e.DstEndpoint, e.SrcIdentity
		if e.Flags&model.EventEgress != 0 {
			local, remote = e.SrcEndpoint, e.DstIdentity
		}
		return fmt.Sprintf("Policy verdict log: local EP ID %d, remote ID %d, proto %d, %s, action %s, match %s, rule %d, %s",
			local, uint32(remote), e.Proto, Direction(e), Verdict(e), flowtext.MatchType(uint32(e.Reason)), e.Rule, flow)
	default:
		to := ""
		if e.DstEndpoint != 0 {
			to = fmt.Sprintf(" %d", e.DstEndpoint)
		}
		return fmt.Sprintf("-> %s%s, %s state %s ifindex %s: %s", flowtext.TracePoint(int32(e.Code)), to, who, Reason(e.Reason), link(e.IfIndex), flow)
	}
}

// Fields are all the values of an event, in display order; empty ones are left out.
func Fields(e *model.Event, link func(ifindex uint32) string) []Field {
	fs := []Field{{"type", TypeName(e)}, {"cpu", strconv.Itoa(e.CPU)}}
	add := func(name, value string) {
		if value != "" && value != "0" {
			fs = append(fs, Field{name, value})
		}
	}
	num := func(n uint64) string { return strconv.FormatUint(n, 10) }
	switch e.Type {
	case model.EventDrop:
		add("reason", DropReason(e.Code))
		add("line", num(uint64(e.Line)))
	case model.EventTrace:
		add("point", flowtext.TracePoint(int32(e.Code)))
		add("state", Reason(e.Reason))
	case model.EventPolicyVerdict:
		add("verdict", Verdict(e))
		add("match", flowtext.MatchType(uint32(e.Reason)))
	}
	add("direction", Direction(e))
	if e.Flags&model.EventReplyKnown != 0 {
		add("reply", strconv.FormatBool(e.Flags&model.EventReply != 0))
	}
	add("source", addr(e.Src))
	add("destination", addr(e.Dst))
	add("protocol", Protocol(e))
	if e.Flags&model.EventL4 != 0 {
		add("source-port", num(uint64(e.SrcPort)))
		add("destination-port", num(uint64(e.DstPort)))
	}
	add("source-identity", num(uint64(e.SrcIdentity)))
	add("destination-identity", num(uint64(e.DstIdentity)))
	add("source-endpoint", num(uint64(e.SrcEndpoint)))
	add("destination-endpoint", num(uint64(e.DstEndpoint)))
	add("rule", num(uint64(e.Rule)))
	add("translated-source", addr(e.Xlated))
	if e.Socket == 0 && e.Front.IsValid() {
		add("service", e.Front.String())
	}
	add("tunnel-peer", addr(e.Tunnel))
	add("vni", num(uint64(e.VNI)))
	add("interface", link(e.IfIndex))
	add("length", num(uint64(e.Len)))
	add("source-mac", mac(e.SrcMAC))
	add("destination-mac", mac(e.DstMAC))
	return fs
}

func mac(m [6]byte) string {
	if m == ([6]byte{}) {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func end(a netip.Addr, port uint16, e *model.Event) string {
	switch {
	case !a.IsValid():
		return "?"
	case e.Flags&model.EventL4 == 0 || e.Proto == 1 || e.Proto == 58:
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// DropReason is the sentence for a drop reason, "Policy denied" for 133.
func DropReason(code uint8) string { return flowtext.DropReason(flowpb.DropReason(code)) }

// Protocol names the L4 protocol, with the TCP flags or the ICMP type and code.
func Protocol(e *model.Event) string {
	switch e.Proto {
	case 6:
		var on []string
		for i, f := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
			if e.TCPFlags&(1<<i) != 0 {
				on = append(on, f)
			}
		}
		return strings.TrimSpace("tcp " + strings.Join(on, ", "))
	case 17:
		return "udp"
	case 132:
		return "sctp"
	case 1, 58:
		name := "icmp"
		if e.Proto == 58 {
			name = "icmpv6"
		}
		return fmt.Sprintf("%s type %d code %d", name, e.SrcPort, e.DstPort)
	case 0:
		return fmt.Sprintf("ethertype %#04x", e.EthProto)
	}
	return fmt.Sprintf("protocol %d", e.Proto)
}

// Direction is "ingress", "egress" or "unknown".
func Direction(e *model.Event) string {
	switch {
	case e.Flags&model.EventIngress != 0:
		return "ingress"
	case e.Flags&model.EventEgress != 0:
		return "egress"
	}
	return "unknown"
}

// Verdict is "allow", "deny", "audit" or "redirect".
func Verdict(e *model.Event) string {
	if e.Flags&model.EventAudit != 0 {
		return "audit"
	}
	switch e.Code &^ model.VerdictAudit {
	case model.VerdictAllow:
		return "allow"
	case model.VerdictRedirect:
		return "redirect"
	case model.VerdictAuth:
		return "auth"
	}
	return "deny"
}

var reasons = [...]string{"unknown", "new", "established", "reply", "related", "reopened"}

// Reason is the connection's state in a trace event.
func Reason(r uint8) string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return strconv.Itoa(int(r))
}
