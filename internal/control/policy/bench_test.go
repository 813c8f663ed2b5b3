package policy_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// bigWorld is an engine with many rules and identities, and endpoints that the rules select.
func bigWorld(b *testing.B, rules, identities, endpoints int) *policy.Engine {
	b.Helper()
	e, err := policy.New(policy.Config{}, model.PolicyState{})
	if err != nil {
		b.Fatal(err)
	}
	var c policy.Changes
	for i := range identities {
		c.Identities = append(c.Identities, bigIdentity(i))
	}
	for i := range rules {
		c.Policies = append(c.Policies, bigPolicy(i))
	}
	for i := range endpoints {
		c.Subjects = append(c.Subjects, policy.Subject{Endpoint: uint16(i + 1), Identity: model.IdentityID(1000 + i)})
	}
	if _, err := e.Apply(c); err != nil {
		b.Fatal(err)
	}
	return e
}

func bigIdentity(i int) policy.Identity {
	return policy.Identity{Identity: model.Identity{ID: model.IdentityID(1000 + i), Labels: mustLabels(fmt.Sprintf("k8s:app=a%d", i%500),
		fmt.Sprintf("k8s:pod=p%d", i), fmt.Sprintf("k8s:io.kubernetes.pod.namespace=n%d", i%20), fmt.Sprintf("k8s:tier=t%d", i%3))}}
}

func bigPolicy(i int) parse.Policy {
	sel := func(k, v string) v2.LabelSelector { return v2.LabelSelector{MatchLabels: map[string]string{k: v}} }
	subject := sel("app", fmt.Sprintf("a%d", i%100))
	from := []v2.LabelSelector{sel("app", fmt.Sprintf("a%d", (i*7)%500))}
	if i%20 == 0 {
		from = append(from, sel("k8s:tier", fmt.Sprintf("t%d", i%3)))
	}
	return parse.Policy{Key: fmt.Sprintf("rule/%d", i), Rules: []v2.Rule{{EndpointSelector: &subject, Ingress: []v2.IngressRule{{
		FromEndpoints: from,
		ToPorts:       []v2.PortRule{{Ports: []v2.PortProtocol{{Port: fmt.Sprint(1 + i%60000), Protocol: "TCP"}}}}}}}}}
}

func apply(b *testing.B, e *policy.Engine, c policy.Changes) model.PolicyPlan {
	p, err := e.Apply(c)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// A new identity with known labels-that-matter: the commonest event of a cluster.
func BenchmarkNewIdentity(b *testing.B) {
	e := bigWorld(b, 1000, 3000, 100)
	i := 0
	for b.Loop() {
		n := 3000 + i
		i++
		p := apply(b, e, policy.Changes{Identities: []policy.Identity{bigIdentity(n)}})
		if len(p.Steps) != 1 || len(p.Steps[0].Classes) != 1 || len(p.Steps[0].Lists) != 0 {
			b.Fatalf("%+v", p.Steps)
		}
	}
}

// One policy of 1000 changes, 3000 identities, 100 endpoints of which one is concerned.
func BenchmarkChangePolicy(b *testing.B) {
	e := bigWorld(b, 1000, 3000, 100)
	i := 0
	for b.Loop() {
		i++
		p := bigPolicy(7)
		p.Rules[0].Ingress[0].ToPorts[0].Ports[0].Port = fmt.Sprint(1 + i%60000)
		apply(b, e, policy.Changes{Policies: []parse.Policy{p}})
	}
}

// An endpoint comes and goes; its selectors are those of others.
func BenchmarkEndpoint(b *testing.B) {
	e := bigWorld(b, 1000, 3000, 99)
	for b.Loop() {
		apply(b, e, policy.Changes{Subjects: []policy.Subject{{Endpoint: 500, Identity: 1100}}})
		apply(b, e, policy.Changes{DeleteSubjects: []uint16{500}})
	}
}

// Everything from nothing.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		bigWorld(b, 1000, 3000, 100)
	}
}

