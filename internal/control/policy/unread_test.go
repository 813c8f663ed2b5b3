package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// homely is a policy of a namespace, by one of a few shapes.
func homely(t *testing.T, ns string, n int, shape int) parse.Policy {
	t.Helper()
	doc := fmt.Sprintf(`{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p%d", "namespace": %q}, "spec": {"endpointSelector":
		{"matchLabels": {"app": "a%d"}}, "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "a%d"}}], "toPorts": [{"ports": [{"port": "%d", "protocol": "TCP"}]}]}]}}`,
		n, ns, n%2, shape%3, 80+shape)
	if shape%4 == 3 {
		doc = fmt.Sprintf(`{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p%d", "namespace": %q}, "spec": {"endpointSelector": {},
			"egress": [{"toCIDRSet": [{"cidrGroupRef": "g"}]}]}}`, n, ns)
	}
	ps, _, err := parse.Parse("t.json", []byte(doc))
	if err != nil || len(ps) != 1 {
		t.Fatal(len(ps), err)
	}
	return ps[0]
}

func unreadOf(t *testing.T, p parse.Policy) Unread {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return Unread{Key: p.Key, Namespace: p.Ref.Namespace, Revision: p.Ref.Revision, Raw: raw}
}

// An engine that reads policies when they are wanted says the same as one that reads all of them: of each pair, local or not, after each
// change. It holds no more than the namespaces of its workloads need.
func TestUnreadPolicies(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	newEngine := func() *Engine {
		e, err := New(Config{Mode: ModeDefault, IPv4: true, Cluster: "c"}, model.PolicyState{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	reads, waits := newEngine(), newEngine()
	const namespaces = 4
	ns := func(i int) string { return fmt.Sprintf("n%d", i%namespaces) }
	var ids []Identity
	for i := range 3 * namespaces {
		ids = append(ids, Identity{Identity: model.Identity{ID: model.IdentityID(1000 + i), Labels: model.NewLabels(
			model.Label{Source: model.SourceK8s, Key: "app", Value: fmt.Sprintf("a%d", i/namespaces)},
			model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: ns(i)})}})
	}
	there := map[uint16]model.IdentityID{}
	policies := map[string]parse.Policy{}
	asleep, awake := 0, 0
	for step := range 400 {
		both := Changes{Revision: uint64(step + 1)}
		if step == 0 {
			both.Identities = ids
		}
		a, b := both, both
		for range 1 + rng.IntN(3) {
			switch n := rng.IntN(8); rng.IntN(6) {
			case 0:
				id := ids[rng.IntN(len(ids))].ID
				ep := uint16(n%4 + 1)
				there[ep] = id
				a.Subjects = append(a.Subjects, Subject{Endpoint: ep, Identity: id})
				b.Subjects = a.Subjects
			case 1:
				if len(a.Subjects) == 0 {
					a.DeleteSubjects = append(a.DeleteSubjects, uint16(n%4+1))
					b.DeleteSubjects = a.DeleteSubjects
					delete(there, uint16(n%4+1))
				}
			case 2:
				for _, key := range slices.Sorted(maps.Keys(policies)) {
					if !slices.ContainsFunc(a.Policies, func(p parse.Policy) bool { return p.Key == key }) {
						delete(policies, key)
						a.DeletePolicies = append(a.DeletePolicies, key)
						b.DeletePolicies = a.DeletePolicies
						break
					}
				}
			case 3:
				g := parse.CIDRGroup{Name: "g", CIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", n))}}
				a.CIDRGroups = append(a.CIDRGroups, g)
				b.CIDRGroups = a.CIDRGroups
			default:
				p := homely(t, ns(n), n, step%7)
				if slices.Contains(a.DeletePolicies, p.Key) {
					continue
				}
				policies[p.Key] = p
				a.Policies = append(a.Policies, p)
				b.Unread = slices.DeleteFunc(b.Unread, func(u Unread) bool { return u.Key == p.Key })
				b.Unread = append(b.Unread, unreadOf(t, p))
			}
		}
		for _, x := range []struct {
			e *Engine
			c Changes
		}{{reads, a}, {waits, b}} {
			if _, err := x.e.Apply(x.c); err != nil {
				t.Fatal(err)
			}
		}
		homes := map[string]bool{}
		for _, id := range there {
			homes[ns(int(id-1000))] = true
		}
		for k, p := range policies {
			read, held := waits.policies[k]
			if held != homes[p.Ref.Namespace] || held && read.from == nil {
				t.Fatalf("step %d: policy %s, namespaces %v: read %v", step, k, homes, held)
			}
		}
		awake, asleep = awake+len(waits.policies), asleep+len(waits.unread)
		if len(waits.policies)+len(waits.unread) != len(policies) {
			t.Fatalf("step %d: %d policies read and %d not, of %d", step, len(waits.policies), len(waits.unread), len(policies))
		}
		for _, q := range questions(there, ids) {
			want, err1 := reads.Trace(q)
			got, err2 := waits.Trace(q)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("step %d, %+v:\n%s", step, q, diff)
			}
		}
	}
	if asleep == 0 || awake == 0 {
		t.Errorf("%d policies read, %d unread: one of the two was not tried", awake, asleep)
	}
}

func questions(there map[uint16]model.IdentityID, ids []Identity) (out []Query) {
	var peers []Peer
	for ep := range there {
		peers = append(peers, Peer{Endpoint: ep})
	}
	for _, id := range ids {
		peers = append(peers, Peer{Identity: id.ID}, Peer{Labels: id.Labels})
	}
	for i, src := range peers {
		out = append(out, Query{Source: src, Destination: peers[(i*5+3)%len(peers)], Proto: 6, Port: uint16(80 + i%7)})
	}
	return out
}

// A policy that cannot be read keeps all as it is, but only where somebody would be under it.
func TestUnreadableStaysUnread(t *testing.T) {
	e, err := New(Config{Mode: ModeDefault, IPv4: true}, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{Identity: model.Identity{ID: 1000, Labels: model.NewLabels(model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: "n"})}}
	if _, err := e.Apply(Changes{Identities: []Identity{id}, Unread: []Unread{{Key: "k", Namespace: "n", Raw: []byte(`{"broken`)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Apply(Changes{Subjects: []Subject{{Endpoint: 1, Identity: 1000}}}); err == nil {
		t.Error("a workload came under a policy that nobody can read")
	}
	if _, ok := e.Set(1); ok {
		t.Error("the workload has a policy set")
	}
	if _, err := e.Apply(Changes{Subjects: []Subject{{Endpoint: 1, Identity: 1000}}, DeletePolicies: []string{"k"}}); err != nil {
		t.Error(err)
	}
}

// Whoever asks again and again for what is not here makes rules and gives them up: the last answer names its rule like the first.
func TestRulesOfManyTraces(t *testing.T) {
	e, err := New(Config{Mode: ModeDefault, IPv4: true}, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	p := homely(t, "n", 0, 0)
	labels := model.NewLabels(model.Label{Source: model.SourceK8s, Key: "app", Value: "a0"}, model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: "n"})
	if _, err := e.Apply(Changes{Policies: []parse.Policy{p}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * keepRetired {
		got, err := e.Trace(Query{Source: Peer{Labels: labels}, Destination: Peer{Labels: labels}, Proto: 17, Port: 1})
		if err != nil || got.Ingress == nil || got.Ingress.Rule.Text == "" {
			t.Fatalf("trace %d: %v %+v", i, err, got.Ingress)
		}
	}
}
