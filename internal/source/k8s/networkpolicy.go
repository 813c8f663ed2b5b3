package k8s

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// maxPorts is how many ports a port rule of our language takes, and how many port rules a member.
const maxPorts = 40

// keyNamespaceName is the label that every namespace has of its own name. Workloads carry the name itself.
const keyNamespaceName = "kubernetes.io/metadata.name"

// NetworkPolicy says in our language what a NetworkPolicy means. Every selector names the namespace that it is about, and each
// direction says whether it is closed, so that nothing depends on what an absent field means in either language: there an empty rule
// allows everything, here nothing.
func NetworkPolicy(np *networkingv1.NetworkPolicy) parse.Policy {
	ref := model.PolicyRef{Kind: model.KindNetworkPolicy, Namespace: np.Namespace, Name: np.Name}
	ref.Labels = parse.ResourceLabels(ref, string(np.UID), nil)
	ingress, egress := closed(&np.Spec)
	subject := selector(&np.Spec.PodSelector, podKey)
	subject.MatchExpressions = append(subject.MatchExpressions, inNamespace(np.Namespace))
	r := v2.Rule{EndpointSelector: &subject, EnableDefaultDeny: &v2.DefaultDeny{Ingress: &ingress, Egress: &egress}}
	if ingress {
		r.Ingress = []v2.IngressRule{{}} // the list is there, and so far it allows nothing
		for _, in := range np.Spec.Ingress {
			for _, p := range peers(np.Namespace, in.From) {
				for _, ports := range portRules(in.Ports) {
					r.Ingress = append(r.Ingress, v2.IngressRule{FromEndpoints: p.endpoints, FromCIDRSet: p.cidrs, FromEntities: p.entities, ToPorts: ports})
				}
			}
		}
	}
	if egress {
		r.Egress = []v2.EgressRule{{}}
		for _, out := range np.Spec.Egress {
			for _, p := range peers(np.Namespace, out.To) {
				for _, ports := range portRules(out.Ports) {
					r.Egress = append(r.Egress, v2.EgressRule{ToEndpoints: p.endpoints, ToCIDRSet: p.cidrs, ToEntities: p.entities, ToPorts: ports})
				}
			}
		}
	}
	return parse.Policy{Key: model.KindNetworkPolicy + "/" + np.Namespace + "/" + np.Name, Ref: ref, Audit: np.Annotations[parse.AuditAnnotation] == "true",
		Rules: []v2.Rule{r}}
}

// closed says in which directions a policy isolates its workloads. Without policyTypes it does at ingress, and at egress if it has
// rules for that.
func closed(s *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(s.PolicyTypes) == 0 {
		return true, len(s.Egress) > 0
	}
	return slices.Contains(s.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(s.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// peerSet is the peers of one member: it holds one kind.
type peerSet struct {
	endpoints []v2.LabelSelector
	cidrs     []v2.CIDRRule
	entities  []v2.Entity
}

// peers are what a rule's peers are as members. No peer at all is everybody; one that names nothing that is known here is nobody.
func peers(namespace string, in []networkingv1.NetworkPolicyPeer) []peerSet {
	if len(in) == 0 {
		return []peerSet{{entities: []v2.Entity{v2.EntityAll}}}
	}
	var pods, blocks peerSet
	for i := range in {
		switch p := &in[i]; {
		case p.IPBlock != nil:
			blocks.cidrs = append(blocks.cidrs, v2.CIDRRule{CIDR: p.IPBlock.CIDR, Except: p.IPBlock.Except})
		case p.PodSelector != nil || p.NamespaceSelector != nil:
			pods.endpoints = append(pods.endpoints, podPeer(namespace, p))
		}
	}
	var out []peerSet
	if pods.endpoints != nil {
		out = append(out, pods)
	}
	if blocks.cidrs != nil {
		out = append(out, blocks)
	}
	return out
}

// podPeer selects workloads: of the policy's namespace, or of those that the namespace selector selects.
func podPeer(namespace string, p *networkingv1.NetworkPolicyPeer) v2.LabelSelector {
	var s v2.LabelSelector
	if p.PodSelector != nil {
		s = selector(p.PodSelector, podKey)
	}
	if p.NamespaceSelector == nil {
		s.MatchExpressions = append(s.MatchExpressions, inNamespace(namespace))
		return s
	}
	s.MatchExpressions = append(s.MatchExpressions, v2.Requirement{Key: model.SourceK8s + ":" + model.KeyNamespace, Operator: v2.OpExists})
	s.MatchExpressions = append(s.MatchExpressions, selector(p.NamespaceSelector, namespaceKey).MatchExpressions...)
	return s
}

// podKey is how a workload carries a label of its pod.
func podKey(key string) string { return model.SourceK8s + ":" + key }

// namespaceKey is how a workload carries a label of its namespace.
func namespaceKey(key string) string {
	if key == keyNamespaceName {
		return model.SourceK8s + ":" + model.KeyNamespace
	}
	return model.SourceK8s + ":" + model.KeyNamespaceLabels + "." + key
}

func inNamespace(ns string) v2.Requirement {
	return v2.Requirement{Key: model.SourceK8s + ":" + model.KeyNamespace, Operator: v2.OpIn, Values: []string{ns}}
}

// selector translates all of a selector into expressions, so that no two conditions on one key can hide each other.
func selector(s *metav1.LabelSelector, key func(string) string) (out v2.LabelSelector) {
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		out.MatchExpressions = append(out.MatchExpressions, v2.Requirement{Key: key(k), Operator: v2.OpIn, Values: []string{s.MatchLabels[k]}})
	}
	for _, e := range s.MatchExpressions {
		out.MatchExpressions = append(out.MatchExpressions, v2.Requirement{Key: key(e.Key), Operator: v2.Operator(e.Operator), Values: e.Values})
	}
	return out
}

// portRules are the ports of a rule, as the toPorts of one member each; one that is nil for all ports of all protocols.
func portRules(in []networkingv1.NetworkPolicyPort) [][]v2.PortRule {
	if len(in) == 0 {
		return [][]v2.PortRule{nil}
	}
	ports := make([]v2.PortProtocol, len(in))
	for i := range in {
		ports[i] = port(&in[i])
	}
	var rules []v2.PortRule
	for chunk := range slices.Chunk(ports, maxPorts) {
		rules = append(rules, v2.PortRule{Ports: chunk})
	}
	return slices.Collect(slices.Chunk(rules, maxPorts))
}

// port is one port; without one all ports of the protocol.
func port(p *networkingv1.NetworkPolicyPort) v2.PortProtocol {
	out := v2.PortProtocol{Port: "0", Protocol: v2.ProtoTCP}
	if p.Protocol != nil {
		out.Protocol = v2.Protocol(*p.Protocol)
	} else {
		out.Protocol = v2.Protocol(corev1.ProtocolTCP)
	}
	if p.Port == nil {
		return out
	}
	out.Port = p.Port.String()
	if lo, err := strconv.Atoi(out.Port); err == nil && p.EndPort != nil && int(*p.EndPort) != lo {
		out.EndPort = *p.EndPort
	}
	return out
}
