package policy

import (
	"fmt"
	"slices"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// requirement is one condition on a label set.
type requirement struct {
	source string // model.SourceAny: any
	key    string
	op     v2.Operator
	values []string // sorted
}

// matches holds, for NotIn and DoesNotExist, also where the key is missing. With any source, one label is enough for
// In and Exists, and none may be there for the other two.
func (r *requirement) matches(ls model.Labels) bool {
	found := false
	for i := range ls {
		l := &ls[i]
		if l.Key != r.key || r.source != model.SourceAny && l.Source != r.source {
			continue
		}
		if r.op == v2.OpExists || r.op == v2.OpDoesNotExist || slices.Contains(r.values, l.Value) {
			found = true
			break
		}
	}
	return found == (r.op == v2.OpIn || r.op == v2.OpExists)
}

// String is the canonical written form.
func (r requirement) String() string {
	k := r.source + ":" + r.key
	switch r.op {
	case v2.OpExists:
		return k
	case v2.OpDoesNotExist:
		return "!" + k
	case v2.OpIn:
		if len(r.values) == 1 {
			return k + "=" + r.values[0]
		}
		return fmt.Sprintf("%s in (%s)", k, strings.Join(r.values, ","))
	}
	return fmt.Sprintf("%s notin (%s)", k, strings.Join(r.values, ","))
}

// requirements of a selector, canonical: sorted, each once. Keys without a source mean source def.
func requirements(s v2.LabelSelector, def string) []requirement {
	out := make([]requirement, 0, len(s.MatchLabels)+len(s.MatchExpressions))
	for k, v := range s.MatchLabels {
		source, key := splitKey(k, def)
		out = append(out, requirement{source: source, key: key, op: v2.OpIn, values: []string{v}})
	}
	for _, e := range s.MatchExpressions {
		source, key := splitKey(e.Key, def)
		values := slices.Clone(e.Values)
		slices.Sort(values)
		out = append(out, requirement{source: source, key: key, op: e.Operator, values: slices.Compact(values)})
	}
	return canonical(out)
}

func canonical(rs []requirement) []requirement {
	slices.SortFunc(rs, func(a, b requirement) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(rs, func(a, b requirement) bool { return a.String() == b.String() })
}

// splitKey reads the key of a selector. The keys that only the agent may set are looked for where the agent puts them,
// whatever source is left open: a workload with such a label of another source is not what the author means.
func splitKey(k, def string) (source, key string) {
	source, key, ok := strings.Cut(k, ":")
	if !ok {
		source, key = def, k
	}
	if source == model.SourceAny && agentKey(key) {
		source = model.SourceK8s
	}
	return source, key
}

func agentKey(key string) bool {
	return key == model.KeyNamespace || key == model.KeyCluster || key == model.KeyServiceAccount || namespaceLabel(key)
}

func namespaceLabel(key string) bool { return strings.HasPrefix(key, model.KeyNamespaceLabels+".") }

func matchAll(rs []requirement, ls model.Labels) bool {
	for i := range rs {
		if !rs[i].matches(ls) {
			return false
		}
	}
	return true
}
