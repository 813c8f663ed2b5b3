package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// stage is a world for a story: app1 and app2 here, app3 on the other node.
func stage(t *testing.T, cfg policy.Config) *world {
	t.Helper()
	cfg.IPv4, cfg.IPv6 = true, true
	w := newWorld(t, newKernel(t), cfg, 1)
	for i, name := range []string{"local1", "local2", "remote1"} {
		id := policy.Identity{Identity: model.Identity{ID: model.IdentityID(1001 + i),
			Labels: model.NewLabels(model.Label{Source: "k8s", Key: "id", Value: fmt.Sprintf("app%d", i+1)})}}
		w.identities[id.ID] = id
		if s := find(name); s.place == local {
			w.enforce(s, policy.Subject{Endpoint: s.ep, Identity: id.ID})
		} else {
			w.apply(policy.Changes{Identities: []policy.Identity{id}})
			w.remote[s.index] = id.ID
			w.remoteRows(s)
		}
	}
	return w
}

func find(name string) *somebody {
	for _, s := range everybody {
		if s.name == name {
			return s
		}
	}
	panic("nobody is called " + name)
}

// load puts the policies of a file (JSON) in the place of those before.
func (w *world) load(doc string) {
	w.t.Helper()
	ps, _, err := parse.Parse("story.json", []byte(doc))
	w.must(err)
	var c policy.Changes
	for key := range w.policies {
		c.DeletePolicies = append(c.DeletePolicies, key)
		delete(w.policies, key)
	}
	for _, p := range ps {
		w.policies[p.Key] = p
	}
	c.Policies = ps
	w.apply(c)
}

// verdict asks about a TCP port and answers as people would.
func (w *world) verdict(from, to string, v int, port uint16) string {
	w.t.Helper()
	q := question{from: find(from), to: find(to), v: v, pkt: oracle.Packet{Proto: 6, Port: port}}
	w.ask(q)
	for _, s := range w.sides(q) {
		switch {
		case s.denies() && s.implicit:
			return "default deny"
		case s.denies():
			return "denied"
		case s.verdict != model.VerdictAllow:
			return "audit"
		}
	}
	return "allowed"
}

func (w *world) expect(from, to string, port uint16, want string) {
	w.t.Helper()
	for v := range 2 {
		if got := w.verdict(from, to, v, port); got != want {
			w.t.Fatalf("IPv%d %s to %s port %d: %s, want %s", 4+2*v, from, to, port, got, want)
		}
	}
}

const l3rule = `[{"labels":[{"key":"name","value":"l3-rule"}],"endpointSelector":{"matchLabels":{"id":"app1"}},
	"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app2"}},{"matchLabels":{"id":"app3"}}],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]}]`

// Connections are judged again by every change, in their own direction, whoever sends next.
func TestRevokedAndAllowedAgain(t *testing.T) {
	w := stage(t, policy.Config{})
	w.load(l3rule)
	w.expect("local2", "local1", 80, "allowed")
	w.expect("remote1", "local1", 80, "allowed")
	w.expect("local2", "local1", 81, "default deny")
	w.expect("outside 8.8.8.8", "local1", 80, "default deny")
	w.expect("router", "local1", 81, "allowed")
	if len(w.tracked) != 6 {
		t.Fatalf("%d connections", len(w.tracked))
	}
	w.established()
	w.load(strings.ReplaceAll(l3rule, "app2", "app9"))
	w.expect("local2", "local1", 80, "default deny")
	w.expect("remote1", "local1", 80, "allowed")
	w.established()
	w.load(strings.ReplaceAll(l3rule, `"ingress"`, `"ingressDeny"`))
	w.expect("remote1", "local1", 80, "denied")
	w.established()
	w.load(l3rule)
	w.established()
	w.load(`[]`)
	w.expect("outside 8.8.8.8", "local1", 81, "allowed")
	w.established()
}

// A list that does not fit into one row decides like a short one, at the ends of its ranges and beside them.
func TestLongLists(t *testing.T) {
	w := stage(t, policy.Config{})
	var allow, deny []string
	for i := range 40 {
		allow = append(allow, fmt.Sprintf(`{"port":"%d","endPort":%d,"protocol":"TCP"}`, 1000+100*i, 1000+100*i+77))
		deny = append(deny, fmt.Sprintf(`{"port":"%d","protocol":"ANY"}`, 1033+100*i))
	}
	w.load(fmt.Sprintf(`[{"endpointSelector":{"matchLabels":{"id":"app1"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"id":"app3"}}],
		"toPorts":[{"ports":[%s]}]}],"ingressDeny":[{"fromEndpoints":[{}],"toPorts":[{"ports":[%s]}]}]}]`, strings.Join(allow, ","), strings.Join(deny, ",")))
	lists, err := w.k.maps.Lists()
	if err != nil {
		t.Fatal(err)
	}
	long := 0
	for _, l := range lists {
		if len(l.Entries) > layout.PolicyListMax {
			long++
		}
	}
	if long == 0 {
		t.Fatal("no list is long")
	}
	for i := range 40 {
		at := uint16(1000 + 100*i)
		for _, c := range []struct {
			port uint16
			want string
		}{{at - 1, "default deny"}, {at, "allowed"}, {at + 32, "allowed"}, {at + 33, "denied"}, {at + 34, "allowed"}, {at + 77, "allowed"}, {at + 78, "default deny"}} {
			w.expect("remote1", "local1", c.port, c.want)
		}
		w.tracked = nil
	}
	w.expect("local2", "local1", 1033, "denied")
	w.expect("local2", "local1", 1034, "default deny")
}

