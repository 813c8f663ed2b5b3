package parse

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
)

// checkRule reports what is well-formed and yet wrong. n may lack what was of the wrong type.
func (d *decoder) checkRule(n *node, path string, r *v2.Rule) {
	if path != "" {
		path += "."
	}
	switch {
	case n.get("endpointSelector") != nil && r.EndpointSelector != nil:
		d.checkSelector(path+"endpointSelector", *r.EndpointSelector)
	case n.get("endpointSelector") == nil && n.get("nodeSelector") == nil:
		d.fail(path+"endpointSelector", "missing; {} selects all workloads in the policy's scope")
	}
	if r.Ingress == nil && r.IngressDeny == nil && r.Egress == nil && r.EgressDeny == nil && r.EnableDefaultDeny == nil &&
		!slices.ContainsFunc(n.keys, isSection) {
		d.fail(strings.TrimSuffix(path, "."), "the rule says nothing; want ingress, ingressDeny, egress or egressDeny")
	}
	for i, m := range r.Ingress {
		d.checkMember(fmt.Sprintf("%singress[%d]", path, i), ingressMember(m), false)
	}
	for i, m := range r.IngressDeny {
		d.checkMember(fmt.Sprintf("%singressDeny[%d]", path, i), ingressMember(m), true)
	}
	for i, m := range r.Egress {
		d.checkMember(fmt.Sprintf("%segress[%d]", path, i), egressMember(m), false)
	}
	for i, m := range r.EgressDeny {
		d.checkMember(fmt.Sprintf("%segressDeny[%d]", path, i), egressMember(m), true)
	}
	for i, l := range r.Labels {
		if l.Key == "" || !printable(l.Key) || !printable(l.Value) || !printable(l.Source) {
			d.fail(fmt.Sprintf("%slabels[%d]", path, i), "bad label: want a key, and printable characters only")
		}
	}
	if r.Log != nil && !printable(r.Log.Value) {
		d.fail(path+"log.value", "want printable characters only")
	}
}

func isSection(k string) bool {
	return k == "ingress" || k == "ingressDeny" || k == "egress" || k == "egressDeny" || k == "enableDefaultDeny"
}

// member is what ingress and egress members have in common.
type member struct {
	word                       string // "from" or "to"
	endpoints, requires, nodes []v2.LabelSelector
	cidr                       []string
	cidrSet                    []v2.CIDRRule
	entities                   []v2.Entity
	ports                      []v2.PortRule
	icmps                      []v2.ICMPRule
}

func ingressMember(m v2.IngressRule) member {
	return member{"from", m.FromEndpoints, m.FromRequires, m.FromNodes, m.FromCIDR, m.FromCIDRSet, m.FromEntities, m.ToPorts, m.ICMPs}
}

func egressMember(m v2.EgressRule) member {
	return member{"to", m.ToEndpoints, m.ToRequires, m.ToNodes, m.ToCIDR, m.ToCIDRSet, m.ToEntities, m.ToPorts, m.ICMPs}
}

func (d *decoder) checkMember(path string, m member, deny bool) {
	var kinds []string
	add := func(name string, count int) {
		if count > 0 {
			kinds = append(kinds, m.word+name)
		}
	}
	add("Endpoints", len(m.endpoints))
	add("CIDR", len(m.cidr))
	add("CIDRSet", len(m.cidrSet))
	add("Entities", len(m.entities))
	add("Nodes", len(m.nodes))
	if len(kinds) > 1 {
		d.fail(path, "one member holds one kind of peer, here are %s; write a member for each", strings.Join(kinds, " and "))
	}
	if m.requires != nil && deny {
		d.fail(path+"."+m.word+"Requires", "a requirement limits what is allowed; it cannot be part of a deny rule")
	}
	if len(m.requires) > 0 && len(kinds) == 1 && len(m.endpoints) == 0 {
		d.fail(path+"."+m.word+"Requires", "goes only with %sEndpoints", m.word)
	}
	for _, list := range []struct {
		name string
		sels []v2.LabelSelector
	}{{"Endpoints", m.endpoints}, {"Requires", m.requires}, {"Nodes", m.nodes}} {
		for i, s := range list.sels {
			d.checkSelector(fmt.Sprintf("%s.%s%s[%d]", path, m.word, list.name, i), s)
		}
	}
	for i, s := range m.cidr {
		if _, err := v2.ParseCIDR(s); err != nil {
			d.fail(fmt.Sprintf("%s.%sCIDR[%d]", path, m.word, i), "%v", err)
		}
	}
	for i, c := range m.cidrSet {
		d.checkCIDRRule(fmt.Sprintf("%s.%sCIDRSet[%d]", path, m.word, i), c)
	}
	for i, e := range m.entities {
		if !slices.Contains(v2.Entities(), e) {
			d.fail(fmt.Sprintf("%s.%sEntities[%d]", path, m.word, i), "unknown entity %q; known: %s", e, entityNames())
		}
	}
	if m.icmps != nil && m.ports != nil {
		d.fail(path+".icmps", "not together with toPorts; write a member for each")
	}
	d.checkPorts(path, m.ports)
	d.checkICMPs(path, m.icmps)
}

