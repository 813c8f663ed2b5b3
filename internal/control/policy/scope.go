package policy

import (
	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// scope is how far the selectors of a policy reach.
type scope struct {
	kind      string // of the resource; "" for a rule without a namespace
	namespace string
}

// subject limits a namespaced policy to the workloads of its namespace, whatever its selector says.
func (s scope) subject(rs []requirement) []requirement {
	if s.kind == v2.KindNetworkPolicy {
		rs = append(rs, inNamespace(s.namespace))
	}
	return canonical(rs)
}

// peer limits a peer selector to the policy's namespace, or in a clusterwide policy to workloads that have one, unless
// the selector itself asks for a namespace or for something reserved.
func (s scope) peer(rs []requirement) []requirement {
	if s.kind == "" {
		return canonical(rs)
	}
	lifted, other := false, false
	for _, r := range rs {
		asks := r.op == v2.OpIn || r.op == v2.OpExists
		names := r.source == model.SourceK8s && (r.key == model.KeyNamespace || namespaceLabel(r.key))
		switch {
		case asks && (names || r.source == model.SourceReserved):
			lifted = true
		case names && r.op == v2.OpNotIn:
			other = true
		}
	}
	switch {
	case lifted:
	case other || s.kind == v2.KindClusterwideNetworkPolicy:
		rs = append(rs, requirement{source: model.SourceK8s, key: model.KeyNamespace, op: v2.OpExists})
	default:
		rs = append(rs, inNamespace(s.namespace))
	}
	return canonical(rs)
}

func inNamespace(ns string) requirement {
	return requirement{source: model.SourceK8s, key: model.KeyNamespace, op: v2.OpIn, values: []string{ns}}
}
