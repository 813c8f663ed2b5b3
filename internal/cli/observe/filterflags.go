package observe

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/filter"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// flags declares all filter flags.
func (s *filters) flags(f *pflag.FlagSet) {
	f.VarPF(&value{kind: "bool", set: func(v string) error {
		on, err := strconv.ParseBool(v)
		s.not = on
		return err
	}}, "not", "", "negate the next filter").NoOptDefVal = "true"
	f.BoolVarP(&s.allNS, "all-namespaces", "A", false, "names without a namespace are of any, not of \"default\"")
	s.named(f, "pod", "", "[ns/]name", "pod whose name begins so", func(g *group) *[3][]string { return &g.pods })
	s.named(f, "namespace", "n", "name", "namespace", func(g *group) *[3][]string { return &g.namespaces })
	s.named(f, "service", "", "[ns/]name", "service whose name begins so", func(g *group) *[3][]string { return &g.services })
	s.twin(f, "label", "l", "selector", "labels, a Kubernetes selector such as app=web,tier!=db", func(v string) (*ff, *ff, error) {
		return &ff{SourceLabel: []string{v}}, &ff{DestinationLabel: []string{v}}, nil
	})
	s.twin(f, "ip", "", "address", "IP address or CIDR", func(v string) (*ff, *ff, error) {
		return &ff{SourceIp: []string{v}}, &ff{DestinationIp: []string{v}}, nil
	})
	s.twin(f, "port", "", "port", "port, or a range such as 8000-8080", func(v string) (*ff, *ff, error) {
		return &ff{SourcePort: []string{v}}, &ff{DestinationPort: []string{v}}, nil
	})
	s.twin(f, "workload", "", "[kind/]name", "workload", func(v string) (*ff, *ff, error) {
		kind, name, ok := strings.Cut(v, "/")
		if !ok {
			kind, name = "", v
		}
		w := []*flowpb.Workload{{Kind: kind, Name: name}}
		return &ff{SourceWorkload: w}, &ff{DestinationWorkload: w}, nil
	})
	s.twin(f, "identity", "", "identity", "security identity, a number or a reserved name such as world", func(v string) (*ff, *ff, error) {
		id, err := identity(v)
		return &ff{SourceIdentity: []uint32{id}}, &ff{DestinationIdentity: []uint32{id}}, err
	})
	s.twin(f, "fqdn", "", "name", "DNS name, in which * stands for any text", func(v string) (*ff, *ff, error) {
		return &ff{SourceFqdn: []string{v}}, &ff{DestinationFqdn: []string{v}}, nil
	})
	s.twin(f, "cluster", "", "name", "name of the cluster", func(v string) (*ff, *ff, error) {
		return &ff{SourceClusterName: []string{v}}, &ff{DestinationClusterName: []string{v}}, nil
	})
	s.event(f)
	s.packet(f)
	s.application(f)
	s.raw(f)
}

func identity(v string) (uint32, error) {
	if id, ok := model.ReservedID(strings.TrimPrefix(v, "reserved:")); ok {
		return uint32(id), nil
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, errors.New("want a number, or the name of a reserved identity such as host, world, remote-node")
	}
	return uint32(n), nil
}

