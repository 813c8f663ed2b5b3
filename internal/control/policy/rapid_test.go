package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/policygen"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// change draws a batch, and makes it so in the world.
func (w *world) change(t *rapid.T) policy.Changes {
	var c policy.Changes
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		switch rapid.IntRange(0, 14).Draw(t, "change") {
		case 0, 1, 2, 3:
			p := genPolicy(t)
			w.policies[p.Key] = p
			c.Policies = append(c.Policies, p)
			c.DeletePolicies = slices.DeleteFunc(c.DeletePolicies, func(k string) bool { return k == p.Key })
		case 4:
			key := fmt.Sprintf("p%d", rapid.IntRange(0, policies-1).Draw(t, "policy"))
			delete(w.policies, key)
			c.DeletePolicies = append(c.DeletePolicies, key)
			c.Policies = slices.DeleteFunc(c.Policies, func(p parse.Policy) bool { return p.Key == key })
		case 5, 6:
			id := genIdentity(t)
			w.identities[id.ID] = id
			c.Identities = append(c.Identities, id)
			c.DeleteIdentities = slices.DeleteFunc(c.DeleteIdentities, func(n model.IdentityID) bool { return n == id.ID })
		case 7:
			id := model.IdentityID(rapid.IntRange(1000, 1007).Draw(t, "identity"))
			used := slices.ContainsFunc(slices.Collect(maps.Values(w.subjects)), func(s policy.Subject) bool { return s.Identity == id })
			if !used {
				delete(w.identities, id)
				c.DeleteIdentities = append(c.DeleteIdentities, id)
				c.Identities = slices.DeleteFunc(c.Identities, func(x policy.Identity) bool { return x.ID == id })
			}
		case 8, 9:
			id := model.IdentityID(rapid.IntRange(1000, 1007).Draw(t, "identity"))
			s := policy.Subject{Endpoint: uint16(rapid.IntRange(1, 3).Draw(t, "endpoint")), Identity: id,
				NamedPorts: rapid.SampledFrom(portSets).Draw(t, "ports"), Audit: rapid.IntRange(0, 5).Draw(t, "audit") == 0}
			if _, ok := w.identities[id]; ok {
				w.subjects[s.Endpoint] = s
				c.Subjects = append(c.Subjects, s)
				c.DeleteSubjects = slices.DeleteFunc(c.DeleteSubjects, func(n uint16) bool { return n == s.Endpoint })
			}
		case 13, 14:
			w.move(t, &c)
		case 12:
			n := uint16(rapid.IntRange(1, 3).Draw(t, "endpoint"))
			delete(w.subjects, n)
			c.DeleteSubjects = append(c.DeleteSubjects, n)
			c.Subjects = slices.DeleteFunc(c.Subjects, func(s policy.Subject) bool { return s.Endpoint == n })
		case 10:
			switch name := rapid.SampledFrom([]string{"g1", "g2"}).Draw(t, "group"); rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				delete(w.groups, name)
				c.DeleteCIDRGroups = append(c.DeleteCIDRGroups, name)
				c.CIDRGroups = slices.DeleteFunc(c.CIDRGroups, func(g parse.CIDRGroup) bool { return g.Name == name })
			default:
				kind := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "kind")
				g := oracle.Group{Labels: map[string]string{"kind": kind}, CIDRs: list(t, 0, 3, func(t *rapid.T) string { return genCIDR.Draw(t, "cidr") })}
				w.groups[name] = g
				in := parse.CIDRGroup{Name: name, Labels: model.NewLabels(model.Label{Source: "k8s", Key: "kind", Value: kind})}
				for _, s := range g.CIDRs {
					in.CIDRs = append(in.CIDRs, mustCIDR(s))
				}
				c.CIDRGroups = append(c.CIDRGroups, in)
				c.DeleteCIDRGroups = slices.DeleteFunc(c.DeleteCIDRGroups, func(n string) bool { return n == name })
			}
		case 11:
			if rapid.IntRange(0, 4).Draw(t, "configure") == 0 {
				w.cfg = genConfig(t)
				c.Config = &w.cfg
			}
		}
	}
	return c
}