// manyHomes are two addresses for each of so many identities, ten pods to each.
func manyHomes(pods int) (c policy.Changes) {
	c.Addresses = map[netip.Addr][]model.IdentityID{}
	for i := range pods {
		if i%10 == 0 {
			c.Identities = append(c.Identities, bigIdentity(i/10))
		}
		id := []model.IdentityID{model.IdentityID(1000 + i/10)}
		c.Addresses[netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})] = id
		c.Addresses[netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})] = id
	}
	return c
}

func blockPolicy(i int, cidrs ...v2.CIDRRule) parse.Policy {
	subject := v2.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", i)}}
	return parse.Policy{Key: fmt.Sprintf("NetworkPolicy/n/%d", i), Ref: model.PolicyRef{Kind: model.KindNetworkPolicy, Namespace: "n", Name: fmt.Sprint(i)},
		Rules: []v2.Rule{{EndpointSelector: &subject, Ingress: []v2.IngressRule{{FromCIDRSet: cidrs}}}}}
}

var everywhere = []v2.CIDRRule{{CIDR: "0.0.0.0/0", Except: []string{"10.0.1.0/24", "10.0.0.7/32"}}, {CIDR: "::/0"}}

// A cluster of 30,000 pods and a policy for all addresses: what is written goes with the identities, and a pod that comes costs
// one row at most.
func TestManyHomes(t *testing.T) {
	e, err := policy.New(policy.Config{}, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	c := manyHomes(30000)
	c.Subjects = []policy.Subject{{Endpoint: 1, Identity: 1000}}
	k := newFakeKernel()
	do := func(c policy.Changes) model.PolicyPlan {
		p, err := e.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		k.apply(p, seeded(), nil)
		return p
	}
	do(c)
	if rows := len(k.classes); rows > 3100 {
		t.Errorf("%d classes while no policy has a block", rows)
	}
	begin := time.Now()
	do(policy.Changes{Policies: []parse.Policy{blockPolicy(0, everywhere...)}})
	took := time.Since(begin)
	if rows, want := len(k.classes), 3000*3+1000; rows > want || rows < 9000 {
		t.Errorf("%d classes, want at most %d: each identity, and where it lives", rows, want)
	}
	for what, want := range map[string]struct {
		writes int
		who    []model.IdentityID
		at     string
	}{"a pod of known labels": {0, []model.IdentityID{1500}, "10.200.0.1"}, "where its like do not live yet": {1, []model.IdentityID{1500}, "10.0.0.7"},
		"nobody": {0, nil, "10.200.0.1"}} {
		before := k.writes
		do(policy.Changes{Addresses: map[netip.Addr][]model.IdentityID{netip.MustParseAddr(want.at): want.who}})
		if n := k.writes - before; n > want.writes+1 { // who lived there alone goes
			t.Errorf("%s: %d writes, want %d", what, n, want.writes)
		}
	}
	do(policy.Changes{DeletePolicies: []string{"NetworkPolicy/n/0"}})
	if len(k.areas) > 0 || len(k.classes) > 3100 {
		t.Errorf("left: %d areas, %d classes", len(k.areas), len(k.classes))
	}
	t.Logf("the policy in %s", took)
}

// A pod comes, among 30,000, where a policy is for all addresses.
func BenchmarkNewHome(b *testing.B) {
	e := bigWorld(b, 1000, 3000, 100)
	c := manyHomes(30000)
	c.Policies = []parse.Policy{blockPolicy(0, everywhere...)}
	apply(b, e, c)
	i := 0
	for b.Loop() {
		i++
		a := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})
		if p := apply(b, e, policy.Changes{Addresses: map[netip.Addr][]model.IdentityID{a: {model.IdentityID(1000 + i%3000)}}}); len(p.Steps) > 1 {
			b.Fatalf("%+v", p.Steps)
		}
	}
}

// A policy for all addresses comes and goes, among 1000 policies and 30,000 pods.
func BenchmarkBlockOfAll(b *testing.B) {
	e := bigWorld(b, 1000, 3000, 100)
	apply(b, e, manyHomes(30000))
	for b.Loop() {
		apply(b, e, policy.Changes{Policies: []parse.Policy{blockPolicy(0, everywhere...)}})
		apply(b, e, policy.Changes{DeletePolicies: []string{"NetworkPolicy/n/0"}})
	}
}
