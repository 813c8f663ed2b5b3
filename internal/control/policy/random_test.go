package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/policygen"
)

// Generators of a small world, where everything meets everything.

var (
	genCIDR = rapid.SampledFrom([]string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32",
		"10.1.2.3", "192.0.2.0/24", "fd00::/8", "fd00:1::/32", "fd00:1::1", "128.0.0.0/1"})
	genKey = rapid.SampledFrom([]string{"app", "k8s:app", "any:role", "role", "k8s:io.kubernetes.pod.namespace",
		"io.kubernetes.pod.namespace", "reserved:host", "reserved:world", "reserved:remote-node", "container:app",
		"io.cilium.k8s.namespace.labels.team", "node:zone", "zone"})
	genValue   = rapid.SampledFrom([]string{"x", "y", "a", "b", ""})
	genPortNum = rapid.SampledFrom([]string{"80", "81", "443", "0", "web", "dns", "1", "65535"})
	outside    = []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.2.4"), netip.MustParseAddr("10.1.9.9"),
		netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("8.8.8.8"),
		netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd77::1"), netip.MustParseAddr("2001:db8::1")}
	packets = []oracle.Packet{{Proto: 6, Port: 80}, {Proto: 6, Port: 81}, {Proto: 6, Port: 443}, {Proto: 6, Port: 0}, {Proto: 6, Port: 65535},
		{Proto: 17, Port: 80}, {Proto: 17, Port: 53}, {Proto: 132, Port: 80}, {Proto: 1, Port: 8}, {Proto: 58, Port: 128}, {Proto: 58, Port: 8},
		{Proto: 47, Port: 0}}
	portSets = [][]model.NamedPort{nil, {{Name: "web", Port: 80, Proto: 6}}, {{Name: "Web", Port: 81, Proto: 6}, {Name: "dns", Port: 53, Proto: 17}},
		{{Name: "web", Port: 80, Proto: 6}, {Name: "web", Port: 443, Proto: 6}, {Name: "web", Port: 80, Proto: 17}}, {{Name: "other", Port: 1, Proto: 6}}}
)

