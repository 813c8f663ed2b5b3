package policy

import (
	"fmt"
	"net/netip"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// compiled is a policy ready to be matched.
type compiled struct {
	policy   parse.Policy
	rules    []*rule
	byGroups bool // names CIDR groups, so it changes with them
}

// rule is one rule of a policy.
type rule struct {
	policy      *compiled
	subject     []requirement
	defaultDeny [2]bool // by direction
	requires    [2][]requirement
	entries     []*entry
	selectors   []shown // as written, for `policy selectors`
}

// entry is one member of a rule: who, on which ports, allowed or not.
type entry struct {
	dir       model.Direction
	rank      rank
	deny      bool
	pass      bool // neither: the next tier is to be asked
	audit     bool // of a policy in audit mode
	first     bool // before everything: allow-localhost
	endpoints bool // peers are from/toEndpoints: requirements apply
	peers     *peers
	ports     []portSpec // nil: every protocol
	rule      model.RuleID
	place     string // policy key | rule | section: orders entries of equal rank and weight
	content   string // equal contents, equal effect on the same peers
}

// shown is a selector for people.
type shown struct {
	text string
	one  *peers // nil: everybody
}

// compiler turns policies into rules, with the groups known at the time.
type compiler struct {
	groups map[string]parse.CIDRGroup
	ids    *ruleIDs
}

func (c *compiler) compile(p parse.Policy) (*compiled, error) {
	out := &compiled{policy: p}
	if p.Key == "" {
		return nil, fmt.Errorf("compile policy: no key")
	}
	sc := scope{kind: p.Ref.Kind, namespace: p.Ref.Namespace}
	if p.Cluster != nil {
		if err := c.cluster(out); err != nil {
			return nil, fmt.Errorf("compile policy %s: %w", p.Key, err)
		}
		return out, nil
	}
	for i := range p.Rules {
		r, err := c.rule(out, sc, i)
		if err != nil {
			return nil, fmt.Errorf("compile policy %s: %w", p.Key, err)
		}
		out.rules = append(out.rules, r)
	}
	return out, nil
}

func (c *compiler) rule(cp *compiled, sc scope, i int) (*rule, error) {
	src := &cp.policy.Rules[i]
	if src.EndpointSelector == nil {
		return nil, fmt.Errorf("rule %d: no endpointSelector", i)
	}
	r := &rule{policy: cp, subject: sc.subject(requirements(*src.EndpointSelector, model.SourceAny))}
	r.defaultDeny[model.Ingress] = len(src.Ingress)+len(src.IngressDeny) > 0
	r.defaultDeny[model.Egress] = len(src.Egress)+len(src.EgressDeny) > 0
	if d := src.EnableDefaultDeny; d != nil {
		if d.Ingress != nil {
			r.defaultDeny[model.Ingress] = *d.Ingress
		}
		if d.Egress != nil {
			r.defaultDeny[model.Egress] = *d.Egress
		}
	}
	for _, s := range []struct {
		name string
		deny bool
		list []member
	}{
		{"ingress", false, ingressMembers(src.Ingress)}, {"ingressDeny", true, ingressMembers(src.IngressDeny)},
		{"egress", false, egressMembers(src.Egress)}, {"egressDeny", true, egressMembers(src.EgressDeny)},
	} {
		for j, m := range s.list {
			section := fmt.Sprintf("%s[%d]", s.name, j)
			if err := c.member(r, sc, i, section, s.deny, m); err != nil {
				return nil, fmt.Errorf("rule %d: %s: %w", i, section, err)
			}
		}
	}
	return r, nil
}

// member is an ingress or egress member, direction aside.
type member struct {
	dir                        model.Direction
	endpoints, requires, nodes []v2.LabelSelector
	cidr                       []string
	cidrSet                    []v2.CIDRRule
	entities                   []v2.Entity
	ports                      []v2.PortRule
	icmps                      []v2.ICMPRule
}

func ingressMembers(in []v2.IngressRule) []member {
	out := make([]member, len(in))
	for i, m := range in {
		out[i] = member{model.Ingress, m.FromEndpoints, m.FromRequires, m.FromNodes, m.FromCIDR, m.FromCIDRSet,
			m.FromEntities, m.ToPorts, m.ICMPs}
	}
	return out
}

func egressMembers(in []v2.EgressRule) []member {
	out := make([]member, len(in))
	for i, m := range in {
		out[i] = member{model.Egress, m.ToEndpoints, m.ToRequires, m.ToNodes, m.ToCIDR, m.ToCIDRSet, m.ToEntities,
			m.ToPorts, m.ICMPs}
	}
	return out
}

// anyPeer says that nothing of the member speaks of peers.
func (m *member) anyPeer() bool {
	return m.endpoints == nil && m.requires == nil && m.nodes == nil && m.cidr == nil && m.cidrSet == nil && m.entities == nil
}

func (c *compiler) member(r *rule, sc scope, i int, section string, deny bool, m member) error {
	for _, s := range m.requires {
		r.requires[m.dir] = append(r.requires[m.dir], sc.peer(requirements(s, model.SourceAny))...)
	}
	ports, limited, err := portSpecs(m.ports, m.icmps)
	if err != nil {
		return err
	}
	var who *peers
	if m.anyPeer() {
		if !limited {
			return nil // neither peers nor ports: says nothing but that the list is there
		}
	} else {
		terms, everybody, err := c.terms(r, sc, &m)
		if err != nil {
			return err
		}
		if !everybody {
			who = newPeers(terms)
		}
	}
	if who != nil && len(who.terms) == 0 {
		return nil // selects nobody
	}
	p := &r.policy.policy
	where := section
	if len(p.Rules) > 1 {
		where = fmt.Sprintf("specs[%d].%s", i, section)
	}
	e := &entry{dir: m.dir, rank: rank{tier: model.TierNormal}, deny: deny, audit: p.Audit, endpoints: m.endpoints != nil, peers: who, ports: ports,
		place: fmt.Sprintf("%s|%06d|%s", p.Key, i, section)}
	e.rule = c.ids.user(e.place, model.RuleRef{Policies: []model.PolicyRef{p.Ref}, Section: where, Tier: model.TierNormal,
		Ingress: m.dir == model.Ingress, Deny: deny, Text: ruleText(p, where, &p.Rules[i])})
	e.content = e.describe()
	r.entries = append(r.entries, e)
	return nil
}

// terms are the peers a member names; everybody is true when that needs no term.
func (c *compiler) terms(r *rule, sc scope, m *member) (out []term, everybody bool, err error) {
	show := func(text string, ts ...term) {
		r.selectors = append(r.selectors, shown{text: text, one: newPeers(ts)})
		out = append(out, ts...)
	}
	for _, s := range m.endpoints {
		t := term{reqs: sc.peer(requirements(s, model.SourceAny))}
		show(t.String(), t)
	}
	for _, s := range m.nodes {
		t := term{kind: termNode, reqs: canonical(requirements(s, model.SourceNode))}
		show(t.String(), t)
	}
	for _, e := range m.entities {
		if e == v2.EntityAll {
			everybody = true
			r.selectors = append(r.selectors, shown{text: "entity all"})
			continue
		}
		show("entity "+string(e), entityTerms(e)...)
	}
	for _, s := range m.cidr {
		p, err := v2.ParseCIDR(s)
		if err != nil {
			return nil, false, err
		}
		t, _ := cidrTerm(p, nil, false)
		show(t.String(), t)
	}
	for _, s := range m.cidrSet {
		ts, err := c.cidrSet(r, s)
		if err != nil {
			return nil, false, err
		}
		text := make([]string, len(ts))
		for i := range ts {
			text[i] = ts[i].String()
		}
		show(strings.Join(text, " | "), ts...)
	}
	return out, everybody, nil
}

func (c *compiler) cidrSet(r *rule, s v2.CIDRRule) ([]term, error) {
	var prefixes, except []netip.Prefix
	for _, x := range s.Except {
		p, err := v2.ParseCIDR(x)
		if err != nil {
			return nil, err
		}
		except = append(except, p)
	}
	switch {
	case s.CIDRGroupRef != "":
		r.policy.byGroups = true
		prefixes = c.groups[s.CIDRGroupRef].CIDRs
	case s.CIDRGroupSelector != nil:
		r.policy.byGroups = true
		reqs := requirements(*s.CIDRGroupSelector, model.SourceAny)
		for _, g := range c.groups {
			if matchAll(reqs, g.Labels) {
				prefixes = append(prefixes, g.CIDRs...)
			}
		}
	default:
		p, err := v2.ParseCIDR(s.CIDR)
		if err != nil {
			return nil, err
		}
		prefixes = []netip.Prefix{p}
	}
	block := r.policy.policy.Ref.Kind == model.KindNetworkPolicy
	var out []term
	for _, p := range prefixes {
		if t, ok := cidrTerm(p, except, block); ok {
			out = append(out, t)
		}
	}
	return out, nil
}

func (e *entry) describe() string {
	who := "*"
	if e.peers != nil {
		who = e.peers.key
	}
	return fmt.Sprintf("%d %v %t %t %t %t %d %s %s %v", e.dir, e.rank, e.deny, e.pass, e.audit, e.first, e.rule, e.place, who, e.ports)
}

// name is how people call a policy.
func name(r model.PolicyRef, key string) string {
	switch {
	case r.Kind != "" && r.Namespace != "":
		return r.Kind + " " + r.Namespace + "/" + r.Name
	case r.Kind != "":
		return r.Kind + " " + r.Name
	case r.Name != "":
		return r.Name
	}
	return key
}

func ruleText(p *parse.Policy, section string, r *v2.Rule) string {
	s := name(p.Ref, p.Key) + " " + section
	if p.Audit {
		s += " (audit)"
	}
	if r.Log != nil && r.Log.Value != "" {
		s += " [" + r.Log.Value + "]"
	}
	return s
}
