package policy_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// drama is an engine under the policies of a document, endpoints 1.. for the given workloads (identities 1001..).
type drama struct {
	t *testing.T
	e *policy.Engine
	k *fakeKernel
}

func play(t *testing.T, doc string, workloads ...[]string) *drama {
	t.Helper()
	d := &drama{t: t, k: newFakeKernel()}
	var err error
	if d.e, err = policy.New(policy.Config{}, model.PolicyState{}); err != nil {
		t.Fatal(err)
	}
	var c policy.Changes
	for i, ls := range workloads {
		id := model.IdentityID(1001 + i)
		c.Identities = append(c.Identities, policy.Identity{Identity: model.Identity{ID: id, Labels: mustLabels(ls...)}})
		c.Subjects = append(c.Subjects, policy.Subject{Endpoint: uint16(1 + i), Identity: id})
	}
	d.apply(c)
	d.load(doc)
	return d
}

func (d *drama) apply(c policy.Changes) {
	d.t.Helper()
	plan, err := d.e.Apply(c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.k.apply(plan, seeded(), nil)
}

func (d *drama) load(doc string) {
	d.t.Helper()
	ps, gs, err := parse.Parse("doc", []byte(doc))
	if err != nil {
		d.t.Fatal(err)
	}
	d.apply(policy.Changes{Policies: ps, CIDRGroups: gs})
}

// want checks the verdict for TCP between an endpoint and a peer (a number, or an address outside), and answers with the rule.
func (d *drama) want(dir model.Direction, ep uint16, peer any, port uint16, pass bool) model.RuleRef {
	d.t.Helper()
	var id model.IdentityID
	switch p := peer.(type) {
	case int:
		id = model.IdentityID(p)
	case string:
		id = d.k.identify(mustAddr(p), true)
	}
	got := d.k.ask(ep, id, netip.Addr{}, dir, 6, port)
	ref, _ := d.e.Rule(got.rule)
	if got.drop != 0 || (got.verdict == model.VerdictAllow) != pass {
		d.t.Errorf("%s of endpoint %d, peer %v, port %d: %+v by %q, want pass %t", dir, ep, peer, port, got, ref.Text, pass)
	}
	return ref
}

var (
	webA  = []string{"k8s:app=web", "k8s:io.kubernetes.pod.namespace=a"}
	webB  = []string{"k8s:app=web", "k8s:io.kubernetes.pod.namespace=b"}
	alone = []string{"k8s:app=web"}
)

// A selector with DoesNotExist, about whatever key, must not reach beyond the policy's namespace.
func TestCVE_2023_41333_ScopeByDoesNotExist(t *testing.T) {
	c := score.Start(t, "CVE-2023-41333", "DoesNotExist does not lift the namespace scope")
	keys := []string{"reserved:init", "reserved:host", "io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace",
		"io.cilium.k8s.namespace.labels.team", "k8s:io.cilium.k8s.namespace.labels.team", "app2", "k8s:app2"}
	for _, key := range keys {
		d := play(t, fmt.Sprintf(`{"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{"name":"x","namespace":"a"},"spec":{
			"endpointSelector":{"matchExpressions":[{"key":"reserved:init","operator":"DoesNotExist"}]},
			"ingress":[{"fromEndpoints":[{"matchExpressions":[{"key":%q,"operator":"DoesNotExist"}]}]}]}}`, key), webA, webB, alone)
		d.want(model.Ingress, 1, 1002, 80, false) // another namespace
		d.want(model.Ingress, 1, 1003, 80, false) // none
		d.want(model.Ingress, 1, 5, 80, false)
		d.want(model.Ingress, 2, 1003, 80, true) // the policy is not about namespace b
		d.want(model.Ingress, 3, 1002, 80, true)
	}
	c.Count(len(keys), "keys")
}

// What one peer is allowed wholly, another is not.
func TestCVE_2023_30851_AllowAllStaysWithItsPeer(t *testing.T) {
	c := score.Start(t, "CVE-2023-30851", "allow-all for one peer does not reach others")
	d := play(t, `[{"endpointSelector":{"matchLabels":{"app":"web"}},"ingress":[
		{"fromEndpoints":[{"matchLabels":{"who":"friend"}}]},
		{"fromEndpoints":[{"matchLabels":{"who":"guest"}}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`,
		webA, []string{"k8s:who=friend"}, []string{"k8s:who=guest"}, []string{"k8s:who=stranger"})
	n := 0
	for port := 0; port <= math.MaxUint16; port++ {
		d.want(model.Ingress, 1, 1002, uint16(port), true)
		d.want(model.Ingress, 1, 1003, uint16(port), port == 80)
		d.want(model.Ingress, 1, 1004, uint16(port), false)
		n += 3
	}
	c.Count(n, "verdicts")
}

// A wide deny stands over a narrower allow, by prefix, peer and port.
func TestCVE_2024_47825_WideDenyStands(t *testing.T) {
	c := score.Start(t, "CVE-2024-47825", "a wide deny is not lost to a narrower allow")
	n := 0
	for bits := 8; bits <= 32; bits++ {
		d := play(t, fmt.Sprintf(`[{"endpointSelector":{"matchLabels":{"app":"web"}},"egress":[{"toCIDR":["10.1.2.3/%d"]},{"toEntities":["world"]}],
			"egressDeny":[{"toCIDR":["10.0.0.0/8"],"toPorts":[{"ports":[{"port":"20","endPort":90,"protocol":"TCP"}]}]}]}]`, bits), webA)
		for port, pass := range map[uint16]bool{19: true, 20: false, 80: false, 90: false, 91: true} {
			d.want(model.Egress, 1, "10.1.2.3", port, pass)
			d.want(model.Egress, 1, "10.200.1.1", port, pass)
			d.want(model.Egress, 1, "11.0.0.1", port, true)
			n += 3
		}
	}
	c.Count(n, "verdicts")
}

// Priorities keep their order from 0 to 1000 and the tiers theirs, whatever the number and index of rules; a number out of
// range is refused.
func TestCVE_2026_25804_PriorityOverflow(t *testing.T) {
	c := score.Start(t, "CVE-2026-25804", "priorities neither overflow nor reorder rules")
	doc := func(tier string, priority int64, action string) string {
		rules := strings.Repeat("  - {action: Deny, from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 9}}}]}\n", 24)
		return fmt.Sprintf("apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: %s-%d}\nspec:\n"+
			"  tier: %s\n  priority: %d\n  subject: {namespaces: {}}\n  ingress:\n%s  - {action: %s, from: [{namespaces: {}}]}\n",
			strings.ToLower(tier), priority, tier, priority, rules, action)
	}
	n := 0
	steps := []int64{0, 1, 9, 10, 99, 100, 127, 128, 199, 200, 201, 249, 250, 251, 255, 256, 511, 512, 767, 768, 998, 999, 1000}
	for i, lo := range steps {
		for _, hi := range steps[i+1:] {
			for _, tier := range []string{"Admin", "Baseline"} {
				for _, first := range []string{"Accept", "Deny"} {
					second := map[string]string{"Accept": "Deny", "Deny": "Accept"}[first]
					d := play(t, doc(tier, hi, second)+"---\n"+doc(tier, lo, first), webA, webB)
					ref := d.want(model.Ingress, 1, 1002, 80, first == "Accept")
					if want := fmt.Sprintf("%s-%d", strings.ToLower(tier), lo); ref.Policies[0].Name != want || ref.Section != "ingress[24]" {
						t.Errorf("decided by %q, want %s", ref.Text, want)
					}
					n++
				}
			}
		}
	}
	// The last Admin rule comes before Normal, Normal before the first of Baseline.
	normal := "---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: n}\nspec: {endpointSelector: {}, ingress: [{fromEntities: [%s]}]}\n"
	d := play(t, doc("Admin", 1000, "Deny")+fmt.Sprintf(normal, "all"), webA, webB)
	d.want(model.Ingress, 1, 1002, 80, false)
	d = play(t, doc("Baseline", 0, "Accept")+fmt.Sprintf(normal, "none"), webA, webB)
	d.want(model.Ingress, 1, 1002, 80, false)
	for _, p := range []int64{-1, 1001, 65536, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32 + 1, math.MinInt64} {
		if _, _, err := parse.Parse("x.yaml", []byte(doc("Admin", p, "Deny"))); err == nil || !strings.Contains(err.Error(), "spec.priority") {
			t.Errorf("priority %d: %v", p, err)
		}
		n++
	}
	c.Count(n, "pairs and numbers")
}