func genSelector(t *rapid.T) v2.LabelSelector {
	var s v2.LabelSelector
	if rapid.IntRange(0, 2).Draw(t, "labels") > 0 {
		s.MatchLabels = rapid.MapOfN(genKey, genValue, 0, 1).Draw(t, "matchLabels")
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "expressions") {
		r := v2.Requirement{Key: genKey.Draw(t, "key"), Operator: rapid.SampledFrom([]v2.Operator{v2.OpIn, v2.OpNotIn, v2.OpExists,
			v2.OpDoesNotExist}).Draw(t, "operator")}
		if r.Operator == v2.OpIn || r.Operator == v2.OpNotIn {
			r.Values = rapid.SliceOfN(genValue, 1, 2).Draw(t, "values")
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func list[T any](t *rapid.T, lo, hi int, gen func(*rapid.T) T) []T {
	out := []T{}
	for range rapid.IntRange(lo, hi).Draw(t, "n") {
		out = append(out, gen(t))
	}
	return out
}

func genMember(t *rapid.T, deny bool) v2.IngressRule {
	var m v2.IngressRule
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
	case 1, 2:
		m.FromEndpoints = list(t, 0, 2, genSelector)
		if !deny && rapid.IntRange(0, 3).Draw(t, "requires") == 0 {
			m.FromRequires = list(t, 0, 1, genSelector)
		}
	case 3:
		m.FromCIDR = list(t, 0, 2, func(t *rapid.T) string { return genCIDR.Draw(t, "cidr") })
	case 4:
		m.FromCIDRSet = list(t, 0, 2, genCIDRRule)
	case 5:
		m.FromEntities = list(t, 0, 2, func(t *rapid.T) v2.Entity { return rapid.SampledFrom(v2.Entities()).Draw(t, "entity") })
	case 6:
		m.FromNodes = list(t, 0, 2, genSelector)
	case 7:
		if !deny {
			m.FromRequires = list(t, 0, 1, genSelector)
		}
	}
	switch rapid.IntRange(0, 3).Draw(t, "l4") {
	case 0, 1:
		m.ToPorts = []v2.PortRule{{Ports: list(t, 1, 3, genPort)}}
	case 2:
		if rapid.Bool().Draw(t, "icmp") {
			m.ICMPs = []v2.ICMPRule{{Fields: []v2.ICMPField{{Family: rapid.SampledFrom([]string{"", "IPv4", "IPv6"}).Draw(t, "family"),
				Type: &v2.ICMPType{Number: rapid.SampledFrom([]uint8{8, 128}).Draw(t, "type")}}}}}
		}
	}
	return m
}

func genCIDRRule(t *rapid.T) v2.CIDRRule {
	var c v2.CIDRRule
	switch rapid.IntRange(0, 3).Draw(t, "which") {
	case 0, 1:
		c.CIDR = genCIDR.Draw(t, "cidr")
	case 2:
		c.CIDRGroupRef = rapid.SampledFrom([]string{"g1", "g2", "none"}).Draw(t, "group")
	case 3:
		c.CIDRGroupSelector = &v2.LabelSelector{MatchLabels: map[string]string{"kind": rapid.SampledFrom([]string{"p", "q"}).Draw(t, "kind")}}
	}
	if rapid.IntRange(0, 2).Draw(t, "nested") == 0 {
		return v2.CIDRRule{CIDR: rapid.SampledFrom([]string{"10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16"}).Draw(t, "outer"),
			Except: []string{rapid.SampledFrom([]string{"10.1.2.0/24", "10.1.2.3", "10.1.2.4"}).Draw(t, "inner")}}
	}
	if rapid.Bool().Draw(t, "excepts") {
		c.Except = list(t, 0, 2, func(t *rapid.T) string {
			return genCIDR.Filter(func(s string) bool { return s != "0.0.0.0/0" && s != "::/0" }).Draw(t, "except")
		})
	}
	return c
}

func genPort(t *rapid.T) v2.PortProtocol {
	p := v2.PortProtocol{Port: genPortNum.Draw(t, "port"), Protocol: rapid.SampledFrom([]v2.Protocol{"", v2.ProtoAny, v2.ProtoTCP, v2.ProtoUDP,
		v2.ProtoSCTP, "tcp"}).Draw(t, "protocol")}
	if n, named, _ := p.Number(); !named && n > 0 && rapid.IntRange(0, 2).Draw(t, "range") == 0 {
		p.EndPort = int32(rapid.IntRange(int(n), 65535).Draw(t, "endPort"))
	}
	return p
}

func egress(in []v2.IngressRule) []v2.EgressRule {
	if in == nil {
		return nil
	}
	out := []v2.EgressRule{}
	for _, m := range in {
		out = append(out, v2.EgressRule{ToEndpoints: m.FromEndpoints, ToRequires: m.FromRequires, ToCIDR: m.FromCIDR, ToCIDRSet: m.FromCIDRSet,
			ToEntities: m.FromEntities, ToNodes: m.FromNodes, ToPorts: m.ToPorts, ICMPs: m.ICMPs})
	}
	return out
}

func genRule(t *rapid.T) v2.Rule {
	var r v2.Rule
	s := v2.LabelSelector{}
	if rapid.IntRange(0, 2).Draw(t, "subject") > 0 {
		s = genSelector(t)
	}
	r.EndpointSelector = &s
	section := func(name string, deny bool) []v2.IngressRule {
		if rapid.IntRange(0, 2).Draw(t, name) > 0 {
			return nil
		}
		return list(t, 0, 2, func(t *rapid.T) v2.IngressRule { return genMember(t, deny) })
	}
	r.Ingress, r.IngressDeny = section("ingress", false), section("ingressDeny", true)
	r.Egress, r.EgressDeny = egress(section("egress", false)), egress(section("egressDeny", true))
	if rapid.IntRange(0, 3).Draw(t, "enableDefaultDeny") == 0 {
		b := rapid.Bool().Draw(t, "ingressDefault")
		r.EnableDefaultDeny = &v2.DefaultDeny{Ingress: &b}
		if rapid.Bool().Draw(t, "both") {
			c := rapid.Bool().Draw(t, "egressDefault")
			r.EnableDefaultDeny.Egress = &c
		}
	}
	return r
}

var words = policygen.Words{Namespaces: []string{v1alpha2.KeyNamespaceName, "team"}, Pods: []string{"app", "role", model.KeyNamespace},
	Nodes: []string{"zone"}, Values: []string{"x", "y", "a", "b", ""}, Ports: []int32{80, 81, 443, 1, 65535}, Names: []string{"web", "dns"},
	Networks: []string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "fd00::/8", "fd00:1::/32", "fd00:1::1/128", "128.0.0.0/1"}}

// Policies p0 to p4 are of tier Normal, p5 to p7 of the others, p8 and p9 of tier Normal and with blocks.
const policies = 10

// genBlocks is what a NetworkPolicy of Kubernetes with blocks becomes.
func genBlocks(t *rapid.T) v2.Rule {
	no := false
	section := func(name string) []v2.IngressRule {
		if rapid.IntRange(0, 2).Draw(t, name) == 0 {
			return nil
		}
		return list(t, 0, 3, func(t *rapid.T) v2.IngressRule {
			m := v2.IngressRule{FromCIDRSet: list(t, 1, 2, genCIDRRule)}
			if rapid.Bool().Draw(t, "ports") {
				m.ToPorts = []v2.PortRule{{Ports: list(t, 1, 2, genPort)}}
			}
			return m
		})
	}
	s := v2.LabelSelector{}
	if rapid.Bool().Draw(t, "subject") {
		s = genSelector(t)
	}
	r := v2.Rule{EndpointSelector: &s, Ingress: section("ingress"), Egress: egress(section("egress"))}
	if rapid.IntRange(0, 3).Draw(t, "deny") == 0 {
		r.IngressDeny = section("ingress deny") // not in the language, but a block that denies all the same
	}
	if rapid.IntRange(0, 3).Draw(t, "open") == 0 {
		r.EnableDefaultDeny = &v2.DefaultDeny{Ingress: &no, Egress: &no}
	}
	return r
}

func genPolicy(t *rapid.T) parse.Policy {
	n := rapid.IntRange(0, policies-1).Draw(t, "policy")
	if n > 7 {
		return parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: rapid.IntRange(0, 3).Draw(t, "audit") == 0, Rules: list(t, 1, 2, genBlocks),
			Ref: model.PolicyRef{Kind: model.KindNetworkPolicy, Namespace: "a", Name: fmt.Sprintf("p%d", n)}}
	}
	if n > 4 {
		return parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: rapid.IntRange(0, 3).Draw(t, "audit") == 0, Cluster: words.Cluster(t),
			Ref: model.PolicyRef{Kind: v1alpha2.KindClusterNetworkPolicy, Name: fmt.Sprintf("p%d", n)}}
	}
	p := parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: rapid.IntRange(0, 3).Draw(t, "audit") == 0,
		Ref: model.PolicyRef{Kind: []string{"", v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy}[n%3], Name: fmt.Sprintf("p%d", n)}}
	if p.Ref.Kind == v2.KindNetworkPolicy {
		p.Ref.Namespace = "a"
	}
	p.Rules = list(t, 1, 2, genRule)
	return p
}

