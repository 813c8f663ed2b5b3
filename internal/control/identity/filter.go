// Package identity decides which labels of a workload make its identity, and numbers label sets whose number means
// something on this node only. It is pure; numbers that the whole cluster agrees on come from the kvstore.
package identity

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// defaultFilter is what holds unless the configuration says otherwise: labels that change with every roll-out or are
// about the machinery would make an identity of each workload, and are left out; those that policies select by are in.
var defaultFilter = []string{
	"reserved:.*",
	`io\.kubernetes\.pod\.namespace`,
	`io\.cilium\.k8s\.namespace\.labels`,
	`io\.cilium\.k8s\.policy\.`,
	`app\.kubernetes\.io`,
	`!io\.kubernetes`,
	`!kubernetes\.io`,
	`!.*beta\.kubernetes\.io`,
	`!k8s\.io`,
	"!pod-template-generation",
	"!pod-template-hash",
	"!controller-revision-hash",
	"!annotation",
	`!controller-uid`,
	`!batch\.kubernetes\.io/`,
	`!statefulset\.kubernetes\.io/pod-name`,
	`!apps\.kubernetes\.io/pod-index`,
	`!job-name`,
	`!io\.cilium\.k8s\.namespace\.labels\.kubernetes\.io/metadata\.name`,
	"!etcd_node",
}

// Filter decides which labels are relevant for security. The zero value is not usable: see NewFilter.
type Filter struct {
	rules   []filterRule
	include bool // there are configured rules that include: what nothing matches is left out
}

type filterRule struct {
	source  string // "" = any
	key     *regexp.Regexp
	exclude bool
}

// NewFilter reads rules as `--labels` gives them, each "[!][source:]pattern": pattern is a regular expression that a
// label's key has to begin with, "!" leaves such labels out. The rule that matches the longest part of the key decides,
// of equals the later one; configured rules come after the default ones. What no rule matches is relevant, unless a
// configured rule includes something.
func NewFilter(rules []string) (*Filter, error) {
	f := &Filter{}
	for i, s := range slices.Concat(defaultFilter, rules) {
		text, exclude := strings.CutPrefix(s, "!")
		source, pattern, ok := strings.Cut(text, ":")
		if !ok {
			source, pattern = "", text
		}
		if source == model.SourceAny {
			source = ""
		}
		if pattern == "" {
			return nil, fmt.Errorf("label filter %q: want [!][source:]pattern", s)
		}
		re, err := regexp.Compile("^(?:" + pattern + ")")
		if err != nil {
			return nil, fmt.Errorf("label filter %q: %w", s, err)
		}
		re.Longest()
		f.rules = append(f.rules, filterRule{source: source, key: re, exclude: exclude})
		f.include = f.include || i >= len(defaultFilter) && !exclude
	}
	return f, nil
}

// Relevant says whether a label makes a difference for the identity.
func (f *Filter) Relevant(l model.Label) bool {
	best, relevant := -1, !f.include
	for _, r := range f.rules {
		if r.source != "" && r.source != l.Source {
			continue
		}
		if m := r.key.FindStringIndex(l.Key); m != nil && m[1] >= best {
			best, relevant = m[1], !r.exclude
		}
	}
	return relevant
}
