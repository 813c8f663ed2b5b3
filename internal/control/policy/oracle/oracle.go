// Package oracle says what a packet's verdict should be, from the documented meaning of policies alone: it looks at one
// packet at a time, remembers nothing and is as slow as it is plain. Tests compare internal/control/policy and the
// datapath with it, so it shares no code with them but the types of rules and labels.
//
// The order of judgement: enforcement mode "never"; the node's own traffic (allow-localhost); tier Admin; tier Normal, whose
// default deny ends it for the workloads it is about; tier Baseline; enforcement mode "always"; else allowed. A denial of a
// policy in audit mode is noted, the judgement goes on without it, and a packet that passes in the end is then audited.
package oracle

import (
	"net/netip"
	"slices"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/model"
)

// Policy is a unit of rules.
type Policy struct {
	Kind      string // of the resource, "" for rules without a namespace
	Namespace string
	Name      string // decides among ClusterNetworkPolicies of one tier and priority
	Audit     bool
	Rules     []v2.Rule
	Cluster   *v1alpha2.ClusterSpec // of a ClusterNetworkPolicy, instead of Rules
}

// Group is a CIDR group.
type Group struct {
	Labels map[string]string
	CIDRs  []string
}

// World is all that a verdict depends on besides the two ends.
type World struct {
	Mode       string // default, always, never
	Audit      bool
	Localhost  bool // the host may reach its workloads
	CIDRNodes  bool
	Cluster    string
	IPv4, IPv6 bool
	Policies   []Policy
	Groups     map[string]Group
}

// End is one end of a connection. Addr is where it is, if that is known; an end outside the cluster has one.
type End struct {
	Labels model.Labels
	Ports  []model.NamedPort
	Audit  bool
	Addr   netip.Addr
}

// Packet is what ports and ICMP types see: Port is the destination port or the ICMP type.
type Packet struct {
	Proto uint8
	Port  uint16
}

// Judge is the verdict for a packet in a direction of self's policy; other is the peer.
func (w *World) Judge(dir model.Direction, self, other End, pkt Packet) uint8 {
	deny := uint8(model.VerdictDeny)
	if w.Audit || self.Audit {
		deny |= model.VerdictAudit
	}
	if w.Mode == "never" {
		return model.VerdictAllow
	}
	if dir == model.Ingress && w.Localhost && has(other, model.SourceReserved, "host") {
		return model.VerdictAllow
	}
	passes := func(noted bool) uint8 {
		if noted {
			return model.VerdictDeny | model.VerdictAudit
		}
		return model.VerdictAllow
	}
	admin := w.tier(v1alpha2.TierAdmin, dir, self, other, pkt)
	switch admin.action {
	case v1alpha2.ActionDeny:
		return deny
	case v1alpha2.ActionAccept:
		return passes(admin.noted)
	}
	f := w.facts(dir, self, other, pkt)
	noted := admin.noted || f.auditDenied
	switch {
	case f.denied:
		return deny
	case f.allowed:
		return passes(noted)
	case f.closed:
		return deny
	}
	noted = noted || f.auditClosed
	baseline := w.tier(v1alpha2.TierBaseline, dir, self, other, pkt)
	noted = noted || baseline.noted
	switch {
	case baseline.action == v1alpha2.ActionDeny:
		return deny
	case baseline.action == v1alpha2.ActionPass && w.Mode == "always":
		return deny
	}
	return passes(noted)
}

// facts are what the rules that select a workload say about a packet.
type facts struct{ denied, auditDenied, allowed, closed, auditClosed bool }

func (w *World) facts(dir model.Direction, self, other End, pkt Packet) facts {
	var f facts
	required := true // whether other meets every requirement
	type selecting struct {
		p *Policy
		r *v2.Rule
	}
	var rules []selecting
	for i := range w.Policies {
		p := &w.Policies[i]
		for j := range p.Rules {
			r := &p.Rules[j]
			if !matches(*r.EndpointSelector, self, model.SourceAny) {
				continue
			}
			if p.Kind == v2.KindNetworkPolicy && !hasValue(self, model.SourceK8s, model.KeyNamespace, p.Namespace) {
				continue
			}
			rules = append(rules, selecting{p, r})
			for _, m := range members(r, dir, false) {
				for _, s := range m.requires {
					required = required && w.peer(p, s, other)
				}
			}
		}
	}
	for _, s := range rules {
		closes := len(members(s.r, dir, false))+len(members(s.r, dir, true)) > 0
		if d := s.r.EnableDefaultDeny; d != nil {
			if v := d.Ingress; dir == model.Ingress && v != nil {
				closes = *v
			}
			if v := d.Egress; dir == model.Egress && v != nil {
				closes = *v
			}
		}
		f.closed = f.closed || closes && !s.p.Audit
		f.auditClosed = f.auditClosed || closes && s.p.Audit
		for _, m := range members(s.r, dir, true) {
			if w.hits(s.p, m, dir, self, other, pkt, true) {
				f.denied = f.denied || !s.p.Audit
				f.auditDenied = f.auditDenied || s.p.Audit
			}
		}
		for _, m := range members(s.r, dir, false) {
			f.allowed = f.allowed || w.hits(s.p, m, dir, self, other, pkt, required)
		}
	}
	return f
}

type member struct {
	endpoints, requires, nodes []v2.LabelSelector
	cidr                       []string
	cidrSet                    []v2.CIDRRule
	entities                   []v2.Entity
	ports                      []v2.PortRule
	icmps                      []v2.ICMPRule
}