func (s *filters) event(f *pflag.FlagSet) {
	s.plain(f, "type", "t", "type[:sub]", "kind of event: "+strings.Join(flowtext.EventTypes(), ", ")+"; with a trace point such as trace:to-endpoint, or a drop reason", func(v string) (*ff, error) {
		out := &ff{}
		for one := range strings.SplitSeq(v, ",") {
			t, err := eventType(one)
			if err != nil {
				return nil, err
			}
			out.EventType = append(out.EventType, t)
		}
		return out, nil
	})
	s.plain(f, "verdict", "", "verdict", "what became of it: "+enums(flowpb.Verdict_name), func(v string) (*ff, error) {
		ns, err := enum(v, flowpb.Verdict_value, flowpb.Verdict_name)
		out := &ff{}
		for _, n := range ns {
			out.Verdict = append(out.Verdict, flowpb.Verdict(n))
		}
		return out, err
	})
	s.plain(f, "drop-reason-desc", "", "reason", "why it was dropped, such as POLICY_DENIED", func(v string) (*ff, error) {
		ns, err := enum(v, flowpb.DropReason_value, nil)
		out := &ff{}
		for _, n := range ns {
			out.DropReasonDesc = append(out.DropReasonDesc, flowpb.DropReason(n))
		}
		return out, err
	})
	s.plain(f, "traffic-direction", "", "direction", "of the connection, seen from the local workload: ingress, egress", func(v string) (*ff, error) {
		ns, err := enum(v, map[string]int32{"INGRESS": 1, "EGRESS": 2}, map[int32]string{1: "ingress", 2: "egress"})
		out := &ff{}
		for _, n := range ns {
			out.TrafficDirection = append(out.TrafficDirection, flowpb.TrafficDirection(n))
		}
		return out, err
	})
	s.plain(f, "node-name", "", "[cluster/]node", "node that saw it, * stands for any text", func(v string) (*ff, error) { return &ff{NodeName: []string{v}}, nil })
	s.plain(f, "node-label", "", "selector", "labels of the node that saw it", func(v string) (*ff, error) { return &ff{NodeLabels: []string{v}}, nil })
	s.plain(f, "interface", "", "device", "network device, its name or number", func(v string) (*ff, error) {
		n := &flowpb.NetworkInterface{Name: v}
		if i, err := strconv.ParseUint(v, 10, 32); err == nil {
			n = &flowpb.NetworkInterface{Index: uint32(i)}
		}
		return &ff{Interface: []*flowpb.NetworkInterface{n}}, nil
	})
	s.plain(f, "uuid", "", "uuid", "the flow with this id", func(v string) (*ff, error) { return &ff{Uuid: []string{v}}, nil })
	s.plain(f, "trace-id", "", "id", "W3C trace id", func(v string) (*ff, error) { return &ff{TraceId: []string{v}}, nil })
	s.plain(f, "ip-trace-id", "", "number", "trace id in an IP option", func(v string) (*ff, error) {
		n, err := strconv.ParseUint(v, 0, 64)
		if err != nil {
			return nil, errors.New("want a number")
		}
		return &ff{IpTraceId: []uint64{n}}, nil
	})
	s.plain(f, "cel-expression", "", "expression", "CEL expression over _flow, such as '_flow.source.identity == 2u'", func(v string) (*ff, error) {
		return &ff{Experimental: &flowpb.FlowFilter_Experimental{CelExpression: []string{v}}}, nil
	})
}

func (s *filters) packet(f *pflag.FlagSet) {
	s.plain(f, "protocol", "", "protocol", strings.Join(filter.Protocols(), ", "), func(v string) (*ff, error) {
		return &ff{Protocol: strings.Split(v, ",")}, nil
	})
	s.plain(f, "tcp-flags", "", "flags", "TCP flags that are all set, such as SYN,ACK", func(v string) (*ff, error) {
		flags, err := tcpFlags(v)
		return &ff{TcpFlags: []*flowpb.TCPFlags{flags}}, err
	})
	version := func(v string) (*ff, error) {
		switch strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(v), "ip"), "v") {
		case "4":
			return &ff{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv4}}, nil
		case "6":
			return &ff{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv6}}, nil
		}
		return nil, errors.New("want v4 or v6")
	}
	s.plain(f, "ip-version", "", "v4|v6", "IP version", version)
	s.onOff(f, "ipv4", "4", "IPv4 only", func() *ff { return &ff{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv4}} })
	s.onOff(f, "ipv6", "6", "IPv6 only", func() *ff { return &ff{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv6}} })
	s.onOff(f, "encrypted", "", "encrypted traffic only", func() *ff { return &ff{Encrypted: []bool{true}} })
	s.onOff(f, "unencrypted", "", "unencrypted traffic only", func() *ff { return &ff{Encrypted: []bool{false}} })
	s.plain(f, "snat-ip", "", "address", "source after masquerade, an IP address or CIDR", func(v string) (*ff, error) { return &ff{SourceIpXlated: []string{v}}, nil })
}

