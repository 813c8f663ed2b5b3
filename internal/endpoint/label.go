package endpoint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Labels of one workload: what keys and values may be is what Kubernetes allows. Stricter than need be, but a
// separator smuggled into a value would make two label sets look the same to the store.
var (
	labelSource = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	labelName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

const maxLabels = 128

// Sources that only the agent itself may use: they carry meaning of their own for selectors.
var ownSources = []string{model.SourceReserved, model.SourceCIDR, model.SourceCIDRGroup, model.SourceFQDN, model.SourceNode, model.SourceAny}

// reservedKey says whether a label key means something to the agent itself, so that no workload may set it, whatever
// the source: a selector without a source matches all of them. Were it otherwise, a workload could move itself into
// another namespace or service account (CVE-2023-39347).
func reservedKey(key string) bool {
	return key == model.KeyNamespace || strings.HasPrefix(key, model.KeyNamespace+".") ||
		strings.HasPrefix(key, "io.cilium.k8s.") // cluster, service account, namespace labels
}

// parseLabels reads labels of a caller; without a source they are Kubernetes' ("k8s").
func parseLabels(ss []string) ([]model.Label, error) {
	if len(ss) > maxLabels {
		return nil, fmt.Errorf("%w: %d labels, at most %d are possible", ErrInvalid, len(ss), maxLabels)
	}
	out := make([]model.Label, 0, len(ss))
	for _, s := range ss {
		l, err := model.ParseLabel(s, model.SourceK8s)
		if err == nil {
			err = checkLabel(l)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if i := slices.IndexFunc(out, func(o model.Label) bool { return o.Source == l.Source && o.Key == l.Key }); i >= 0 && out[i] != l {
			return nil, fmt.Errorf("%w: label %s:%s is there twice, with different values", ErrInvalid, l.Source, l.Key)
		}
		out = append(out, l)
	}
	return out, nil
}

func checkLabel(l model.Label) error {
	if slices.Contains(ownSources, l.Source) {
		return fmt.Errorf("label %q: the source %q is reserved for the agent", l, l.Source)
	}
	if reservedKey(l.Key) {
		return fmt.Errorf("label %q: the key is reserved; the namespace is given on its own", l)
	}
	prefix, name, found := strings.Cut(l.Key, "/")
	if !found {
		prefix, name = "", l.Key
	}
	if !labelSource.MatchString(l.Source) || found && !labelPrefix.MatchString(prefix) || !labelName.MatchString(name) ||
		l.Value != "" && !labelName.MatchString(l.Value) {
		return fmt.Errorf("label %q: want [source:]key[=value], key and value of letters, digits, '-', '_' and '.', at most 63 each", l)
	}
	return nil
}

// resolve is the full label set of a workload: its own labels, what the cluster says about it, and those the agent adds. As long as
// the cluster has not said anything, what it said before (was) holds.
func (m *Manager) resolve(namespace, name string, own []model.Label, was model.Labels) model.Labels {
	ls := append(slices.Clone(own), m.facts(namespace, name, was)...)
	if m.cfg.Relevant != nil {
		ls = slices.DeleteFunc(ls, func(l model.Label) bool { return !m.cfg.Relevant(l) })
	}
	ls = append(ls, model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: namespace})
	if m.cfg.ClusterName != "" {
		ls = append(ls, model.Label{Source: model.SourceK8s, Key: model.KeyCluster, Value: m.cfg.ClusterName})
	}
	return model.NewLabels(ls...)
}

func (m *Manager) facts(namespace, name string, was model.Labels) []model.Label {
	if m.deps.Facts == nil {
		return nil
	}
	if facts, ok := m.deps.Facts(namespace, name); ok {
		return facts
	}
	return slices.DeleteFunc(slices.Clone([]model.Label(was)), func(l model.Label) bool {
		return l.Source != model.SourceK8s || l.Key != model.KeyServiceAccount && !strings.HasPrefix(l.Key, model.KeyNamespaceLabels+".")
	})
}

// own are the labels of a set that the workload brought itself.
func own(ls model.Labels) []model.Label {
	var out []model.Label
	for _, l := range ls {
		if !reservedKey(l.Key) && !slices.Contains(ownSources, l.Source) {
			out = append(out, l)
		}
	}
	return out
}

// change applies a change of labels: those to delete are named by key, or by key and value, and must be there; one to
// add replaces what has its source and key.
func change(have []model.Label, add, del []string) ([]model.Label, error) {
	out := slices.Clone(have)
	for _, s := range del {
		l, err := model.ParseLabel(s, model.SourceK8s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if reservedKey(l.Key) || slices.Contains(ownSources, l.Source) {
			return nil, fmt.Errorf("%w: label %q is the agent's own and stays", ErrInvalid, l)
		}
		n := len(out)
		out = slices.DeleteFunc(out, func(o model.Label) bool {
			return o.Source == l.Source && o.Key == l.Key && (!strings.Contains(s, "=") || o.Value == l.Value)
		})
		if len(out) == n {
			return nil, fmt.Errorf("%w: label %q to delete is not there", ErrInvalid, l)
		}
	}
	added, err := parseLabels(add)
	if err != nil {
		return nil, err
	}
	for _, l := range added {
		out = slices.DeleteFunc(out, func(o model.Label) bool { return o.Source == l.Source && o.Key == l.Key })
		out = append(out, l)
	}
	if len(out) > maxLabels {
		return nil, fmt.Errorf("%w: %d labels, at most %d are possible", ErrInvalid, len(out), maxLabels)
	}
	return out, nil
}