// A prefix that some policy names inside a node's pod range makes no outsider of a workload there that this node has not
// heard of yet: rules about the world, or about that very prefix, are not about it.
func TestPrefixInsidePodRange(t *testing.T) {
	w := stage(t, policy.Config{})
	w.load(`[{"endpointSelector":{"matchLabels":{"id":"app1"}},"egress":[{"toEntities":["world"]},{"toCIDR":["10.0.2.96/27","10.0.2.99/32","fd00:2::80/121","fd00:2::99/128"]}]}]`)
	w.expect("local1", "unheard", 80, "default deny")
	w.expect("local1", "remote1", 80, "default deny")
	w.expect("local1", "outside 8.8.8.8", 80, "allowed")
	// Nor does it keep such a workload from being believed by its node's word.
	w.expect("unheard", "local2", 80, "allowed")
}

// An identity that the policy does not know is let nowhere until it does, and its connections begin then.
func TestUnknownIdentity(t *testing.T) {
	w := stage(t, policy.Config{})
	s := find("remote2")
	w.remote[s.index] = 1042
	w.remoteRows(s)
	for v := range 2 {
		q := question{from: s, to: find("local1"), v: v, pkt: oracle.Packet{Proto: 6, Port: 80}}
		if got := w.send(q, w.nextPort(), "S", false); got.drop != layout.DropIdentity || got.passed() {
			t.Errorf("before it is known: %+v", got)
		}
		row, _, err := w.k.maps.LookupIP(s.addr[v])
		if err != nil || row.Identity == 1042 {
			t.Errorf("%v has identity %d before that has a class (%v)", s.addr[v], row.Identity, err)
		}
	}
	id := policy.Identity{Identity: model.Identity{ID: 1042, Labels: model.NewLabels(model.Label{Source: "k8s", Key: "id", Value: "app4"})}}
	w.identities[1042] = id
	w.apply(policy.Changes{Identities: []policy.Identity{id}})
	w.expect("remote2", "local1", 80, "allowed")
	w.expect("local1", "remote2", 80, "allowed")
}

// A workload that changes its labels takes its connections along into the new policy.
func TestRelabelTakesConnectionsAlong(t *testing.T) {
	w := stage(t, policy.Config{})
	w.load(l3rule)
	w.expect("local2", "local1", 80, "allowed")
	w.expect("local1", "remote1", 80, "allowed")
	id := policy.Identity{Identity: model.Identity{ID: 1050, Labels: model.NewLabels(model.Label{Source: "k8s", Key: "id", Value: "app9"})}}
	w.identities[1050] = id
	stop := w.watch()
	w.enforce(find("local2"), policy.Subject{Endpoint: 2, Identity: 1050})
	stop()
	w.expect("local2", "local1", 80, "default deny")
	w.established()
	w.enforce(find("local2"), policy.Subject{Endpoint: 2, Identity: 1002})
	w.established()
}

// What an exception cuts out is not selected, what lies around it is, and connections follow when a group changes.
func TestGroupChanges(t *testing.T) {
	w := stage(t, policy.Config{})
	group := func(cidrs ...string) {
		in := parse.CIDRGroup{Name: "g1"}
		for _, c := range cidrs {
			in.CIDRs = append(in.CIDRs, netip.MustParsePrefix(c))
		}
		w.groups["g1"], w.stored["g1"] = oracle.Group{CIDRs: cidrs}, in
		w.apply(policy.Changes{CIDRGroups: []parse.CIDRGroup{in}})
	}
	group("198.51.0.0/16", "2001:db8:ffff::/48")
	w.load(`[{"endpointSelector":{"matchLabels":{"id":"app1"}},"egress":[{"toCIDRSet":[{"cidrGroupRef":"g1","except":["198.51.100.8/32","2001:db8:ffff::8/128"]}]}]}]`)
	w.expect("local1", "outside 198.51.100.7", 80, "allowed")
	w.expect("local1", "outside 198.51.100.8", 80, "default deny")
	w.expect("local1", "outside 8.8.8.8", 80, "default deny")
	group("8.0.0.0/8", "2a00::/16")
	w.expect("local1", "outside 198.51.100.7", 80, "default deny")
	w.expect("local1", "outside 8.8.8.8", 80, "allowed")
	w.established()
	group()
	w.expect("local1", "outside 8.8.8.8", 80, "default deny")
	w.established()
}

// A name that stands for another port takes the connections to the port before with it.
func TestNamedPortMoves(t *testing.T) {
	w := stage(t, policy.Config{})
	name := func(port uint16) {
		id := w.identities[1003]
		id.NamedPorts = []model.NamedPort{{Name: "web", Port: port, Proto: 6}}
		w.identities[1003] = id
		w.apply(policy.Changes{Identities: []policy.Identity{id}})
	}
	name(80)
	w.load(`[{"endpointSelector":{"matchLabels":{"id":"app1"}},"egress":[{"toEndpoints":[{"matchLabels":{"id":"app3"}}],"toPorts":[{"ports":[{"port":"web","protocol":"TCP"}]}]}]}]`)
	w.expect("local1", "remote1", 80, "allowed")
	w.expect("local1", "remote1", 81, "default deny")
	name(81)
	w.expect("local1", "remote1", 80, "default deny")
	w.expect("local1", "remote1", 81, "allowed")
	w.established()
}