func (s *filters) application(f *pflag.FlagSet) {
	s.plain(f, "http-status", "", "code", "HTTP status, or its beginning such as 5+", func(v string) (*ff, error) { return &ff{HttpStatusCode: []string{v}}, nil })
	s.plain(f, "http-method", "", "method", "HTTP method", func(v string) (*ff, error) { return &ff{HttpMethod: []string{v}}, nil })
	s.plain(f, "http-path", "", "regexp", "HTTP path", func(v string) (*ff, error) { return &ff{HttpPath: []string{v}}, nil })
	s.plain(f, "http-url", "", "regexp", "HTTP URL", func(v string) (*ff, error) { return &ff{HttpUrl: []string{v}}, nil })
	s.plain(f, "http-header", "", "name:value", "HTTP header", func(v string) (*ff, error) {
		name, text, ok := strings.Cut(v, ":")
		if !ok {
			return nil, errors.New("want NAME:VALUE")
		}
		return &ff{HttpHeader: []*flowpb.HTTPHeader{{Key: name, Value: strings.TrimSpace(text)}}}, nil
	})
	s.plain(f, "dns-query", "", "regexp", "DNS name asked for", func(v string) (*ff, error) { return &ff{DnsQuery: []string{v}}, nil })
}

// onOff declares a flag without a value.
func (s *filters) onOff(f *pflag.FlagSet, name, short, help string, make func() *ff) {
	s.plain(f, name, short, "bool", help, func(v string) (*ff, error) {
		on, err := strconv.ParseBool(v)
		if err != nil || !on {
			return &ff{}, err
		}
		return make(), nil
	}).NoOptDefVal = "true"
}

// eventType reads "name[:sub]", each a name or a number.
func eventType(s string) (*flowpb.EventTypeFilter, error) {
	name, sub, hasSub := strings.Cut(s, ":")
	t, ok := flowtext.EventType(name)
	if !ok {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("no kind of event %q; known are %s", name, strings.Join(flowtext.EventTypes(), ", "))
		}
		t = int32(n)
	}
	out := &flowpb.EventTypeFilter{Type: t}
	if !hasSub {
		return out, nil
	}
	out.MatchSubType = true
	if n, err := strconv.ParseUint(sub, 10, 8); err == nil {
		out.SubType = int32(n)
		return out, nil
	}
	switch t {
	case flowtext.EventTrace:
		if i := slices.Index(flowtext.TracePoints(), sub); i >= 0 {
			out.SubType = int32(i)
			return out, nil
		}
		return nil, fmt.Errorf("no trace point %q; known are %s", sub, strings.Join(flowtext.TracePoints(), ", "))
	case flowtext.EventDrop:
		if n, ok := flowpb.DropReason_value[strings.ToUpper(strings.ReplaceAll(sub, "-", "_"))]; ok {
			out.SubType = n
			return out, nil
		}
		return nil, fmt.Errorf("no drop reason %q; want a number or a name such as policy_denied", sub)
	}
	return nil, fmt.Errorf("%q: want a number after the colon", s)
}

// enum reads a list of names of an enumeration, in any case; known are named in the complaint.
func enum(s string, values map[string]int32, known map[int32]string) ([]int32, error) {
	var out []int32
	for v := range strings.SplitSeq(s, ",") {
		n, ok := values[strings.ToUpper(strings.TrimSpace(v))]
		if !ok {
			if known == nil {
				return nil, fmt.Errorf("no such name: %q", v)
			}
			return nil, fmt.Errorf("no such name: %q; known are %s", v, enums(known))
		}
		out = append(out, n)
	}
	return out, nil
}

// enums lists the names of an enumeration by number, but the zero one.
func enums(names map[int32]string) string {
	var ns []int32
	for n := range names {
		if n != 0 {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	out := make([]string, len(ns))
	for i, n := range ns {
		out[i] = names[n]
	}
	return strings.Join(out, ", ")
}

func tcpFlags(s string) (*flowpb.TCPFlags, error) {
	f := &flowpb.TCPFlags{}
	bits := map[string]*bool{"FIN": &f.FIN, "SYN": &f.SYN, "RST": &f.RST, "PSH": &f.PSH, "ACK": &f.ACK, "URG": &f.URG,
		"ECE": &f.ECE, "CWR": &f.CWR, "NS": &f.NS}
	for n := range strings.SplitSeq(s, ",") {
		b, ok := bits[strings.ToUpper(strings.TrimSpace(n))]
		if !ok {
			return nil, fmt.Errorf("no TCP flag %q; known are FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, NS", n)
		}
		*b = true
	}
	return f, nil
}
