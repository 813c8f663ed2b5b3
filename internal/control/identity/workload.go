package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Limits of what one workload may bring.
const (
	maxLabels = 256
	maxLabel  = 1024 // bytes of one label
)

// Workload are the labels that make a workload's identity: those it brings itself (own) as far as the filter takes them,
// and those that the agent or the cluster vouches for (trusted). dropped are own labels it has no right to: keys that
// say where it belongs, and sources only the agent speaks for. Ignoring them is what keeps a workload out of other
// namespaces (CVE-2023-39347), so it must be done on every update too. A workload without any label is "init".
func Workload(f *Filter, own, trusted model.Labels) (labels, dropped model.Labels, err error) {
	if len(own)+len(trusted) > maxLabels {
		return nil, nil, fmt.Errorf("workload has %d labels; at most %d are taken", len(own)+len(trusted), maxLabels)
	}
	var out, bad []model.Label
	for _, l := range own {
		if err := Validate(l); err != nil {
			return nil, nil, err
		}
		switch {
		case Meaningful(l):
			bad = append(bad, l)
		case f.Relevant(l):
			out = append(out, l)
		}
	}
	for _, l := range trusted {
		if err := Validate(l); err != nil {
			return nil, nil, err
		}
		if f.Relevant(l) {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		out = append(out, model.Label{Source: model.SourceReserved, Key: model.IdentityInit.String()})
	}
	labels = model.NewLabels(out...)
	for i := 1; i < len(labels); i++ {
		if a, b := labels[i-1], labels[i]; a.Source == b.Source && a.Key == b.Key {
			return nil, nil, fmt.Errorf("label %s:%s has two values, %q and %q", a.Source, a.Key, a.Value, b.Value)
		}
	}
	return labels, model.NewLabels(bad...), nil
}

// Meaningful says whether a label says something that only the agent or the cluster may say of a workload.
func Meaningful(l model.Label) bool {
	switch l.Source {
	case model.SourceReserved, model.SourceCIDR, model.SourceCIDRGroup, model.SourceFQDN, model.SourceNode, model.SourceAny:
		return true
	}
	switch l.Key {
	case model.KeyNamespace, model.KeyCluster, model.KeyServiceAccount, model.KeyNamespaceLabels:
		return true
	}
	return strings.HasPrefix(l.Key, model.KeyNamespaceLabels+".")
}

// Validate refuses labels that could be taken for others: the characters that separate labels, and those that do not
// show. Values are otherwise free.
func Validate(l model.Label) error {
	s := l.String()
	switch {
	case l.Source == "" || l.Key == "":
		return fmt.Errorf("label %q: source or key is missing", s)
	case len(s) > maxLabel:
		return fmt.Errorf("label %.40q...: longer than %d bytes", s, maxLabel)
	case strings.ContainsAny(l.Source, ":;=/ "):
		return fmt.Errorf("label %q: source must not contain any of \":;=/ \"", s)
	case strings.ContainsAny(l.Key, ";= "):
		return fmt.Errorf("label %q: key must not contain any of \";= \"", s)
	case strings.Contains(l.Value, ";"):
		return fmt.Errorf("label %q: value must not contain \";\"", s)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r <= 0x9f || r == '\ufffd' {
			return fmt.Errorf("label %q: %w", s, errInvisible)
		}
	}
	return nil
}

var errInvisible = errors.New("control characters or broken UTF-8")
