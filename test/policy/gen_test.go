package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"pgregory.net/rapid"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/policygen"
)

// What the random policies are made of: a small world, so that things meet.
var (
	genPrefix = rapid.SampledFrom([]string{"0.0.0.0/0", "128.0.0.0/1", "198.51.0.0/16", "198.51.100.0/24", "198.51.100.7/32", "198.51.100.7",
		"10.0.0.0/8", "10.0.2.0/24", "10.0.2.96/27", "10.0.2.33/32", "10.0.1.0/24", "10.0.1.17/32", "192.0.2.0/24", "192.0.2.2/32", "192.0.2.1/32", "10.0.1.1/32",
		"203.0.113.0/24", "203.0.113.6/32", "::/0", "2000::/3", "2001:db8::/32", "2001:db8:ffff::/48", "2001:db8:ffff::7/128", "2001:db8:ffff::8", "fd00::/8",
		"fd00:2::/64", "fd00:2::80/121", "fd00:2::21/128", "fd77::/16"})
	genKey = rapid.SampledFrom([]string{"app", "k8s:app", "any:app", "role", "k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace",
		"reserved:host", "reserved:world", "reserved:remote-node", "reserved:health", "container:role", "io.cilium.k8s.namespace.labels.team",
		"node:zone", "zone", "reserved:unmanaged", "reserved:world-ipv4"})
	genValue   = rapid.SampledFrom([]string{"x", "y", "z", "a", "b", ""})
	genPortNum = rapid.SampledFrom([]string{"80", "81", "443", "8080", "0", "web", "web", "dns", "1", "65535"})
	genProto   = rapid.SampledFrom([]v2.Protocol{"", v2.ProtoAny, v2.ProtoTCP, v2.ProtoTCP, v2.ProtoUDP, v2.ProtoSCTP, "udp"})
	genPorts   = rapid.SampledFrom([][]model.NamedPort{nil, {{Name: "web", Port: 80, Proto: 6}}, {{Name: "WEB", Port: 81, Proto: 6}, {Name: "dns", Port: 53, Proto: 17}},
		{{Name: "web", Port: 8080, Proto: 6}, {Name: "web", Port: 80, Proto: 132}, {Name: "dns", Port: 53, Proto: 6}}})
	genWorkload = rapid.IntRange(1000, 1009)
)

func listOf[T any](t *rapid.T, lo, hi int, gen func(*rapid.T) T) []T {
	out := []T{}
	for range rapid.IntRange(lo, hi).Draw(t, "n") {
		out = append(out, gen(t))
	}
	return out
}

func one(t *rapid.T, in int, label string) bool { return rapid.IntRange(0, in-1).Draw(t, label) == 0 }

