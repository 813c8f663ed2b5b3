package policy_test

import (
	"fmt"
	"testing"

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