// world is the truth that engine and oracle are told.
type world struct {
	cfg        policy.Config
	policies   map[string]parse.Policy
	groups     map[string]oracle.Group
	identities map[model.IdentityID]policy.Identity
	subjects   map[uint16]policy.Subject
	homes      map[netip.Addr][]model.IdentityID // of workloads and nodes
}

func newWorld(t *rapid.T) *world {
	w := &world{policies: map[string]parse.Policy{}, groups: map[string]oracle.Group{}, subjects: map[uint16]policy.Subject{},
		identities: map[model.IdentityID]policy.Identity{}, homes: map[netip.Addr][]model.IdentityID{}}
	w.cfg = genConfig(t)
	return w
}

func genConfig(t *rapid.T) policy.Config {
	return policy.Config{
		Mode:           rapid.SampledFrom([]policy.Mode{"", policy.ModeDefault, policy.ModeDefault, policy.ModeAlways, policy.ModeNever}).Draw(t, "mode"),
		AllowLocalhost: rapid.SampledFrom([]policy.Localhost{"", policy.LocalhostPolicy}).Draw(t, "localhost"),
		Audit:          rapid.IntRange(0, 5).Draw(t, "audit") == 0, CIDRMatchNodes: rapid.Bool().Draw(t, "cidrNodes"), Cluster: "c1",
		IPv4: rapid.Bool().Draw(t, "v4"), IPv6: rapid.Bool().Draw(t, "v6")}
}

func (w *world) dual() bool { return w.cfg.IPv4 == w.cfg.IPv6 }

// Some identities are workloads, one is a remote node.
const remoteNode = model.IdentityScopeRemote + 1

// Where workloads and nodes may live. What is outside is elsewhere.
var inside = []netip.Addr{netip.MustParseAddr("10.1.2.33"), netip.MustParseAddr("10.1.2.34"), netip.MustParseAddr("10.1.9.33"),
	netip.MustParseAddr("10.9.9.33"), netip.MustParseAddr("192.0.2.33"), netip.MustParseAddr("8.8.8.33"),
	netip.MustParseAddr("fd00:1::33"), netip.MustParseAddr("fd00:1::34"), netip.MustParseAddr("fd77::33"), netip.MustParseAddr("2001:db8::33")}

