package k8s

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/hypha-net/hypha/internal/model"
)

// Labels by which a Service, or an EndpointSlice, says that it is not for us. Objects with one of them are not even watched.
const notOurs = "!" + "service.kubernetes.io/service-proxy-name" + ",!" + corev1.IsHeadlessService

// defaultAffinity is how long a client stays with its backend where a service does not say.
const defaultAffinity = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second

// Frontends are the services of ours that a Service means, one for each frontend, without numbers. What of it cannot be served as
// it is written is left out and told; the rest is good. node is the labels of this node.
func Frontends(svc *corev1.Service, slices []*discoveryv1.EndpointSlice, node map[string]string) ([]model.Service, error) {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.ClusterIP) == 0 || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil, nil
	}
	ann, err := annotationsOf(svc, node)
	c := converter{svc: svc, ann: ann, ends: endsOf(slices), errs: err}
	c.families()
	if c.prefer, err = model.ParsePreference(value(svc.Spec.TrafficDistribution, "")); err != nil {
		c.errs = joinf(c.errs, "%w", err)
	}
	for i := range svc.Spec.Ports {
		c.port(&svc.Spec.Ports[i])
	}
	return c.out, c.errs
}

// converter makes one Service's frontends.
type converter struct {
	svc    *corev1.Service
	ann    annotations
	ends   map[endKey][]model.Backend
	v4, v6 bool
	prefer model.Preference
	out    []model.Service
	errs   error
}

// families finds out of which IP versions the service is.
func (c *converter) families() {
	for _, ip := range c.clusterIPs() {
		c.v4, c.v6 = c.v4 || ip.Is4(), c.v6 || ip.Is6()
	}
}

func (c *converter) clusterIPs() (out []netip.Addr) {
	ips := c.svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{c.svc.Spec.ClusterIP}
	}
	for _, s := range ips {
		if ip, ok := c.addr("cluster IP", s); ok {
			out = append(out, ip)
		}
	}
	return out
}

// addr reads an address. One that cannot be read is told and left out.
func (c *converter) addr(what, s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		c.errs = joinf(c.errs, "%s %q is no address", what, s)
		return ip, false
	}
	return ip.Unmap(), true
}

func (c *converter) port(p *corev1.ServicePort) {
	proto, err := model.ParseServiceProto(string(cmp.Or(p.Protocol, corev1.ProtocolTCP)))
	if err != nil {
		c.errs = joinf(c.errs, "port %d: %w", p.Port, err)
		return
	}
	spec := &c.svc.Spec
	if c.ann.has(model.ServiceClusterIP) {
		for _, ip := range c.clusterIPs() {
			c.add(model.ServiceClusterIP, ip, p.Port, proto, p)
		}
	}
	if p.NodePort != 0 && (spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer) && c.ann.has(model.ServiceNodePort) {
		if c.v4 {
			c.add(model.ServiceNodePort, netip.IPv4Unspecified(), p.NodePort, proto, p)
		}
		if c.v6 {
			c.add(model.ServiceNodePort, netip.IPv6Unspecified(), p.NodePort, proto, p)
		}
	}
	if c.ann.has(model.ServiceExternalIPs) {
		for _, s := range spec.ExternalIPs {
			if ip, ok := c.addr("external IP", s); ok {
				c.add(model.ServiceExternalIPs, ip, p.Port, proto, p)
			}
		}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && c.ann.has(model.ServiceLoadBalancer) {
		for _, in := range c.svc.Status.LoadBalancer.Ingress {
			if in.IP == "" || in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
				continue // a name, or a load balancer that is to be gone through
			}
			if ip, ok := c.addr("load balancer's address", in.IP); ok {
				c.add(model.ServiceLoadBalancer, ip, p.Port, proto, p)
			}
		}
	}
}

