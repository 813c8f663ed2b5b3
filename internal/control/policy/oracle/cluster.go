package oracle

import (
	"slices"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/model"
)

// opinion is what a tier of ClusterNetworkPolicies says about a packet.
type opinion struct {
	action v1alpha2.Action // Pass also when no rule matches
	noted  bool            // a denial of a policy in audit mode came first
}

// tier asks the policies of a tier, in order, rule by rule; the first rule that matches decides.
func (w *World) tier(t v1alpha2.Tier, dir model.Direction, self, other End, pkt Packet) opinion {
	var policies []Policy
	for _, p := range w.Policies {
		if p.Cluster != nil && p.Cluster.Tier == t {
			policies = append(policies, p)
		}
	}
	slices.SortStableFunc(policies, func(a, b Policy) int {
		if a.Cluster.Priority != b.Cluster.Priority {
			return int(a.Cluster.Priority) - int(b.Cluster.Priority)
		}
		return strings.Compare(a.Name, b.Name)
	})
	var o opinion
	for _, p := range policies {
		if !pods(p.Cluster.Subject.Namespaces, p.Cluster.Subject.Pods, self) {
			continue
		}
		for _, r := range rulesOf(p.Cluster, dir) {
			ports := self.Ports
			if dir == model.Egress {
				ports = other.Ports
			}
			to := func(peer v1alpha2.EgressPeer) bool { return w.clusterPeer(peer, other) }
			on := func(x v1alpha2.ClusterProtocol) bool { return protocol(x, ports, pkt) }
			if !slices.ContainsFunc(r.To, to) || r.Protocols != nil && !slices.ContainsFunc(r.Protocols, on) {
				continue
			}
			if r.Action == v1alpha2.ActionDeny && p.Audit {
				o.noted = true
				continue
			}
			o.action = r.Action
			return o
		}
	}
	o.action = v1alpha2.ActionPass
	return o
}

// rulesOf are the rules of a direction in the form of those of egress, which can say more.
func rulesOf(s *v1alpha2.ClusterSpec, dir model.Direction) []v1alpha2.ClusterEgressRule {
	if dir == model.Egress {
		return s.Egress
	}
	var out []v1alpha2.ClusterEgressRule
	for _, r := range s.Ingress {
		o := v1alpha2.ClusterEgressRule{Name: r.Name, Action: r.Action, Protocols: r.Protocols}
		for _, p := range r.From {
			o.To = append(o.To, v1alpha2.EgressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
		}
		out = append(out, o)
	}
	return out
}

// pods says whether a workload is selected by its namespace, or by that and its own labels.
func pods(namespaces *v2.LabelSelector, p *v1alpha2.NamespacedPod, e End) bool {
	if !has(e, model.SourceK8s, model.KeyNamespace) {
		return false
	}
	if p == nil {
		return matches(*namespaces, namespaceOf(e), model.SourceK8s)
	}
	return matches(p.NamespaceSelector, namespaceOf(e), model.SourceK8s) && matches(p.PodSelector, e, model.SourceK8s)
}

// namespaceOf is the namespace of a workload, with its own labels.
func namespaceOf(e End) End {
	var ls []model.Label
	for _, l := range e.Labels {
		if l.Source != model.SourceK8s {
			continue
		}
		if l.Key == model.KeyNamespace {
			ls = append(ls, model.Label{Source: model.SourceK8s, Key: v1alpha2.KeyNamespaceName, Value: l.Value})
		}
		if key, ok := strings.CutPrefix(l.Key, model.KeyNamespaceLabels+"."); ok && key != v1alpha2.KeyNamespaceName {
			ls = append(ls, model.Label{Source: model.SourceK8s, Key: key, Value: l.Value})
		}
	}
	return End{Labels: ls}
}

func (w *World) clusterPeer(p v1alpha2.EgressPeer, other End) bool {
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		return pods(p.Namespaces, p.Pods, other)
	case p.Nodes != nil:
		return (isNode(other) || has(other, model.SourceReserved, "host")) && matches(*p.Nodes, other, model.SourceNode)
	}
	return slices.ContainsFunc(p.Networks, func(s string) bool { return w.inCIDR(s, other, true) })
}

func protocol(x v1alpha2.ClusterProtocol, named []model.NamedPort, pkt Packet) bool {
	var ports *v1alpha2.ProtocolPorts
	switch pkt.Proto {
	case 6:
		ports = x.TCP
	case 17:
		ports = x.UDP
	case 132:
		ports = x.SCTP
	default:
		return false
	}
	if ports == nil {
		return slices.ContainsFunc(named, func(n model.NamedPort) bool {
			return x.DestinationNamedPort != "" && strings.EqualFold(n.Name, x.DestinationNamedPort) && n.Proto == pkt.Proto && n.Port == pkt.Port
		})
	}
	p := ports.DestinationPort
	if p.Range == nil {
		return p.Number == int32(pkt.Port)
	}
	return p.Range.Start <= int32(pkt.Port) && int32(pkt.Port) <= p.Range.End
}
