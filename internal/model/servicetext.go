package model

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// IP protocols that services are made of.
const (
	ProtoTCP  = 6
	ProtoUDP  = 17
	ProtoSCTP = 132
)

var serviceProtos = map[string]uint8{"TCP": ProtoTCP, "UDP": ProtoUDP, "SCTP": ProtoSCTP}

// ParseServiceProto reads a protocol by name, in any case.
func ParseServiceProto(s string) (uint8, error) {
	if p, ok := serviceProtos[strings.ToUpper(s)]; ok {
		return p, nil
	}
	return 0, fmt.Errorf("protocol %q: want TCP, UDP or SCTP", s)
}

// ServiceProtoName is a protocol's name, or its number where a service cannot have it.
func ServiceProtoName(p uint8) string {
	for name, n := range serviceProtos {
		if n == p {
			return name
		}
	}
	return strconv.Itoa(int(p))
}

// ParseAddress reads "10.0.0.1:80", "[fd00::1]:80", either with "/UDP" behind it; without one the protocol is proto.
func ParseAddress(s string, proto uint8) (netip.AddrPort, uint8, error) {
	addr, name, has := strings.Cut(s, "/")
	if has {
		p, err := ParseServiceProto(name)
		if err != nil {
			return netip.AddrPort{}, 0, fmt.Errorf("%q: %w", s, err)
		}
		proto = p
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("%q is no address with a port: want 10.0.0.1:80 or [fd00::1]:80, /UDP behind it for another protocol", s)
	}
	if ap.Addr().Zone() != "" {
		return netip.AddrPort{}, 0, fmt.Errorf("%q: an address with a zone means something on one machine only", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), proto, nil
}

// ParseFrontend reads an address as ParseAddress does, "/i" behind it for the internal scope.
func ParseFrontend(s string, proto uint8) (Frontend, error) {
	rest, internal := strings.CutSuffix(s, "/i")
	ap, proto, err := ParseAddress(rest, proto)
	f := Frontend{Addr: ap.Addr(), Port: ap.Port(), Proto: proto}
	if internal {
		f.Scope = ScopeInternal
	}
	return f, err
}

// String is the frontend as people write it: 10.0.0.1:80/TCP, /i behind it for the internal scope.
func (f Frontend) String() string {
	s := netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + ServiceProtoName(f.Proto)
	if f.Scope == ScopeInternal {
		s += "/i"
	}
	return s
}

// String is the backend as people write it: 10.1.0.1:80/TCP.
func (b Backend) String() string {
	return netip.AddrPortFrom(b.Addr, b.Port).String() + "/" + ServiceProtoName(b.Proto)
}

// ParseServiceType reads a type by its name, in any case.
func ParseServiceType(s string) (ServiceType, error) {
	for i, n := range serviceTypeNames {
		if strings.EqualFold(s, n) {
			return ServiceType(i), nil
		}
	}
	return 0, fmt.Errorf("service type %q: want one of %s", s, strings.Join(serviceTypeNames[:], ", "))
}

// ParseBackendState reads a state by its name, in any case.
func ParseBackendState(s string) (BackendState, error) {
	for i, n := range backendStateNames {
		if strings.EqualFold(s, n) {
			return BackendState(i), nil
		}
	}
	return 0, fmt.Errorf("backend state %q: want one of %s", s, strings.Join(backendStateNames[:], ", "))
}

var selectionNames = [...]string{"", "random", "maglev"}

// String is the selection's name, "" for what the node is configured to.
func (s Selection) String() string {
	if int(s) < len(selectionNames) {
		return selectionNames[s]
	}
	return "unknown"
}

// ParseSelection reads a selection by its name; "" is the node's.
func ParseSelection(s string) (Selection, error) {
	for i, n := range selectionNames {
		if strings.EqualFold(s, n) {
			return Selection(i), nil
		}
	}
	return 0, fmt.Errorf("selection %q: want random or maglev", s)
}

// ParseTrafficPolicy reads a traffic policy: true for Local, false for Cluster, which is also the meaning of "".
func ParseTrafficPolicy(s string) (local bool, err error) {
	switch {
	case strings.EqualFold(s, "Local"):
		return true, nil
	case s == "" || strings.EqualFold(s, "Cluster"):
		return false, nil
	}
	return false, fmt.Errorf("traffic policy %q: want Cluster or Local", s)
}

// TrafficPolicy is the name of a traffic policy.
func TrafficPolicy(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

// FullName is [namespace/]name, or the frontend of a service that has no name.
func (s *Service) FullName() string {
	switch {
	case s.Name == "":
		return s.Frontend.String()
	case s.Namespace == "":
		return s.Name
	}
	return s.Namespace + "/" + s.Name
}

// Equal says whether two services are the same in everything.
func (s *Service) Equal(o *Service) bool {
	a, b := *s, *o
	a.Backends, b.Backends, a.Ranges, b.Ranges = nil, nil, nil, nil
	return reflect.DeepEqual(a, b) && slices.Equal(s.Backends, o.Backends) && slices.Equal(s.Ranges, o.Ranges)
}