// move has somebody come to an address, or nobody.
func (w *world) move(t *rapid.T, c *policy.Changes) {
	a := rapid.SampledFrom(inside).Draw(t, "address")
	c.DeleteAddresses = slices.DeleteFunc(c.DeleteAddresses, func(x netip.Addr) bool { return x == a })
	delete(c.Addresses, a)
	if rapid.IntRange(0, 3).Draw(t, "empty") == 0 {
		delete(w.homes, a)
		c.DeleteAddresses = append(c.DeleteAddresses, a)
		return
	}
	who := func(t *rapid.T) model.IdentityID {
		return rapid.SampledFrom([]model.IdentityID{1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, model.IdentityHost, remoteNode,
			model.IdentityRemoteNode, model.IdentityKubeAPI, model.IdentityWorldIPv4}).Draw(t, "who")
	}
	if c.Addresses == nil {
		c.Addresses = map[netip.Addr][]model.IdentityID{}
	}
	w.homes[a] = list(t, 1, 2, who)
	c.Addresses[a] = w.homes[a]
}

// known are the addresses of which it is known who lives there, with the one who lives there for good.
func (w *world) known() map[netip.Addr]model.IdentityID {
	out := map[netip.Addr]model.IdentityID{}
	for a, ids := range w.homes {
		id := ids[0]
		if _, ok := w.identities[id]; (ok || id < 128) && id != model.IdentityWorldIPv4 {
			out[a] = id
		}
	}
	return out
}

func genIdentity(t *rapid.T) policy.Identity {
	id := model.IdentityID(rapid.IntRange(1000, 1007).Draw(t, "identity"))
	if rapid.IntRange(0, 7).Draw(t, "special") == 0 {
		id = rapid.SampledFrom([]model.IdentityID{model.IdentityHost, remoteNode}).Draw(t, "node")
	}
	out := policy.Identity{Identity: model.Identity{ID: id}, NamedPorts: rapid.SampledFrom(portSets).Draw(t, "ports")}
	var ls []model.Label
	add := func(source, key, value string) { ls = append(ls, model.Label{Source: source, Key: key, Value: value}) }
	switch {
	case id == model.IdentityHost || id == remoteNode:
		add("node", "zone", genValue.Draw(t, "zone"))
		if id == remoteNode {
			add("reserved", "remote-node", "")
		}
	default: // the number fixes the labels, as it does in a cluster
		r := rand.New(rand.NewPCG(uint64(id), 0))
		pick := func(v ...string) string { return v[r.IntN(len(v))] }
		add("k8s", "app", pick("x", "y"))
		if r.IntN(2) == 0 {
			add(pick("k8s", "container"), pick("role", "app"), pick("x", "y", "a"))
		}
		if r.IntN(4) > 0 {
			add("k8s", model.KeyNamespace, pick("a", "b"))
			if r.IntN(2) == 0 {
				add("k8s", "io.cilium.k8s.namespace.labels.team", pick("x", "y"))
			}
		}
		if r.IntN(2) == 0 {
			add("k8s", model.KeyCluster, pick("c1", "c2"))
		}
		if r.IntN(5) == 0 {
			add("container", model.KeyNamespace, pick("a", "b"))
		}
	}
	out.Labels = model.NewLabels(ls...)
	return out
}

func (w *world) oracle() *oracle.World {
	o := &oracle.World{Mode: string(w.cfg.Mode), Audit: w.cfg.Audit, Localhost: w.cfg.AllowLocalhost != policy.LocalhostPolicy,
		CIDRNodes: w.cfg.CIDRMatchNodes, Cluster: w.cfg.Cluster, IPv4: w.cfg.IPv4 || w.dual(), IPv6: w.cfg.IPv6 || w.dual(), Groups: w.groups}
	for _, p := range w.policies {
		o.Policies = append(o.Policies, oracle.Policy{Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name, Audit: p.Audit,
			Rules: p.Rules, Cluster: p.Cluster})
	}
	return o
}

// end is an identity as the oracle sees it.
func (w *world) end(id model.IdentityID) oracle.End {
	var e oracle.End
	for _, r := range model.ReservedIdentities() {
		if r.ID == id {
			e.Labels = r.Labels
		}
	}
	if x, ok := w.identities[id]; ok {
		e.Labels = model.NewLabels(append(append([]model.Label{}, e.Labels...), x.Labels...)...)
		e.Ports = x.NamedPorts
	}
	return e
}
