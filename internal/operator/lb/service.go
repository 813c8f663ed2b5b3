package lb

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/lbipam"
)

// Classes of load balancers whose services have their addresses from here.
var classes = []string{"io.cilium/bgp-control-plane", "io.cilium/l2-announcer"}

// Annotations of services, with the names that they had before.
var (
	annotationIPs         = []string{"lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips"}
	annotationSharingKey  = []string{"lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key"}
	annotationSharingWith = []string{"lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace"}
)

// Labels by which a pool can select a service besides its own.
const (
	labelNamespace = "io.kubernetes.service.namespace"
	labelName      = "io.kubernetes.service.name"
)

// serves says whether a service has its addresses from here.
func (b *balancer) serves(s *corev1.Service) bool {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return false
	}
	if s.Spec.LoadBalancerClass == nil {
		return b.cfg.Default
	}
	return slices.Contains(classes, *s.Spec.LoadBalancerClass)
}

// serviceOf says what a service wants.
func (b *balancer) serviceOf(s *corev1.Service, has []netip.Addr) lbipam.Service {
	out := lbipam.Service{Namespace: s.Namespace, Name: s.Name, Created: s.CreationTimestamp.UnixNano(), Labels: maps.Clone(s.Labels), Has: has}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[labelNamespace], out.Labels[labelName] = s.Namespace, s.Name
	for _, f := range s.Spec.IPFamilies {
		out.IPv4 = out.IPv4 || f == corev1.IPv4Protocol && b.cfg.IPv4
		out.IPv6 = out.IPv6 || f == corev1.IPv6Protocol && b.cfg.IPv6
	}
	out.All = s.Spec.IPFamilyPolicy == nil || *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack
	out.Requested, out.Invalid = requested(s)
	if !out.IPv4 && !out.IPv6 {
		out.Invalid = "the IP versions of the service are not in use in this cluster"
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, lbipam.Port{Protocol: string(p.Protocol), Number: p.Port})
	}
	out.SharingKey = annotation(s, annotationSharingKey)
	out.SharingWith = list(annotation(s, annotationSharingWith))
	out.Local = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	out.Selector = labels.Set(s.Spec.Selector).String()
	return out
}

// requested are the addresses that a service names, each once, and what is wrong with them.
func requested(s *corev1.Service) (out []netip.Addr, invalid string) {
	texts := list(annotation(s, annotationIPs))
	if s.Spec.LoadBalancerIP != "" {
		texts = append(texts, s.Spec.LoadBalancerIP)
	}
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return nil, "the requested " + text + " is no address"
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, ""
}

func annotation(s *corev1.Service, names []string) string {
	for _, n := range names {
		if v, ok := s.Annotations[n]; ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// list reads what is separated by commas.
func list(s string) (out []string) {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// poolOf reads a pool.
func poolOf(p *ciliumv2.CiliumLoadBalancerIPPool) lbipam.Pool {
	out := lbipam.Pool{Name: p.Name, Created: p.CreationTimestamp.UnixNano(), Disabled: p.Spec.Disabled || p.DeletionTimestamp != nil,
		Trim: p.Spec.AllowFirstLastIPs == "No"}
	for _, b := range p.Spec.Blocks {
		out.Blocks = append(out.Blocks, lbipam.Block{CIDR: string(b.CIDR), Start: b.Start, Stop: b.Stop})
	}
	if p.Spec.ServiceSelector == nil {
		return out
	}
	sel, err := metav1.LabelSelectorAsSelector(p.Spec.ServiceSelector)
	if err != nil {
		out.Invalid = "serviceSelector: " + err.Error()
		return out
	}
	out.Selects = func(s *lbipam.Service) bool { return sel.Matches(labels.Set(s.Labels)) }
	return out
}
