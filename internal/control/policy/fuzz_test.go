package policy_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// FuzzModel lets the fuzzer choose what TestModel draws.
func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkModel)) }

// FuzzDocument compiles whatever parses, and compares every verdict in a small fixed world with the oracle's.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`[{"endpointSelector":{"matchLabels":{"app":"x"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"app":"y"}}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`))
	f.Add([]byte(`{"endpointSelector":{},"egress":[{"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]}],"egressDeny":[{"toEntities":["world"]}]}`))
	f.Add([]byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: a}\nspec:\n  endpointSelector: {}\n  ingress:\n  - fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}]\n  - icmps: [{fields: [{type: 8}]}]\n"))
	f.Add([]byte("apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: a}\nspec:\n  tier: Admin\n  priority: 10\n  subject: {namespaces: {}}\n  ingress:\n  - {action: Pass, from: [{pods: {podSelector: {matchLabels: {app: y}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}\n  - {action: Deny, from: [{namespaces: {}}]}\n  egress:\n  - {action: Accept, to: [{networks: [10.0.0.0/8]}, {nodes: {}}]}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ps, gs, err := parse.Parse("fuzz", in)
		if err != nil || len(ps) > 20 {
			return
		}
		o := &oracle.World{Localhost: true, IPv4: true, IPv6: true, Groups: map[string]oracle.Group{}}
		seen := map[string]bool{}
		for _, p := range ps {
			if seen[p.Key] {
				t.Fatalf("key %s twice", p.Key)
			}
			seen[p.Key] = true
			o.Policies = append(o.Policies, oracle.Policy{Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name, Audit: p.Audit,
				Rules: p.Rules, Cluster: p.Cluster})
		}
		for _, g := range gs {
			og := oracle.Group{Labels: map[string]string{}}
			for _, p := range g.CIDRs {
				og.CIDRs = append(og.CIDRs, p.String())
			}
			for _, l := range g.Labels {
				og.Labels[l.Key] = l.Value
			}
			o.Groups[g.Name] = og
		}
		checkDocument(t, o, policy.Changes{Policies: ps, CIDRGroups: gs})
	})
}

var fuzzIdentities = []policy.Identity{
	{Identity: model.Identity{ID: 1000, Labels: mustLabels("k8s:app=x", "k8s:io.kubernetes.pod.namespace=a")}, NamedPorts: portSets[1]},
	{Identity: model.Identity{ID: 1001, Labels: mustLabels("k8s:app=y", "k8s:io.kubernetes.pod.namespace=b")}, NamedPorts: portSets[2]},
	{Identity: model.Identity{ID: 1002, Labels: mustLabels("k8s:app=y", "container:role=x")}},
}

func mustLabels(ss ...string) model.Labels {
	ls, err := model.ParseLabels(ss, "k8s")
	if err != nil {
		panic(err)
	}
	return ls
}

func checkDocument(t *testing.T, o *oracle.World, c policy.Changes) {
	e, err := policy.New(policy.Config{}, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	w := world{identities: map[model.IdentityID]policy.Identity{}, homes: map[netip.Addr][]model.IdentityID{}}
	c.Identities = fuzzIdentities
	for i, a := range inside {
		w.homes[a] = []model.IdentityID{[]model.IdentityID{1000, 1001, 1002, model.IdentityHost, model.IdentityRemoteNode}[i%5]}
	}
	c.Addresses = w.homes
	for i, id := range fuzzIdentities {
		w.identities[id.ID] = id
		c.Subjects = append(c.Subjects, policy.Subject{Endpoint: uint16(i + 1), Identity: id.ID, NamedPorts: id.NamedPorts})
	}
	plan, err := e.Apply(c)
	if err != nil {
		t.Fatalf("parsed, but does not compile: %v", err)
	}
	k := newFakeKernel()
	k.apply(plan, seeded(), nil)
	for _, q := range questions([]uint16{1, 2, 3}, w.peersOf(w.identities), w.known(), outside) {
		self := w.end(fuzzIdentities[q.ep-1].ID)
		other := w.end(q.id)
		if q.id == 0 {
			other = o.Outside(q.addr)
		} else {
			other.Addr = q.addr
		}
		want, got := o.Judge(q.dir, self, other, q.pkt), k.answer(q, true)
		if got.drop != 0 || got.verdict != want {
			t.Fatalf("%+v: want %#x, got %+v", q, want, got)
		}
	}
}