func genSelector(t *rapid.T) v2.LabelSelector {
	var s v2.LabelSelector
	if !one(t, 3, "no labels") {
		s.MatchLabels = rapid.MapOfN(genKey, genValue, 0, 1).Draw(t, "matchLabels")
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "expressions") {
		r := v2.Requirement{Key: genKey.Draw(t, "key"),
			Operator: rapid.SampledFrom([]v2.Operator{v2.OpIn, v2.OpNotIn, v2.OpExists, v2.OpDoesNotExist}).Draw(t, "operator")}
		if r.Operator == v2.OpIn || r.Operator == v2.OpNotIn {
			r.Values = rapid.SliceOfN(genValue, 1, 2).Draw(t, "values")
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func genCIDRRule(t *rapid.T) v2.CIDRRule {
	var c v2.CIDRRule
	switch rapid.IntRange(0, 3).Draw(t, "which") {
	case 0, 1:
		c.CIDR = genPrefix.Draw(t, "cidr")
	case 2:
		c.CIDRGroupRef = rapid.SampledFrom([]string{"g1", "g2", "none"}).Draw(t, "group")
	case 3:
		c.CIDRGroupSelector = &v2.LabelSelector{MatchLabels: map[string]string{"kind": rapid.SampledFrom([]string{"p", "q"}).Draw(t, "kind")}}
	}
	if rapid.Bool().Draw(t, "excepts") {
		c.Except = listOf(t, 0, 2, func(t *rapid.T) string { return genPrefix.Draw(t, "except") })
	}
	return c
}

func genPort(t *rapid.T) v2.PortProtocol {
	p := v2.PortProtocol{Port: genPortNum.Draw(t, "port"), Protocol: genProto.Draw(t, "protocol")}
	if n, named, _ := p.Number(); !named && n > 0 && one(t, 3, "range") {
		p.EndPort = int32(rapid.IntRange(int(n), 65535).Draw(t, "endPort"))
	}
	return p
}

// genLong are ports enough for a list that does not fit into one row.
func genLong(t *rapid.T) []v2.PortProtocol {
	var out []v2.PortProtocol
	at := rapid.IntRange(1, 90).Draw(t, "first")
	for range rapid.IntRange(17, 40).Draw(t, "ports") {
		p := v2.PortProtocol{Port: strconv.Itoa(at), Protocol: genProto.Draw(t, "protocol")}
		if one(t, 3, "range") {
			at += rapid.IntRange(1, 700).Draw(t, "length")
			p.EndPort = int32(at)
		}
		out = append(out, p)
		at += rapid.IntRange(1, 500).Draw(t, "gap")
	}
	return out
}

func genICMP(t *rapid.T) v2.ICMPField {
	return v2.ICMPField{Family: rapid.SampledFrom([]string{"", "IPv4", "IPv6"}).Draw(t, "family"),
		Type: &v2.ICMPType{Number: rapid.SampledFrom([]uint8{0, 8, 13, 128, 129, 139}).Draw(t, "type")}}
}

func genMember(t *rapid.T, deny bool) v2.IngressRule {
	var m v2.IngressRule
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
	case 1, 2, 3:
		m.FromEndpoints = listOf(t, 0, 2, genSelector)
		if !deny && one(t, 4, "requires") {
			m.FromRequires = listOf(t, 0, 1, genSelector)
		}
	case 4, 5:
		m.FromCIDR = listOf(t, 0, 2, func(t *rapid.T) string { return genPrefix.Draw(t, "cidr") })
	case 6, 7:
		m.FromCIDRSet = listOf(t, 0, 2, genCIDRRule)
	case 8:
		m.FromEntities = listOf(t, 0, 2, func(t *rapid.T) v2.Entity { return rapid.SampledFrom(v2.Entities()).Draw(t, "entity") })
	case 9:
		m.FromNodes = listOf(t, 0, 2, genSelector)
	}
	switch rapid.IntRange(0, 7).Draw(t, "l4") {
	case 0, 1, 2, 3:
		m.ToPorts = []v2.PortRule{{Ports: listOf(t, 1, 3, genPort)}}
	case 4:
		m.ToPorts = []v2.PortRule{{Ports: genLong(t)}}
	case 5:
		m.ICMPs = []v2.ICMPRule{{Fields: listOf(t, 1, 2, genICMP)}}
	}
	return m
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
	s := v2.LabelSelector{}
	if rapid.Bool().Draw(t, "subject") {
		s = genSelector(t)
	}
	r := v2.Rule{EndpointSelector: &s}
	section := func(name string, deny bool) []v2.IngressRule {
		if rapid.Bool().Draw(t, name) {
			return nil
		}
		return listOf(t, 0, 2, func(t *rapid.T) v2.IngressRule { return genMember(t, deny) })
	}
	r.Ingress, r.IngressDeny = section("ingress", false), section("ingressDeny", true)
	r.Egress, r.EgressDeny = egress(section("egress", false)), egress(section("egressDeny", true))
	if one(t, 4, "enableDefaultDeny") {
		in := rapid.Bool().Draw(t, "ingressDefault")
		r.EnableDefaultDeny = &v2.DefaultDeny{Ingress: &in}
		if rapid.Bool().Draw(t, "both") {
			out := rapid.Bool().Draw(t, "egressDefault")
			r.EnableDefaultDeny.Egress = &out
		}
	}
	return r
}

var words = policygen.Words{Namespaces: []string{v1alpha2.KeyNamespaceName, "team"}, Pods: []string{"app", "role", model.KeyNamespace},
	Nodes: []string{"zone"}, Values: []string{"x", "y", "z", "a", "b", ""}, Ports: []int32{80, 81, 443, 8080, 53, 1, 65535}, Names: []string{"web", "dns"},
	Networks: []string{"0.0.0.0/0", "::/0", "128.0.0.0/1", "198.51.0.0/16", "198.51.100.0/24", "198.51.100.7/32", "10.0.0.0/8", "10.0.2.0/24", "192.0.2.0/24",
		"203.0.113.0/24", "2000::/3", "2001:db8::/32", "2001:db8:ffff::/48", "2001:db8:ffff::7/128", "fd00::/8", "fd77::/16"}}

// Policies p0 to p5 are of tier Normal, p6 to p8 of the others, p9 and p10 of tier Normal and with blocks.
const policies = 11

// genBlocks is what a NetworkPolicy of Kubernetes with blocks becomes.
func genBlocks(t *rapid.T) v2.Rule {
	section := func(name string) []v2.IngressRule {
		if one(t, 3, name) {
			return nil
		}
		return listOf(t, 0, 2, func(t *rapid.T) v2.IngressRule {
			m := v2.IngressRule{FromCIDRSet: listOf(t, 1, 2, genCIDRRule)}
			if rapid.Bool().Draw(t, "ports") {
				m.ToPorts = []v2.PortRule{{Ports: listOf(t, 1, 2, genPort)}}
			}
			return m
		})
	}
	return v2.Rule{EndpointSelector: &v2.LabelSelector{}, Ingress: section("no ingress"), Egress: egress(section("no egress"))}
}

func genPolicy(t *rapid.T) parse.Policy {
	n := rapid.IntRange(0, policies-1).Draw(t, "policy")
	if n > 8 {
		return parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: one(t, 5, "audit"), Rules: []v2.Rule{genBlocks(t)},
			Ref: model.PolicyRef{Kind: model.KindNetworkPolicy, Namespace: "a", Name: fmt.Sprintf("p%d", n)}}
	}
	if n > 5 {
		return parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: one(t, 5, "audit"), Cluster: words.Cluster(t),
			Ref: model.PolicyRef{Kind: v1alpha2.KindClusterNetworkPolicy, Name: fmt.Sprintf("p%d", n)}}
	}
	p := parse.Policy{Key: fmt.Sprintf("p%d", n), Audit: one(t, 5, "audit"),
		Ref: model.PolicyRef{Kind: []string{"", v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy}[n%3], Name: fmt.Sprintf("p%d", n)}}
	if p.Ref.Kind == v2.KindNetworkPolicy {
		p.Ref.Namespace = "a"
	}
	p.Rules = listOf(t, 1, 2, genRule)
	return p
}

