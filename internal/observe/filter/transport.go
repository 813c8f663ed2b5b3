package filter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

func transport(b *builder) {
	f := b.f
	anyOf(b, "protocol", f.GetProtocol(), protocol, func(f *flowpb.Flow) *flowpb.Flow { return f })
	anyOf(b, "source_port", f.GetSourcePort(), port, func(f *flowpb.Flow) int { p, _ := Ports(f); return p })
	anyOf(b, "destination_port", f.GetDestinationPort(), port, func(f *flowpb.Flow) int { _, p := Ports(f); return p })
	anyOf(b, "tcp_flags", f.GetTcpFlags(), tcpFlags, func(f *flowpb.Flow) *flowpb.TCPFlags { return f.GetL4().GetTCP().GetFlags() })
}

// Ports are the ports of a flow, -1 where its protocol has none.
func Ports(f *flowpb.Flow) (source, destination int) {
	switch p := f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return int(p.TCP.GetSourcePort()), int(p.TCP.GetDestinationPort())
	case *flowpb.Layer4_UDP:
		return int(p.UDP.GetSourcePort()), int(p.UDP.GetDestinationPort())
	case *flowpb.Layer4_SCTP:
		return int(p.SCTP.GetSourcePort()), int(p.SCTP.GetDestinationPort())
	}
	return -1, -1
}

// Protocols are the names that the protocol field knows.
func Protocols() []string {
	return []string{"dns", "http", "icmp", "icmpv4", "icmpv6", "igmp", "kafka", "sctp", "tcp", "udp", "vrrp"}
}

func protocol(s string) (func(*flowpb.Flow) bool, error) {
	s = strings.ToLower(s)
	if !slices.Contains(Protocols(), s) {
		return nil, fmt.Errorf("no such protocol; known are %s", strings.Join(Protocols(), ", "))
	}
	return func(f *flowpb.Flow) bool {
		l4, l7 := f.GetL4(), f.GetL7()
		switch s {
		case "tcp":
			return l4.GetTCP() != nil
		case "udp":
			return l4.GetUDP() != nil
		case "sctp":
			return l4.GetSCTP() != nil
		case "icmp":
			return l4.GetICMPv4() != nil || l4.GetICMPv6() != nil
		case "icmpv4":
			return l4.GetICMPv4() != nil
		case "icmpv6":
			return l4.GetICMPv6() != nil
		case "vrrp":
			return l4.GetVRRP() != nil
		case "igmp":
			return l4.GetIGMP() != nil
		case "dns":
			return l7.GetDns() != nil
		case "http":
			return l7.GetHttp() != nil
		}
		_, kafka := l7.GetRecord().(*flowpb.Layer7_Kafka)
		return kafka
	}, nil
}

// port matches a port, or a range written "low-high".
func port(s string) (func(int) bool, error) {
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	l, err1 := strconv.ParseUint(lo, 10, 16)
	h, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || l > h {
		return nil, errors.New("want a port from 0 to 65535, or a range such as 8000-8080")
	}
	return func(p int) bool { return p >= int(l) && p <= int(h) }, nil
}

// tcpFlags matches packets that have at least the given flags.
func tcpFlags(want *flowpb.TCPFlags) (func(*flowpb.TCPFlags) bool, error) {
	return func(have *flowpb.TCPFlags) bool {
		if have == nil {
			return false
		}
		return (!want.GetFIN() || have.GetFIN()) && (!want.GetSYN() || have.GetSYN()) && (!want.GetRST() || have.GetRST()) &&
			(!want.GetPSH() || have.GetPSH()) && (!want.GetACK() || have.GetACK()) && (!want.GetURG() || have.GetURG()) &&
			(!want.GetECE() || have.GetECE()) && (!want.GetCWR() || have.GetCWR()) && (!want.GetNS() || have.GetNS())
	}, nil
}