func mustCIDR(s string) netip.Prefix {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(s)
}

// populate adds workloads enough for something to happen.
func (w *world) populate(t *rapid.T, c *policy.Changes) {
	for n := range rapid.IntRange(3, 6).Draw(t, "population") {
		id := genIdentity(t)
		w.identities[id.ID] = id
		c.Identities = append(c.Identities, id)
		if n < 2 && id.ID >= 1000 && id.ID < 2000 {
			s := policy.Subject{Endpoint: uint16(n + 1), Identity: id.ID, NamedPorts: rapid.SampledFrom(portSets).Draw(t, "ports")}
			w.subjects[s.Endpoint] = s
			c.Subjects = append(c.Subjects, s)
		}
		w.move(t, c)
	}
}

// peersOf are all that a packet may come from.
func (w *world) peersOf(all map[model.IdentityID]policy.Identity) []model.IdentityID {
	ids := slices.Collect(maps.Keys(all))
	for _, r := range model.ReservedIdentities() {
		if _, ok := all[r.ID]; !ok && r.ID != model.IdentityWorld && r.ID != model.IdentityWorldIPv4 && r.ID != model.IdentityWorldIPv6 {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

type question struct {
	ep   uint16
	id   model.IdentityID // 0: outside
	addr netip.Addr       // zero: unknown
	dir  model.Direction
	pkt  oracle.Packet
}

func questions(eps []uint16, ids []model.IdentityID, homes map[netip.Addr]model.IdentityID, addrs []netip.Addr) []question {
	var out []question
	for _, ep := range eps {
		for _, dir := range []model.Direction{model.Ingress, model.Egress} {
			for _, pkt := range packets {
				for _, id := range ids {
					out = append(out, question{ep: ep, id: id, dir: dir, pkt: pkt})
				}
				for a, id := range homes {
					out = append(out, question{ep: ep, id: id, addr: a, dir: dir, pkt: pkt})
				}
				for _, a := range addrs {
					out = append(out, question{ep: ep, addr: a, dir: dir, pkt: pkt})
				}
			}
		}
	}
	return out
}

func (k *fakeKernel) answer(q question, dual bool) answer {
	if q.id == 0 {
		return k.ask(q.ep, k.identify(q.addr, dual), netip.Addr{}, q.dir, q.pkt.Proto, q.pkt.Port)
	}
	return k.ask(q.ep, q.id, q.addr, q.dir, q.pkt.Proto, q.pkt.Port)
}

// TestModel drives an engine through random changes. After each: every verdict is the oracle's; while the plan is being
// applied, write by write, every packet is judged as before or as after; an engine started on the kernel's state finds
// nothing to do; a fresh one comes to the same verdicts by its own numbers.
func TestModel(t *testing.T) { rapid.Check(t, checkModel) }

func checkModel(t *rapid.T) {
	w := newWorld(t)
	e, err := policy.New(w.cfg, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	k := newFakeKernel()
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for range rapid.IntRange(2, 8).Draw(t, "batches") {
		was := maps.Clone(w.identities)
		had4, had6 := w.cfg.IPv4, w.cfg.IPv6
		var c policy.Changes
		if len(w.identities) < 3 {
			w.populate(t, &c)
		} else {
			c = w.change(t)
		}
		for n := range k.endpoints {
			if _, ok := w.subjects[n]; !ok {
				delete(k.endpoints, n)
			}
		}
		before := k.clone()
		plan, err := e.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		after := k.clone()
		after.apply(plan, r, nil)
		maps.Copy(was, w.identities)
		eps := slices.Sorted(maps.Keys(w.subjects))
		qs := questions(eps, w.peersOf(was), w.known(), outside)
		if had4 != w.cfg.IPv4 || had6 != w.cfg.IPv6 {
			qs = questions(eps, w.peersOf(was), nil, nil) // another configuration of the datapath is another kernel
		}
		dual := w.dual()
		legal := make([][2]answer, len(qs))
		for i, q := range qs {
			legal[i] = [2]answer{before.answer(q, dual), after.answer(q, dual)}
		}
		seen := func() {
			for i, q := range qs {
				if now := k.answer(q, dual); now != legal[i][0] && now != legal[i][1] {
					t.Fatalf("%+v: between %+v and %+v there was %+v\nplan %+v", q, legal[i][0], legal[i][1], now, plan.Steps)
				}
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "interrupted") == 0 {
			// The rest of the plan is lost. What the kernel holds then leads to the same end.
			k.left = r.IntN(8)
			k.apply(plan, r, seen)
			k.left = -1
			e.Resync(k.state())
			if plan, err = e.Apply(policy.Changes{}); err != nil {
				t.Fatal(err)
			}
		}
		k.apply(plan, r, seen)
		w.compare(t, k, e, r)
		w.restart(t, k)
	}
}

// compare asks kernel and oracle for every verdict, and Trace for some; it answers with how many there were.
func (w *world) compare(t *rapid.T, k *fakeKernel, e *policy.Engine, r *rand.Rand) int {
	o, n := w.oracle(), 0
	selves, others, places := map[uint16]oracle.End{}, map[model.IdentityID]oracle.End{}, map[netip.Addr]oracle.End{}
	for ep, sub := range w.subjects {
		self := w.end(sub.Identity)
		self.Ports, self.Audit = sub.NamedPorts, sub.Audit
		selves[ep] = self
	}
	ids := w.peersOf(w.identities)
	for _, id := range ids {
		others[id] = w.end(id)
	}
	for _, a := range outside {
		places[a] = o.Outside(a)
	}
	for _, q := range questions(slices.Sorted(maps.Keys(w.subjects)), ids, w.known(), outside) {
		if q.addr.IsValid() && (q.addr.Is4() && !o.IPv4 || q.addr.Is6() && !o.IPv6) {
			continue
		}
		n++
		self, other := selves[q.ep], others[q.id]
		if q.id == 0 {
			other = places[q.addr]
		} else {
			other.Addr = q.addr
		}
		want := o.Judge(q.dir, self, other, q.pkt)
		got := k.answer(q, w.dual())
		if got.drop != 0 || got.verdict != want {
			t.Fatalf("%+v: want %#x, got %+v\nself %v\nother %v", q, want, got, self, other)
		}
		if r.IntN(20) == 0 {
			w.trace(t, e, q, w.subjects[q.ep], got)
		}
		if ref, ok := e.Rule(got.rule); !ok || ref.Text == "" {
			t.Fatalf("%+v: rule %d has no name", q, got.rule)
		}
	}
	return n
}

// TestCase35PolicyCompiler compares the verdicts of compiled lists with the evaluator's, incrementally compiled and by
// Trace, over random policies of all tiers.
func TestCase35PolicyCompiler(t *testing.T) {
	c := score.Start(t, "35", "policy compiler against a brute-force evaluator")
	want, n := score.Size(300_000, 10_000_000), 0
	policygen.Repeat(t, c.Rand(), 170*time.Second, func() bool { return n >= want }, func(t *rapid.T) {
		w := newWorld(t)
		e, err := policy.New(w.cfg, model.PolicyState{})
		if err != nil {
			t.Fatal(err)
		}
		k := newFakeKernel()
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var c policy.Changes
		w.populate(t, &c)
		for i := range rapid.IntRange(1, 8).Draw(t, "batches") {
			if i > 0 {
				c = w.change(t)
			}
			for ep := range k.endpoints {
				if _, ok := w.subjects[ep]; !ok {
					delete(k.endpoints, ep)
				}
			}
			plan, err := e.Apply(c)
			if err != nil {
				t.Fatal(err)
			}
			k.apply(plan, r, nil)
			n += w.compare(t, k, e, r)
		}
	})
	c.Count(n, "verdicts")
	c.Say("0 mismatches; both families, tiers, priorities, modes, audit")
	if n < want {
		c.Say("0 mismatches; stopped after 170 s, short of %d", want)
	}
}

// trace must agree with the kernel, rule included.
func (w *world) trace(t *rapid.T, e *policy.Engine, q question, sub policy.Subject, got answer) {
	self, peer := policy.Peer{Endpoint: q.ep}, policy.Peer{Identity: q.id, Addr: q.addr}
	query := policy.Query{Source: self, Destination: peer, Proto: q.pkt.Proto, Port: q.pkt.Port}
	if q.dir == model.Ingress {
		query.Source, query.Destination = peer, self
	}
	for range 2 {
		res, err := e.Trace(query)
		if err != nil {
			t.Fatal(err)
		}
		j := res.Egress
		if q.dir == model.Ingress {
			j = res.Ingress
		}
		if j == nil || j.Verdict != got.verdict || j.Rule.ID != got.rule {
			t.Fatalf("%+v: kernel %+v, trace %+v", q, got, j)
		}
		if sub.Audit || len(sub.NamedPorts) > 0 {
			return
		}
		// The same question about workloads that only have the labels.
		query.Source, query.Destination = w.hypothetical(query.Source), w.hypothetical(query.Destination)
	}
}

func (w *world) hypothetical(p policy.Peer) policy.Peer {
	if p.Identity == 0 && p.Endpoint == 0 {
		return p
	}
	id := p.Identity
	ports := w.end(id).Ports
	if p.Endpoint != 0 {
		id, ports = w.subjects[p.Endpoint].Identity, nil
	}
	return policy.Peer{Labels: w.end(id).Labels, NamedPorts: ports, Addr: p.Addr}
}

// restart checks that what was compiled is what a new engine would compile, by content and from nothing.
func (w *world) restart(t *rapid.T, k *fakeKernel) {
	all := w.everything()
	e, err := policy.New(w.cfg, k.state())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := e.Apply(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Steps) > 0 {
		t.Fatalf("a restart without news writes: %+v\nkernel %+v", plan.Steps, k)
	}
	e2, err := policy.New(w.cfg, model.PolicyState{})
	if err != nil {
		t.Fatal(err)
	}
	if plan, err = e2.Apply(all); err != nil {
		t.Fatal(err)
	}
	k2 := newFakeKernel()
	k2.apply(plan, rand.New(rand.NewPCG(1, 1)), nil)
	for _, q := range questions(slices.Sorted(maps.Keys(w.subjects)), w.peersOf(w.identities), w.known(), outside) {
		if a, b := k.answer(q, w.dual()), k2.answer(q, w.dual()); a != b {
			t.Fatalf("%+v: incremental %+v, from nothing %+v", q, a, b)
		}
	}
	if len(k.lists) != len(k2.lists) || len(k.classes) != len(k2.classes) || len(k.prefixes) != len(k2.prefixes) || len(k.areas) != len(k2.areas) {
		t.Fatalf("leftovers: incremental %d lists, %d classes, %d prefixes, %d areas; from nothing %d, %d, %d, %d", len(k.lists), len(k.classes),
			len(k.prefixes), len(k.areas), len(k2.lists), len(k2.classes), len(k2.prefixes), len(k2.areas))
	}
	for p, a := range k.areas {
		if k2.areas[p].Strict != a.Strict {
			t.Fatalf("area %s is %+v, from nothing %+v", p, a, k2.areas[p])
		}
	}
}

func (w *world) everything() policy.Changes {
	var c policy.Changes
	c.Policies = slices.Collect(maps.Values(w.policies))
	c.Identities = slices.Collect(maps.Values(w.identities))
	c.Subjects = slices.Collect(maps.Values(w.subjects))
	c.Addresses = w.homes
	for n, g := range w.groups {
		in := parse.CIDRGroup{Name: n, Labels: model.NewLabels(model.Label{Source: "k8s", Key: "kind", Value: g.Labels["kind"]})}
		for _, s := range g.CIDRs {
			in.CIDRs = append(in.CIDRs, mustCIDR(s))
		}
		c.CIDRGroups = append(c.CIDRGroups, in)
	}
	return c
}