func members(r *v2.Rule, dir model.Direction, deny bool) []member {
	var out []member
	if dir == model.Ingress {
		list := r.Ingress
		if deny {
			list = r.IngressDeny
		}
		for _, m := range list {
			out = append(out, member{m.FromEndpoints, m.FromRequires, m.FromNodes, m.FromCIDR, m.FromCIDRSet, m.FromEntities, m.ToPorts, m.ICMPs})
		}
		return out
	}
	list := r.Egress
	if deny {
		list = r.EgressDeny
	}
	for _, m := range list {
		out = append(out, member{m.ToEndpoints, m.ToRequires, m.ToNodes, m.ToCIDR, m.ToCIDRSet, m.ToEntities, m.ToPorts, m.ICMPs})
	}
	return out
}

// hits says whether a member speaks of this packet.
func (w *World) hits(p *Policy, m member, dir model.Direction, self, other End, pkt Packet, required bool) bool {
	speaksOfPeers := m.endpoints != nil || m.requires != nil || m.nodes != nil || m.cidr != nil || m.cidrSet != nil || m.entities != nil
	speaksOfPorts := m.ports != nil || m.icmps != nil
	if !speaksOfPeers && !speaksOfPorts {
		return false
	}
	named := self.Ports
	if dir == model.Egress {
		named = other.Ports
	}
	return (!speaksOfPeers || w.who(p, m, other, required)) && (!speaksOfPorts || what(m, named, pkt))
}

func (w *World) who(p *Policy, m member, other End, required bool) bool {
	for _, s := range m.endpoints {
		if required && w.peer(p, s, other) {
			return true
		}
	}
	for _, s := range m.nodes {
		if isNode(other) && matches(s, other, model.SourceNode) {
			return true
		}
	}
	for _, e := range m.entities {
		if w.entity(e, other) {
			return true
		}
	}
	for _, c := range m.cidr {
		if w.inCIDR(c, other, false) {
			return true
		}
	}
	for _, c := range m.cidrSet {
		if w.inSet(c, other, p.Kind == model.KindNetworkPolicy) {
			return true
		}
	}
	return false
}

func what(m member, named []model.NamedPort, pkt Packet) bool {
	for _, r := range m.ports {
		if slices.ContainsFunc(r.Ports, func(p v2.PortProtocol) bool { return onPort(p, named, pkt) }) {
			return true
		}
	}
	for _, r := range m.icmps {
		if slices.ContainsFunc(r.Fields, func(f v2.ICMPField) bool { return onType(f, pkt) }) {
			return true
		}
	}
	return false
}

// peer applies a peer selector within the scope of its policy.
func (w *World) peer(p *Policy, s v2.LabelSelector, other End) bool {
	if !matches(s, other, model.SourceAny) {
		return false
	}
	asksReserved, asksNamespace, otherNamespace := false, false, false
	see := func(key string, op v2.Operator) {
		source, k, ok := strings.Cut(key, ":")
		if !ok {
			source, k = model.SourceAny, key
		}
		ns := (source == model.SourceAny || source == model.SourceK8s) &&
			(k == model.KeyNamespace || strings.HasPrefix(k, model.KeyNamespaceLabels+"."))
		positive := op == v2.OpIn || op == v2.OpExists
		asksReserved = asksReserved || positive && source == model.SourceReserved
		asksNamespace = asksNamespace || positive && ns
		otherNamespace = otherNamespace || op == v2.OpNotIn && ns
	}
	for k := range s.MatchLabels {
		see(k, v2.OpIn)
	}
	for _, e := range s.MatchExpressions {
		see(e.Key, e.Operator)
	}
	switch {
	case p.Kind == "" || asksReserved || asksNamespace:
		return true
	case p.Kind == v2.KindNetworkPolicy && !otherNamespace:
		return hasValue(other, model.SourceK8s, model.KeyNamespace, p.Namespace)
	}
	return has(other, model.SourceK8s, model.KeyNamespace)
}

func matches(s v2.LabelSelector, e End, def string) bool {
	for k, v := range s.MatchLabels {
		if !expression(k, v2.OpIn, []string{v}, e, def) {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		if !expression(r.Key, r.Operator, r.Values, e, def) {
			return false
		}
	}
	return true
}

func expression(key string, op v2.Operator, values []string, e End, def string) bool {
	source, k, ok := strings.Cut(key, ":")
	if !ok {
		source, k = def, key
	}
	if source == model.SourceAny && (k == model.KeyNamespace || k == model.KeyCluster || k == model.KeyServiceAccount ||
		strings.HasPrefix(k, model.KeyNamespaceLabels+".")) {
		source = model.SourceK8s
	}
	there, in := false, false
	for _, l := range e.Labels {
		if l.Key == k && (source == model.SourceAny || source == l.Source) {
			there = true
			in = in || slices.Contains(values, l.Value)
		}
	}
	switch op {
	case v2.OpIn:
		return in
	case v2.OpNotIn:
		return !in
	case v2.OpExists:
		return there
	}
	return !there
}

func has(e End, source, key string) bool {
	return slices.ContainsFunc(e.Labels, func(l model.Label) bool { return l.Source == source && l.Key == key })
}

func hasValue(e End, source, key, value string) bool {
	return slices.ContainsFunc(e.Labels, func(l model.Label) bool { return l.Source == source && l.Key == key && l.Value == value })
}

func isNode(e End) bool {
	return has(e, model.SourceReserved, "remote-node") ||
		slices.ContainsFunc(e.Labels, func(l model.Label) bool { return l.Source == model.SourceNode })
}
