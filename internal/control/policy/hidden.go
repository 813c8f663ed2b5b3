package policy

import (
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// Filter says whether a label is part of identities. A selector that asks for one that is not finds it on no workload.
type Filter interface {
	Relevant(l model.Label) bool
}

// Hidden are the labels, as "source:key", that selectors of a policy ask for and that a filter keeps out of identities. They are sorted.
func Hidden(p parse.Policy, f Filter) ([]string, error) {
	c, err := (&compiler{ids: newRuleIDs()}).compile(p)
	if err != nil {
		return nil, err
	}
	return c.hidden(f), nil
}

func (c *compiled) hidden(f Filter) (out []string) {
	look := func(rs []requirement) {
		for _, r := range rs {
			l := model.Label{Source: r.source, Key: r.key}
			switch r.source {
			case model.SourceNode, model.SourceReserved, model.SourceCIDR, model.SourceCIDRGroup, model.SourceFQDN: // not of workloads
				continue
			case model.SourceAny:
				l.Source = model.SourceK8s
			}
			if !f.Relevant(l) {
				out = append(out, r.source+":"+r.key)
			}
		}
	}
	for _, r := range c.rules {
		look(r.subject)
		look(r.requires[model.Ingress])
		look(r.requires[model.Egress])
		for _, e := range r.entries {
			if e.peers == nil {
				continue
			}
			for _, t := range e.peers.terms {
				if t.kind == termLabels {
					look(t.reqs)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
