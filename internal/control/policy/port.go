package policy

import (
	"fmt"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

const (
	protoTCP    = 6
	protoUDP    = 17
	protoSCTP   = 132
	protoICMP   = 1
	protoICMPv6 = 58
	portMax     = 65535
)

// portSpec is a range of ports of one protocol (ICMP: of types), or a named port.
type portSpec struct {
	proto  uint8
	lo, hi uint16
	name   string // lower case; then lo and hi are unset
}

// portSpecs of a member; limited is false when it has neither ports nor ICMP types, which means every protocol.
func portSpecs(ports []v2.PortRule, icmps []v2.ICMPRule) (out []portSpec, limited bool, err error) {
	if ports == nil && icmps == nil {
		return nil, false, nil
	}
	out = []portSpec{}
	for _, r := range ports {
		for _, p := range r.Ports {
			specs, err := portSpecsOf(p)
			if err != nil {
				return nil, true, err
			}
			out = append(out, specs...)
		}
	}
	for _, r := range icmps {
		for _, f := range r.Fields {
			if f.Type == nil {
				return nil, true, fmt.Errorf("icmps: no type")
			}
			t, ok := f.Type.Resolve(f.Family)
			if !ok {
				return nil, true, fmt.Errorf("icmps: unknown type %q", f.Type.Name)
			}
			s := portSpec{proto: protoICMP, lo: uint16(t), hi: uint16(t)}
			if f.Family == v2.FamilyIPv6 {
				s.proto = protoICMPv6
			}
			out = append(out, s)
		}
	}
	return out, true, nil
}

func portSpecsOf(p v2.PortProtocol) ([]portSpec, error) {
	protos, ok := p.Protocols()
	if !ok {
		return nil, fmt.Errorf("unknown protocol %q", p.Protocol)
	}
	n, named, err := p.Number()
	if err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	s := portSpec{lo: n, hi: n}
	switch {
	case named:
		s = portSpec{name: strings.ToLower(p.Port)}
	case n == 0:
		s.hi = portMax
	case p.EndPort != 0:
		if p.EndPort < int32(n) || p.EndPort > portMax {
			return nil, fmt.Errorf("port range %d..%d", n, p.EndPort)
		}
		s.hi = uint16(p.EndPort)
	}
	out := make([]portSpec, len(protos))
	for i, proto := range protos {
		s.proto = proto
		out[i] = s
	}
	return out, nil
}

// resolve is what a spec means for a workload with these named ports: itself, or the ports of that name and protocol.
func (s portSpec) resolve(named []model.NamedPort, yield func(proto uint8, lo, hi uint16)) {
	if s.name == "" {
		yield(s.proto, s.lo, s.hi)
		return
	}
	for _, n := range named {
		if n.Proto == s.proto && strings.EqualFold(n.Name, s.name) {
			yield(s.proto, n.Port, n.Port)
		}
	}
}
