package service

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

// Limits of one service.
const (
	MaxBackends = 16384
	MaxRanges   = 4096
	maxAffinity = 24 * time.Hour
	maxName     = 253
	maxHints    = 8 // of zones, and of nodes, as in EndpointSlices
)

// Validate refuses a service that must not be served, with every reason. What it says holds for the facts it was given: a
// service that was fine may be refused once a node has joined whose address it wants.
func Validate(s *model.Service, f *Facts) error {
	var errs error
	bad := func(format string, args ...any) { errs = errors.Join(errs, fmt.Errorf(format, args...)) }
	for what, name := range map[string]string{"name": s.Name, "namespace": s.Namespace} {
		if len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == '\ufffd' }) {
			bad("%s %q: want up to %d bytes without spaces, slashes or control characters", what, name, maxName)
		}
	}
	if int(s.Type) > int(model.ServiceLocalRedirect) {
		bad("service type %d is not known", s.Type)
	}
	if err := checkFrontend(s, f); err != nil {
		bad("frontend %s: %w", s.Frontend, err)
	}
	if len(s.Backends) > MaxBackends {
		bad("%d backends: at most %d", len(s.Backends), MaxBackends)
	}
	seen := make(map[netip.AddrPort]bool, len(s.Backends))
	for i := range s.Backends {
		b := &s.Backends[i]
		if err := checkBackend(s, b); err != nil {
			bad("backend %s: %w", b, err)
		} else if ap := netip.AddrPortFrom(b.Addr, b.Port); seen[ap] {
			bad("backend %s is given twice", b)
		} else {
			seen[ap] = true
		}
	}
	if s.Affinity < 0 || s.Affinity > maxAffinity {
		bad("affinity %v: want 0s (none) to %v", s.Affinity, maxAffinity)
	}
	if s.Affinity%time.Second != 0 {
		bad("affinity %v: want whole seconds", s.Affinity)
	}
	if s.HealthPort != 0 && !s.ExternalLocal {
		bad("health-check node port %d goes with the external traffic policy Local", s.HealthPort)
	}
	if s.HealthPort != 0 && !f.ports.Has(s.HealthPort) {
		bad("health-check node port %d is not in node-port-range (%d-%d)", s.HealthPort, f.ports.Low, f.ports.High)
	}
	if len(s.Ranges) > MaxRanges {
		bad("%d source ranges: at most %d", len(s.Ranges), MaxRanges)
	}
	for _, p := range s.Ranges {
		switch {
		case !p.IsValid() || p.Addr().Is4In6() || p != p.Masked():
			bad("source range %s: want a prefix without bits behind its length", p)
		case p.Addr().Is4() != s.Frontend.Addr.Is4():
			bad("source range %s: nobody of it can reach a frontend of the other IP version", p)
		}
	}
	if s.RangesDeny && len(s.Ranges) == 0 {
		bad("source ranges are to be denied, and there are none")
	}
	if s.Select > model.SelectMaglev {
		bad("selection %d is not known", s.Select)
	}
	if s.Prefer > model.PreferSameNode {
		bad("traffic distribution %d is not known", s.Prefer)
	}
	return errs
}

func ported(proto uint8) bool {
	return proto == model.ProtoTCP || proto == model.ProtoUDP || proto == model.ProtoSCTP
}

// special says what an address is that nobody may serve, or be served by: whoever could redirect it would speak for the
// machine or the link itself.
func special(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address")
	case a.Is4In6() || a.Zone() != "":
		return errors.New("not in the form of its own IP version, without a zone")
	case a.IsLoopback():
		return errors.New("a loopback address means another place on each machine")
	case a.IsLinkLocalUnicast():
		return errors.New("a link-local address means another place on each link, the cloud's metadata service among them")
	case a.IsMulticast():
		return errors.New("a multicast address is no single place")
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("the broadcast address is no single place")
	case a.Is4() && a.As4()[0] == 0 && !a.IsUnspecified():
		return errors.New("addresses in 0.0.0.0/8 mean the machine itself")
	}
	return nil
}

// onNodes says whether frontends of a type are the nodes' own addresses: written as the zero address.
func onNodes(t model.ServiceType) bool {
	return t == model.ServiceNodePort || t == model.ServiceHostPort
}

