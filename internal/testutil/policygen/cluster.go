// Package policygen draws random policies for tests of who judges them.
package policygen

import (
	"pgregory.net/rapid"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
)

// Words are what the policies of a test's world are made of. A small world, so that things meet.
type Words struct {
	Namespaces, Pods, Nodes []string // label keys, by what has them
	Values                  []string // of labels
	Networks                []string // prefixes
	Ports                   []int32
	Names                   []string // of ports
}

// Cluster draws the spec of a ClusterNetworkPolicy.
func (w Words) Cluster(t *rapid.T) *v1alpha2.ClusterSpec {
	s := &v1alpha2.ClusterSpec{
		Tier:     rapid.SampledFrom([]v1alpha2.Tier{v1alpha2.TierAdmin, v1alpha2.TierBaseline}).Draw(t, "tier"),
		Priority: rapid.SampledFrom([]int32{0, 1, 2, 9, 10, 99, 100, 255, 256, 999, 1000}).Draw(t, "priority"),
	}
	s.Subject.Namespaces, s.Subject.Pods = w.pods(t)
	if rapid.IntRange(0, 2).Draw(t, "ingress") > 0 {
		s.Ingress = list(t, 0, 3, func(t *rapid.T) v1alpha2.ClusterIngressRule {
			return v1alpha2.ClusterIngressRule{Action: action(t), Protocols: w.protocols(t, true),
				From: list(t, 1, 2, func(t *rapid.T) (p v1alpha2.IngressPeer) {
					p.Namespaces, p.Pods = w.pods(t)
					return p
				})}
		})
	}
	if rapid.IntRange(0, 2).Draw(t, "egress") > 0 {
		s.Egress = list(t, 0, 3, func(t *rapid.T) v1alpha2.ClusterEgressRule {
			r := v1alpha2.ClusterEgressRule{Action: action(t)}
			named := true
			r.To = list(t, 1, 2, func(t *rapid.T) v1alpha2.EgressPeer {
				p := w.peer(t)
				named = named && p.Nodes == nil && p.Networks == nil
				return p
			})
			r.Protocols = w.protocols(t, named)
			return r
		})
	}
	return s
}

func list[T any](t *rapid.T, lo, hi int, gen func(*rapid.T) T) []T {
	out := []T{}
	for range rapid.IntRange(lo, hi).Draw(t, "n") {
		out = append(out, gen(t))
	}
	return out
}

func action(t *rapid.T) v1alpha2.Action {
	return rapid.SampledFrom([]v1alpha2.Action{v1alpha2.ActionAccept, v1alpha2.ActionDeny, v1alpha2.ActionPass}).Draw(t, "action")
}

func (w Words) selector(t *rapid.T, keys []string) v2.LabelSelector {
	var s v2.LabelSelector
	key, value := rapid.SampledFrom(keys), rapid.SampledFrom(w.Values)
	switch rapid.IntRange(0, 3).Draw(t, "selector") {
	case 0, 1:
		s.MatchLabels = map[string]string{key.Draw(t, "key"): value.Draw(t, "value")}
	case 2:
		r := v2.Requirement{Key: key.Draw(t, "key"),
			Operator: rapid.SampledFrom([]v2.Operator{v2.OpIn, v2.OpNotIn, v2.OpExists, v2.OpDoesNotExist}).Draw(t, "operator")}
		if r.Operator == v2.OpIn || r.Operator == v2.OpNotIn {
			r.Values = rapid.SliceOfN(value, 1, 2).Draw(t, "values")
		}
		s.MatchExpressions = []v2.Requirement{r}
	}
	return s
}

func (w Words) pods(t *rapid.T) (*v2.LabelSelector, *v1alpha2.NamespacedPod) {
	ns := w.selector(t, w.Namespaces)
	if rapid.Bool().Draw(t, "namespaces") {
		return &ns, nil
	}
	return nil, &v1alpha2.NamespacedPod{NamespaceSelector: ns, PodSelector: w.selector(t, w.Pods)}
}

func (w Words) peer(t *rapid.T) (p v1alpha2.EgressPeer) {
	switch rapid.IntRange(0, 4).Draw(t, "peer") {
	case 0, 1:
		p.Namespaces, p.Pods = w.pods(t)
	case 2:
		s := w.selector(t, w.Nodes)
		p.Nodes = &s
	default:
		p.Networks = list(t, 1, 3, func(t *rapid.T) string { return rapid.SampledFrom(w.Networks).Draw(t, "network") })
	}
	return p
}

func (w Words) protocols(t *rapid.T, named bool) []v1alpha2.ClusterProtocol {
	if rapid.Bool().Draw(t, "every protocol") {
		return nil
	}
	return list(t, 1, 3, func(t *rapid.T) (p v1alpha2.ClusterProtocol) {
		which := rapid.IntRange(0, 4).Draw(t, "protocol")
		if named && which == 4 {
			p.DestinationNamedPort = rapid.SampledFrom(w.Names).Draw(t, "name")
			return p
		}
		port := &v1alpha2.Port{Number: rapid.SampledFrom(w.Ports).Draw(t, "port")}
		if port.Number < 65535 && rapid.IntRange(0, 2).Draw(t, "range") == 0 {
			port = &v1alpha2.Port{Range: &v1alpha2.PortRange{Start: port.Number, End: rapid.Int32Range(port.Number+1, 65535).Draw(t, "end")}}
		}
		switch ports := (&v1alpha2.ProtocolPorts{DestinationPort: port}); which {
		case 0:
			p.UDP = ports
		case 1:
			p.SCTP = ports
		default:
			p.TCP = ports
		}
		return p
	})
}