// add makes one frontend.
func (c *converter) add(t model.ServiceType, ip netip.Addr, port int32, proto uint8, p *corev1.ServicePort) {
	if port < 1 || port > 65535 {
		c.errs = joinf(c.errs, "port %d is none", port)
		return
	}
	s := model.Service{Name: c.svc.Name, Namespace: c.svc.Namespace, Type: t, Select: c.ann.selection,
		Frontend: model.Frontend{Addr: ip, Port: uint16(port), Proto: proto}}
	s.Backends = c.ends[endKey{p.Name, proto, ip.Is6()}]
	spec := &c.svc.Spec
	s.Prefer = c.prefer
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s.Affinity = defaultAffinity
		if conf := spec.SessionAffinityConfig; conf != nil && conf.ClientIP != nil && conf.ClientIP.TimeoutSeconds != nil {
			s.Affinity = time.Duration(*conf.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	local := spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	switch t {
	case model.ServiceClusterIP:
		s.InternalLocal = spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	default:
		s.ExternalLocal, s.Elsewhere = local, c.ann.elsewhere
		if local && spec.HealthCheckNodePort > 0 && spec.HealthCheckNodePort <= 65535 && spec.Type == corev1.ServiceTypeLoadBalancer {
			s.HealthPort = uint16(spec.HealthCheckNodePort)
		}
	}
	if t == model.ServiceLoadBalancer && len(spec.LoadBalancerSourceRanges) > 0 {
		c.ranges(&s)
	}
	c.out = append(c.out, s)
}

// ranges says who may come. Where ranges are given and none is of the frontend's IP version, nobody of that version may, or, where
// they say who may not, everybody.
func (c *converter) ranges(s *model.Service) {
	v6 := s.Frontend.Addr.Is6()
	broken := false
	for _, text := range c.svc.Spec.LoadBalancerSourceRanges {
		p, err := model.ParseCIDR(trim(text))
		switch {
		case err != nil:
			c.errs, broken = joinf(c.errs, "source range: %w", err), true
		case p.Addr().Is6() == v6:
			s.Ranges = append(s.Ranges, p)
		}
	}
	s.Ranges = model.SortCIDRs(s.Ranges)
	s.RangesDeny = c.ann.rangesDeny && len(s.Ranges) > 0
	if broken && c.ann.rangesDeny || len(s.Ranges) == 0 && !c.ann.rangesDeny {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if v6 {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		s.Ranges, s.RangesDeny = []netip.Prefix{all}, true
	}
}

// endKey is a port of a service for one IP version.
type endKey struct {
	port  string // its name, "" where there is only one
	proto uint8
	v6    bool
}

// endsOf are the backends in a service's slices, sorted, each once: where two slices tell of one, the better state counts, since a
// backend moves between slices by being in both.
func endsOf(all []*discoveryv1.EndpointSlice) map[endKey][]model.Backend {
	out := map[endKey][]model.Backend{}
	for _, slice := range all {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for i := range slice.Ports {
			p := &slice.Ports[i]
			proto, err := model.ParseServiceProto(string(value(p.Protocol, corev1.ProtocolTCP)))
			if err != nil || p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
				continue
			}
			key := endKey{value(p.Name, ""), proto, slice.AddressType == discoveryv1.AddressTypeIPv6}
			for j := range slice.Endpoints {
				if b, ok := backend(&slice.Endpoints[j], uint16(*p.Port), proto); ok && b.Addr.Is6() == key.v6 {
					out[key] = append(out[key], b)
				}
			}
		}
	}
	for key, ends := range out {
		slices.SortFunc(ends, func(a, b model.Backend) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.State, b.State))
		})
		out[key] = slices.CompactFunc(ends, func(a, b model.Backend) bool { return a.Addr == b.Addr && a.Port == b.Port })
	}
	return out
}

// backend is one endpoint, if it is anybody's. One that ends and still serves gets what nobody else could take; one that ends and
// serves no more keeps the flows it has; one that is not ready yet, or no more without ending, is none.
func backend(e *discoveryv1.Endpoint, port uint16, proto uint8) (b model.Backend, ok bool) {
	if len(e.Addresses) == 0 {
		return b, false
	}
	ip, err := netip.ParseAddr(e.Addresses[0]) // the others mean the same place
	if err != nil {
		return b, false
	}
	b = model.Backend{Addr: ip.Unmap(), Port: port, Proto: proto, Node: value(e.NodeName, ""), Zone: value(e.Zone, "")}
	b.Hints, b.NodeHints = hintsOf(e.Hints)
	ready := value(e.Conditions.Ready, true)
	switch ending := value(e.Conditions.Terminating, false); {
	case ready:
	case ending && value(e.Conditions.Serving, ready):
		b.State = model.BackendTerminating
	case ending:
		b.State = model.BackendQuarantined
	default:
		return b, false
	}
	return b, true
}

// hintsOf are the zones and the nodes that an endpoint is for.
func hintsOf(h *discoveryv1.EndpointHints) (zones, nodes model.Zones) {
	if h == nil {
		return "", ""
	}
	names := make([]string, 0, max(len(h.ForZones), len(h.ForNodes)))
	for _, z := range h.ForZones {
		names = append(names, z.Name)
	}
	zones, names = model.NewZones(names...), names[:0]
	for _, n := range h.ForNodes {
		names = append(names, n.Name)
	}
	return zones, model.NewZones(names...)
}

// value is what a pointer points to, or what nil means.
func value[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

func joinf(errs error, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if errs == nil {
		return err
	}
	return fmt.Errorf("%w; %w", errs, err)
}