func entityNames() string {
	var names []string
	for _, e := range v2.Entities() {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}

func (d *decoder) checkCIDRRule(path string, c v2.CIDRRule) {
	given := 0
	for _, ok := range []bool{c.CIDR != "", c.CIDRGroupRef != "", c.CIDRGroupSelector != nil} {
		if ok {
			given++
		}
	}
	if given != 1 {
		d.fail(path, "want exactly one of cidr, cidrGroupRef and cidrGroupSelector")
	}
	outer, err := v2.ParseCIDR(c.CIDR)
	if c.CIDR != "" && err != nil {
		d.fail(path+".cidr", "%v", err)
	}
	if c.CIDRGroupSelector != nil {
		d.checkSelector(path+".cidrGroupSelector", *c.CIDRGroupSelector)
	}
	for i, s := range c.Except {
		at := fmt.Sprintf("%s.except[%d]", path, i)
		p, perr := v2.ParseCIDR(s)
		switch {
		case perr != nil:
			d.fail(at, "%v", perr)
		case c.CIDR != "" && err == nil && !(p.Bits() >= outer.Bits() && outer.Contains(p.Addr())):
			d.fail(at, "%s is not inside %s", p, outer)
		}
	}
}

func (d *decoder) checkSelector(path string, s v2.LabelSelector) {
	for k, v := range s.MatchLabels {
		if why := badKey(k); why != "" {
			d.fail(fmt.Sprintf("%s.matchLabels[%q]", path, k), "%s", why)
		}
		if !printable(v) {
			d.fail(fmt.Sprintf("%s.matchLabels[%q]", path, k), "the value has characters that cannot be printed")
		}
	}
	for i, r := range s.MatchExpressions {
		at := fmt.Sprintf("%s.matchExpressions[%d]", path, i)
		if why := badKey(r.Key); why != "" {
			d.fail(at+".key", "%s", why)
		}
		switch r.Operator {
		case v2.OpIn, v2.OpNotIn:
			if len(r.Values) == 0 {
				d.fail(at+".values", "%s needs at least one value", r.Operator)
			}
		case v2.OpExists, v2.OpDoesNotExist:
			if len(r.Values) > 0 {
				d.fail(at+".values", "%s takes no values", r.Operator)
			}
		default:
			d.fail(at+".operator", "unknown operator %q; want In, NotIn, Exists or DoesNotExist", r.Operator)
		}
		for _, v := range r.Values {
			if !printable(v) {
				d.fail(at+".values", "a value has characters that cannot be printed")
			}
		}
	}
}

// badKey says what is wrong with the key of a selector, "" when nothing is.
func badKey(k string) string {
	source, key, found := strings.Cut(k, ":")
	if !found {
		source, key = "any", k
	}
	switch {
	case source == "" || key == "":
		return fmt.Sprintf("key %q: want [source:]key", k)
	case len(k) > 512:
		return "the key is longer than 512 characters"
	case strings.ContainsAny(k, "= ;") || !printable(k):
		return fmt.Sprintf("key %q: no blanks, \"=\" or \";\" and printable characters only", k)
	}
	return ""
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return len(s) <= 4096
}