func checkFrontend(s *model.Service, f *Facts) error {
	fe := &s.Frontend
	if err := special(fe.Addr); err != nil && !(s.Type == model.ServiceHostPort && fe.Addr.IsLoopback()) {
		return err
	}
	if fe.Port == 0 {
		return errors.New("port 0 is no port")
	}
	if !ported(fe.Proto) {
		return fmt.Errorf("protocol %d: want TCP, UDP or SCTP", fe.Proto)
	}
	if fe.Scope > model.ScopeInternal {
		return fmt.Errorf("scope %d is not known", fe.Scope)
	}
	if onNodes(s.Type) {
		return checkNodePort(s, f)
	}
	if fe.Addr.IsUnspecified() {
		return fmt.Errorf("the unspecified address stands for the nodes' own, which only NodePort and HostPort have: this is %s", s.Type)
	}
	if n, ok := f.node(fe.Addr); ok {
		return fmt.Errorf("it is the address of node %s: use a NodePort service, whose frontend is the unspecified address", n)
	}
	if n, p, ok := f.pod(fe.Addr); ok {
		return fmt.Errorf("it is in %s, the pods of node %s", p, n)
	}
	return nil
}

func checkNodePort(s *model.Service, f *Facts) error {
	fe := &s.Frontend
	if !fe.Addr.IsUnspecified() {
		if s.Type != model.ServiceHostPort {
			return fmt.Errorf("%s is reached at every node's own address: write 0.0.0.0 or [::]", s.Type)
		}
		if err := checkHostIP(s, f); err != nil {
			return err
		}
	}
	in := f.ports.Has(fe.Port)
	switch {
	case s.Type == model.ServiceNodePort && !in:
		return fmt.Errorf("port %d is not in node-port-range (%d-%d)", fe.Port, f.ports.Low, f.ports.High)
	case s.Type == model.ServiceHostPort && in:
		return fmt.Errorf("port %d is in node-port-range (%d-%d), which is for NodePort services", fe.Port, f.ports.Low, f.ports.High)
	}
	return nil
}

// checkHostIP judges a host port at one address. That has to be the address of the node where the backends live, or its loopback, which
// other nodes have too, each for itself: who has workloads on one node is not to take what is meant for another one.
func checkHostIP(s *model.Service, f *Facts) error {
	if s.Frontend.Addr.IsLoopback() {
		return nil
	}
	owner, ok := f.node(s.Frontend.Addr)
	if !ok {
		return errors.New("it is no node's address: a HostPort has that of its node, the unspecified address for all of the node's, or loopback")
	}
	for i := range s.Backends {
		home := s.Backends[i].Node
		if home == "" {
			home, _, _ = f.pod(s.Backends[i].Addr)
		}
		if home != owner {
			return fmt.Errorf("it is the address of node %s, and backend %s is not there", owner, s.Backends[i])
		}
	}
	return nil
}

func checkBackend(s *model.Service, b *model.Backend) error {
	if err := special(b.Addr); err != nil {
		return err
	}
	switch {
	case b.Addr.IsUnspecified():
		return errors.New("the unspecified address is nobody's")
	case b.Addr.Is4() != s.Frontend.Addr.Is4():
		return errors.New("is of another IP version than the frontend")
	case b.Port == 0:
		return errors.New("port 0 is no port")
	case b.Proto != s.Frontend.Proto:
		return fmt.Errorf("the frontend's protocol is %s", model.ServiceProtoName(s.Frontend.Proto))
	case b.Addr == s.Frontend.Addr:
		return errors.New("it is the frontend's own address")
	case b.State > model.BackendMaintenance:
		return fmt.Errorf("state %d is not known", b.State)
	case len(b.Node) > maxName || len(b.Zone) > maxName:
		return fmt.Errorf("node and zone: at most %d bytes each", maxName)
	}
	return errors.Join(checkHints(b.Hints), checkHints(b.NodeHints))
}

func checkHints(z model.Zones) error {
	names := z.List()
	if len(names) > maxHints {
		return fmt.Errorf("hints for %d places: at most %d", len(names), maxHints)
	}
	for _, n := range names {
		if n == "" || len(n) > maxName {
			return fmt.Errorf("hint %q is no name: want up to %d bytes", n, maxName)
		}
	}
	return nil
}
