package policy_test

import (
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// An API server outside is one for policies as long as it is one, whatever CIDRs they name besides; a node that is one is both.
func TestAPIServers(t *testing.T) {
	const doc = `[{"labels":["name=api"],"endpointSelector":{"matchLabels":{"app":"api"}},"egress":[{"toEntities":["kube-apiserver"]}]},
		{"labels":["name=cidr"],"endpointSelector":{"matchLabels":{"app":"cidr"}},"egress":[{"toCIDR":["192.0.2.0/24"]}],"egressDeny":[{"toCIDR":["192.0.2.9/32"]}]},
		{"labels":["name=world"],"endpointSelector":{"matchLabels":{"app":"world"}},"egress":[{"toEntities":["world"]}]},
		{"labels":["name=cluster"],"endpointSelector":{"matchLabels":{"app":"cluster"}},"egress":[{"toEntities":["cluster"]}]},
		{"labels":["name=node"],"endpointSelector":{"matchLabels":{"app":"node"}},"egress":[{"toEntities":["remote-node","host"]}]}]`
	workloads := [][]string{{"k8s:app=api"}, {"k8s:app=cidr"}, {"k8s:app=world"}, {"k8s:app=cluster"}, {"k8s:app=node"}}
	d := play(t, doc, workloads...)
	servers := func(as ...string) {
		t.Helper()
		addrs := []netip.Addr{}
		for _, a := range as {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		d.apply(policy.Changes{APIServers: &addrs})
	}
	check := func(peer any, api, cidr, world, cluster, node bool) {
		t.Helper()
		for i, pass := range []bool{api, cidr, world, cluster, node} {
			d.want(model.Egress, uint16(i+1), peer, 443, pass)
		}
	}
	check("192.0.2.8", false, true, true, false, false)
	check("192.0.2.9", false, false, true, false, false)
	servers("192.0.2.8", "192.0.2.9", "2001:db8::9")
	check("192.0.2.8", true, true, true, true, false)
	check("192.0.2.9", true, false, true, true, false)
	check("2001:db8::9", true, false, true, true, false)
	check("192.0.2.7", false, true, true, false, false)

	// An agent that starts finds all as it is, and changes nothing.
	again, err := policy.New(policy.Config{}, d.k.state())
	if err != nil {
		t.Fatal(err)
	}
	c := policy.Changes{APIServers: &[]netip.Addr{mustAddr("192.0.2.9"), mustAddr("2001:db8::9"), mustAddr("192.0.2.8")}}
	for i, ls := range workloads {
		id := model.IdentityID(1001 + i)
		c.Identities = append(c.Identities, policy.Identity{Identity: model.Identity{ID: id, Labels: mustLabels(ls...)}})
		c.Subjects = append(c.Subjects, policy.Subject{Endpoint: uint16(1 + i), Identity: id})
	}
	if c.Policies, _, err = parse.Parse("x.json", []byte(doc)); err != nil {
		t.Fatal(err)
	}
	if plan, err := again.Apply(c); err != nil || len(plan.Steps) != 0 {
		t.Errorf("after a start: %v %+v", err, plan.Steps)
	}
	for p, id := range again.PrefixIdentities() {
		if _, api := id.Labels.Get(model.SourceReserved, "kube-apiserver"); api != (p.Bits() == p.Addr().BitLen()) {
			t.Errorf("%s has %s", p, id.Labels.Strings())
		}
	}
	d.e = again
	plan, err := d.e.Apply(policy.Changes{Config: &policy.Config{IPv4: true}})
	if err != nil {
		t.Fatal(err)
	}
	d.k.apply(plan, seeded(), nil)
	if _, ok := d.k.prefixes[netip.MustParsePrefix("2001:db8::9/128")]; ok {
		t.Error("of an IP version that is off")
	}
	d.want(model.Egress, 1, "192.0.2.8", 443, true)

	servers("192.0.2.8")
	d.want(model.Egress, 1, "192.0.2.9", 443, false)
	d.want(model.Egress, 2, "192.0.2.9", 443, false)
	d.want(model.Egress, 2, "192.0.2.8", 443, true)
	none := []netip.Addr{}
	plan, err = d.e.Apply(policy.Changes{APIServers: &none})
	if err != nil || len(plan.Steps) < 2 || !plan.Steps[len(plan.Steps)-1].BumpEpoch {
		t.Errorf("what was judged of an API server that went stands: %v %+v", err, plan.Steps)
	}
	d.k.apply(plan, seeded(), nil)
	d.want(model.Egress, 1, "192.0.2.8", 443, false)
	if _, ok := d.k.prefixes[netip.MustParsePrefix("192.0.2.8/32")]; ok {
		t.Error("its address is no prefix of a policy and still there")
	}

	// Nodes.
	d.apply(policy.Changes{Identities: []policy.Identity{{Identity: model.Identity{ID: model.IdentityHost, Labels: mustLabels("reserved:kube-apiserver")}},
		{Identity: model.Identity{ID: model.IdentityScopeRemote, Labels: mustLabels("reserved:kube-apiserver", "reserved:remote-node", "node:zone=a")}}}})
	check(1, true, false, false, true, true)
	check(int(model.IdentityScopeRemote), true, false, false, true, true)
	d.apply(policy.Changes{DeleteIdentities: []model.IdentityID{model.IdentityHost}})
	check(1, false, false, false, true, true)
}
