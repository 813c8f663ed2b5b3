package model

import (
	"fmt"
	"slices"
	"strings"
)

// Sources of labels. A selector key without a source means SourceAny.
const (
	SourceAny       = "any"
	SourceUnspec    = "unspec"
	SourceK8s       = "k8s"
	SourceReserved  = "reserved"
	SourceCIDR      = "cidr"
	SourceCIDRGroup = "cidrgroup"
	SourceFQDN      = "fqdn"
	SourceNode      = "node"
	SourceContainer = "container"
	SourceCNI       = "cni"
)

// Keys that selectors and the agent itself give a meaning to. A workload cannot set them.
const (
	KeyNamespace       = "io.kubernetes.pod.namespace"
	KeyCluster         = "io.cilium.k8s.policy.cluster"
	KeyServiceAccount  = "io.cilium.k8s.policy.serviceaccount"
	KeyNamespaceLabels = "io.cilium.k8s.namespace.labels"
)

// Label is one fact about a workload, written "source:key=value" ("source:key" when the value is empty).
type Label struct {
	Source string `json:"source"`
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
}

// ParseLabel reads "source:key=value", "key=value" or "key"; without a source it is def.
// The first "=" ends the key; a ":" counts as the end of a source only before the first "=".
func ParseLabel(s, def string) (Label, error) {
	key, value, _ := strings.Cut(s, "=")
	source := def
	if src, rest, ok := strings.Cut(key, ":"); ok {
		source, key = src, rest
	}
	if source == "" || key == "" {
		return Label{}, fmt.Errorf("label %q: want [source:]key[=value]", s)
	}
	return Label{Source: source, Key: key, Value: value}, nil
}

// String is the inverse of ParseLabel.
func (l Label) String() string {
	if l.Value == "" {
		return l.Source + ":" + l.Key
	}
	return l.Source + ":" + l.Key + "=" + l.Value
}

// Labels is a set of labels, sorted by source, key and value, each at most once. Build one with NewLabels.
type Labels []Label

// NewLabels sorts and de-duplicates ls into a set; ls itself is not changed.
func NewLabels(ls ...Label) Labels {
	out := slices.Clone(ls)
	slices.SortFunc(out, compareLabel)
	return slices.Compact(out)
}

// ParseLabels reads a set of labels as ParseLabel does each.
func ParseLabels(ss []string, def string) (Labels, error) {
	ls := make([]Label, 0, len(ss))
	for _, s := range ss {
		l, err := ParseLabel(s, def)
		if err != nil {
			return nil, err
		}
		ls = append(ls, l)
	}
	return NewLabels(ls...), nil
}

// Get returns the value of the label with this source and key; SourceAny matches every source.
func (ls Labels) Get(source, key string) (string, bool) {
	for _, l := range ls {
		if l.Key == key && (source == SourceAny || l.Source == source) {
			return l.Value, true
		}
	}
	return "", false
}

// Strings are the labels in their written form, in order.
func (ls Labels) Strings() []string {
	out := make([]string, len(ls))
	for i, l := range ls {
		out[i] = l.String()
	}
	return out
}

// Key is the canonical form of the whole set, "l1;l2;...;": equal sets have equal keys.
func (ls Labels) Key() string {
	var b strings.Builder
	for _, l := range ls {
		b.WriteString(l.Source + ":" + l.Key + "=" + l.Value + ";")
	}
	return b.String()
}

// Equal says whether both hold the same labels.
func (ls Labels) Equal(other Labels) bool { return slices.Equal(ls, other) }

func compareLabel(a, b Label) int {
	if c := strings.Compare(a.Source, b.Source); c != 0 {
		return c
	}
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return strings.Compare(a.Value, b.Value)
}
