package observe

import (
	"fmt"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
)

// cacheMax bounds each of the decoder's caches; a full one is thrown away.
const cacheMax = 8192

// labelCache keeps the written form of label sets: they change rarely, and every event names two.
type labelCache map[model.IdentityID]labelEntry

type labelEntry struct {
	set  model.Labels
	text []string
}

func (c labelCache) strings(id model.IdentityID, set model.Labels) []string {
	if len(set) == 0 {
		return nil
	}
	if e, ok := c[id]; ok && (&e.set[0] == &set[0] && len(e.set) == len(set) || e.set.Equal(set)) {
		return e.text
	}
	if len(c) >= cacheMax {
		clear(c)
	}
	e := labelEntry{set, set.Strings()}
	c[id] = e
	return e.text
}

// ruleCache keeps rules in the API's form.
type ruleCache map[model.RuleID]*ruleEntry

type ruleEntry struct {
	ref      model.RuleRef
	policies []*flowpb.Policy
	text     string
}

func (e *ruleEntry) same(ref model.RuleRef) bool {
	return e.ref.Text == ref.Text && e.ref.Ingress == ref.Ingress && e.ref.Implicit == ref.Implicit && e.ref.Deny == ref.Deny &&
		len(e.ref.Policies) == len(ref.Policies) && (len(ref.Policies) == 0 || &e.ref.Policies[0] == &ref.Policies[0])
}

// Texts of the rules that are not in any policy.
var builtin = map[model.RuleID]string{
	model.RuleNoPolicy:   "no policy selects the workload in this direction",
	model.RuleModeNever:  `enforcement mode "never"`,
	model.RuleModeAlways: `enforcement mode "always" and no rule allows it`,
	model.RuleLocalHost:  "the node may reach its own workloads",
}

// rule finds a rule; the entry has at least a text. ok is false for one that nobody knows (any more).
func (d *decoder) rule(id model.RuleID) (*ruleEntry, bool) {
	ref, ok := d.resolver.Rule(id)
	if !ok {
		if t, ok := builtin[id]; ok {
			return &ruleEntry{ref: model.RuleRef{ID: id, Implicit: true}, text: t}, true
		}
		return &ruleEntry{text: fmt.Sprintf("rule %d, which is not in force any more", id)}, false
	}
	if e, ok := d.rules[id]; ok && e.same(ref) {
		return e, true
	}
	e := &ruleEntry{ref: ref, text: ref.Text}
	for _, p := range ref.Policies {
		e.policies = append(e.policies, &flowpb.Policy{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels.Strings(),
			Revision: p.Revision, Kind: p.Kind})
	}
	if e.text == "" {
		if t, ok := builtin[id]; ok {
			e.text = t
		} else {
			e.text = fmt.Sprintf("rule %d", id)
		}
	}
	if len(d.rules) >= cacheMax {
		clear(d.rules)
	}
	d.rules[id] = e
	return e, true
}

// policy writes down which policies are behind a verdict, and the rule in words; a denial says it in the summary too,
// where every client shows it.
func (s *sighting) policy(f *flowpb.Flow) {
	r := s.rule
	ingress := f.TrafficDirection == flowpb.TrafficDirection_INGRESS
	if s.known && s.ev.Rule >= model.RuleUser {
		ingress = r.ref.Ingress
	}
	f.PolicyLog = []string{r.text}
	denied := f.Verdict == flowpb.Verdict_DROPPED || f.Verdict == flowpb.Verdict_AUDIT
	switch {
	case denied && ingress:
		f.IngressDeniedBy = r.policies
	case denied:
		f.EgressDeniedBy = r.policies
	case ingress:
		f.IngressAllowedBy = r.policies
	default:
		f.EgressAllowedBy = r.policies
	}
	if denied {
		if f.Summary != "" {
			f.Summary += "; "
		}
		f.Summary += "rule: " + r.text
	}
}