func genGroup(t *rapid.T, name string) (oracle.Group, parse.CIDRGroup) {
	kind := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "kind")
	g := oracle.Group{Labels: map[string]string{"kind": kind}, CIDRs: listOf(t, 0, 3, func(t *rapid.T) string { return genPrefix.Draw(t, "cidr") })}
	in := parse.CIDRGroup{Name: name, Labels: model.NewLabels(model.Label{Source: "k8s", Key: "kind", Value: kind})}
	for _, s := range g.CIDRs {
		p, err := v2.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		in.CIDRs = append(in.CIDRs, p)
	}
	return g, in
}

// workload is an identity of the cluster: the number fixes the labels.
func workload(n int, ports []model.NamedPort) policy.Identity {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	pick := func(v ...string) string { return v[r.IntN(len(v))] }
	ls := []model.Label{{Source: "k8s", Key: "app", Value: pick("x", "y", "z")}}
	if r.IntN(2) == 0 {
		ls = append(ls, model.Label{Source: pick("k8s", "container"), Key: "role", Value: pick("x", "y", "a")})
	}
	if r.IntN(4) > 0 {
		ls = append(ls, model.Label{Source: "k8s", Key: model.KeyNamespace, Value: pick("a", "b")},
			model.Label{Source: "k8s", Key: model.KeyNamespaceLabels + ".team", Value: pick("x", "y")})
	}
	if r.IntN(2) == 0 {
		ls = append(ls, model.Label{Source: "k8s", Key: model.KeyCluster, Value: pick("c1", "c2")})
	}
	return policy.Identity{Identity: model.Identity{ID: model.IdentityID(n), Labels: model.NewLabels(ls...)}, NamedPorts: ports}
}

// packets that a question may be about. Port is the ICMP type for ICMP.
var packets = [2][]oracle.Packet{
	{{Proto: 6, Port: 80}, {Proto: 6, Port: 81}, {Proto: 6, Port: 443}, {Proto: 6, Port: 8080}, {Proto: 6, Port: 65535}, {Proto: 6, Port: 1}, {Proto: 17, Port: 80},
		{Proto: 17, Port: 53}, {Proto: 17, Port: 1}, {Proto: 132, Port: 80}, {Proto: 132, Port: 5000}, {Proto: 47}, {Proto: 1, Port: 8}, {Proto: 1, Port: 0}, {Proto: 1, Port: 13}, {Proto: 1, Port: 128}},
	{{Proto: 6, Port: 80}, {Proto: 6, Port: 81}, {Proto: 6, Port: 443}, {Proto: 6, Port: 8080}, {Proto: 6, Port: 0}, {Proto: 6, Port: 65535}, {Proto: 17, Port: 80},
		{Proto: 17, Port: 53}, {Proto: 132, Port: 80}, {Proto: 132, Port: 5000}, {Proto: 47}, {Proto: 58, Port: 128}, {Proto: 58, Port: 129}, {Proto: 58, Port: 139}},
}

// genPacket draws one of them, or any port.
func genPacket(r *rand.Rand, v int) oracle.Packet {
	if r.IntN(3) > 0 {
		return packets[v][r.IntN(len(packets[v]))]
	}
	port := uint16(r.IntN(1200)) // where the long lists are
	if r.IntN(4) == 0 {
		port = uint16(r.IntN(1 << 16))
	}
	return oracle.Packet{Proto: []uint8{6, 17, 132}[r.IntN(3)], Port: port}
}
