package policy

import (
	"maps"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// SelectorInfo is a peer selector of the policies, in use on this node or not.
type SelectorInfo struct {
	Selector   string             // written form
	Users      int                // members of rules that name it
	Identities []model.IdentityID // that match now, or some of whose addresses do; sorted
	Policies   []model.PolicyRef  // each once
}

// Selectors are those of all policies, by their written form.
func (e *Engine) Selectors() []SelectorInfo {
	infos := map[string]*SelectorInfo{}
	users := map[string]map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(e.policies)) {
		p := e.policies[key]
		for _, r := range p.rules {
			for _, s := range r.selectors {
				in := infos[s.text]
				if in == nil {
					in = &SelectorInfo{Selector: s.text, Identities: e.selected(s.one)}
					infos[s.text], users[s.text] = in, map[string]bool{}
				}
				in.Users++
				if !users[s.text][key] {
					users[s.text][key] = true
					in.Policies = append(in.Policies, p.policy.Ref)
				}
			}
		}
	}
	out := make([]SelectorInfo, 0, len(infos))
	for _, text := range slices.Sorted(maps.Keys(infos)) {
		out = append(out, *infos[text])
	}
	return out
}

func (e *Engine) selected(p *peers) []model.IdentityID {
	var out []model.IdentityID
	if p == nil {
		for peer := range e.index.all {
			out = append(out, peer.Identity)
		}
	} else {
		e.index.matching(p, func(id *identity) { out = append(out, id.peer.Identity) })
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Policies are all policies, by key.
func (e *Engine) Policies() []model.PolicyRef {
	out := make([]model.PolicyRef, 0, len(e.policies))
	for _, k := range slices.Sorted(maps.Keys(e.policies)) {
		out = append(out, e.policies[k].policy.Ref)
	}
	return out
}
