package policy_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/policygen"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func genConfig(t *rapid.T) policy.Config {
	cfg := policy.Config{Cluster: "c1",
		Mode:           rapid.SampledFrom([]policy.Mode{policy.ModeDefault, policy.ModeDefault, policy.ModeDefault, policy.ModeAlways, policy.ModeNever}).Draw(t, "mode"),
		AllowLocalhost: rapid.SampledFrom([]policy.Localhost{policy.LocalhostAlways, policy.LocalhostPolicy}).Draw(t, "localhost"),
		CIDRMatchNodes: one(t, 3, "nodes")}
	switch rapid.IntRange(0, 7).Draw(t, "versions") {
	case 0:
		cfg.IPv4 = true
	case 1:
		cfg.IPv6 = true
	default:
		cfg.IPv4, cfg.IPv6 = true, true
	}
	return cfg
}

// TestCase38PolicyPackets drives the agent's parts that make policy through random changes: each packet's fate is what the
// evaluator says, what Trace says, and is told by the same rule; connections are judged anew. What is counted are judged
// questions: a source, a destination, a protocol, a port and a direction; a packet between two workloads here is two.
func TestCase38PolicyPackets(t *testing.T) {
	c := score.Start(t, "38", "policy programs against evaluator and trace, by BPF_PROG_RUN")
	k := newKernel(t)
	want := score.Size(60_000, 1_000_000)
	policygen.Repeat(t, c.Rand(), 175*time.Second, func() bool { return k.judged >= want }, func(t *rapid.T) { checkAgree(t, k) })
	c.Count(k.judged, "judged questions")
	c.Say("evaluator, trace and kernel agree on verdict, rule and drop reason; both families; %d packets by services, %d workloads reached themselves", k.services, k.hairpins)
	if k.services == 0 || k.hairpins == 0 {
		t.Errorf("%d packets by services, %d to themselves", k.services, k.hairpins)
	}
	if k.judged < want {
		c.Say("evaluator, trace and kernel agree; stopped after 175 s, short of %d", want)
	}
}

const (
	questions = 150 // after each change
	watched   = 25  // between the writes of a plan
)

func checkAgree(t *rapid.T, k *kernel) {
	w := newWorld(t, k, genConfig(t), rapid.Uint64().Draw(t, "seed"))
	w.populate(t)
	w.check(questions)
	for range rapid.IntRange(1, 7).Draw(t, "changes") {
		var stop func()
		if one(t, 3, "watch") {
			stop = w.watch()
		}
		w.change(t)
		if stop != nil {
			stop()
		}
		w.check(questions)
	}
}

// populate fills the world with workloads and policies.
func (w *world) populate(t *rapid.T) {
	var c policy.Changes
	for range rapid.IntRange(0, 4).Draw(t, "policies") {
		p := genPolicy(t)
		w.policies[p.Key] = p
		c.Policies = append(c.Policies, p)
	}
	w.apply(c)
	for _, s := range everybody {
		switch {
		case s.place == local && (s.ep == 1 || rapid.Bool().Draw(t, s.name)):
			w.relabel(t, s)
		case s.place == through && s.fixed == 0 && rapid.Bool().Draw(t, s.name):
			w.remake(t, s)
		}
	}
}

func (w *world) relabel(t *rapid.T, s *somebody) {
	id := workload(genWorkload.Draw(t, "identity"), genPorts.Draw(t, "ports"))
	if one(t, 8, "no labels") {
		id.Identity = model.Identity{ID: model.IdentityInit, Labels: model.NewLabels(model.Label{Source: model.SourceReserved, Key: "init"})}
	}
	w.identities[id.ID] = id
	w.enforce(s, policy.Subject{Endpoint: s.ep, Identity: id.ID, NamedPorts: genPorts.Draw(t, "own ports"), Audit: one(t, 8, "audit")})
}

// remake gives a remote workload another identity, or takes it away.
func (w *world) remake(t *rapid.T, s *somebody) {
	defer func() { w.apply(policy.Changes{}) }() // who lives where, if that is news
	if w.remote[s.index] != 0 && one(t, 4, "away") {
		w.remote[s.index] = 0
		w.remoteRows(s)
		return
	}
	id := workload(genWorkload.Draw(t, "identity"), genPorts.Draw(t, "ports"))
	w.identities[id.ID] = id
	w.remote[s.index] = id.ID
	news := policy.Changes{Identities: []policy.Identity{id}}
	if rapid.Bool().Draw(t, "address first") {
		w.remoteRows(s)
		w.apply(news)
	} else {
		w.apply(news)
		w.remoteRows(s)
	}
}

func somebodyOf(t *rapid.T, ok func(*somebody) bool) *somebody {
	var in []*somebody
	for _, s := range everybody {
		if ok(s) {
			in = append(in, s)
		}
	}
	return in[rapid.IntRange(0, len(in)-1).Draw(t, "who")]
}

// change makes one change to the world.
func (w *world) change(t *rapid.T) {
	isLocal := func(s *somebody) bool { return s.place == local }
	switch rapid.IntRange(0, 14).Draw(t, "change") {
	case 0, 1, 2, 3:
		var c policy.Changes
		for range rapid.IntRange(1, 2).Draw(t, "policies") {
			p := genPolicy(t)
			w.policies[p.Key] = p
			c.Policies = append(c.Policies, p)
		}
		w.apply(c)
	case 4, 5:
		key := fmt.Sprintf("p%d", rapid.IntRange(0, policies-1).Draw(t, "policy"))
		delete(w.policies, key)
		w.apply(policy.Changes{DeletePolicies: []string{key}})
	case 6, 7:
		w.relabel(t, somebodyOf(t, isLocal))
	case 8:
		w.remake(t, somebodyOf(t, func(s *somebody) bool { return s.place == through && s.fixed == 0 }))
	case 9:
		name := rapid.SampledFrom([]string{"g1", "g2"}).Draw(t, "group")
		if one(t, 4, "delete") {
			delete(w.groups, name)
			delete(w.stored, name)
			w.apply(policy.Changes{DeleteCIDRGroups: []string{name}})
			return
		}
		g, in := genGroup(t, name)
		w.groups[name], w.stored[name] = g, in
		w.apply(policy.Changes{CIDRGroups: []parse.CIDRGroup{in}})
	case 10:
		if s := somebodyOf(t, isLocal); w.there(s) {
			w.leave(s)
		}
	case 11:
		if rapid.Bool().Draw(t, "audit") {
			w.audit = !w.audit
			w.must(w.k.maps.SetAudit(w.audit))
			return
		}
		cfg := genConfig(t)
		w.cfg.Mode, w.cfg.AllowLocalhost, w.cfg.CIDRMatchNodes = cfg.Mode, cfg.AllowLocalhost, cfg.CIDRMatchNodes
		cfg = w.cfg
		w.apply(policy.Changes{Config: &cfg})
	case 12:
		w.restart()
	case 13, 14:
		// Workloads elsewhere say other names of their ports.
		s := somebodyOf(t, func(s *somebody) bool { return w.there(s) && len(w.identities[w.identity(s)].Labels) > 0 })
		id := w.identities[w.identity(s)]
		id.NamedPorts = genPorts.Draw(t, "ports")
		w.identities[id.ID] = id
		w.apply(policy.Changes{Identities: []policy.Identity{id}})
	}
}

// watchedConn is an established connection with one side judged here, so that its fate has two legal values at most.
type watchedConn struct {
	*conn
	before bool         // it passed
	passed map[bool]int // what was seen, and after which write last
}

func (w *world) oneSided() (out []*watchedConn) {
	for _, c := range w.tracked {
		if len(out) < 6 && w.there(c.from) && w.there(c.to) && (c.from.place == local) != (c.to.place == local) {
			out = append(out, &watchedConn{c, !w.sides(c.question)[0].denies(), map[bool]int{}})
		}
	}
	return out
}

// watch asks questions before the writes of the next plans, after each of them, and at the end: what was between must be as
// before or as after, on each side. What is returned is to be called at the end.
func (w *world) watch() (stop func()) {
	var qs []question
	var before [][]want
	for range watched {
		if q, ok := w.genQuestion(w.rand); ok && w.knows(q.from) && w.knows(q.to) {
			qs = append(qs, q)
			before = append(before, w.sides(q))
		}
	}
	type seen struct {
		q    int
		got  outcome
		when int
	}
	var all []seen
	conns := w.oneSided()
	writes := 0
	ids := map[*somebody]model.IdentityID{}
	for _, s := range everybody {
		ids[s] = w.identity(s)
	}
	// An address elsewhere that is changing hands is another story: its node and this one need not agree on it.
	same := func(s *somebody) bool { return w.there(s) && (s.place == local || w.identity(s) == ids[s]) }
	w.seen = func() {
		writes++
		for _, c := range conns {
			if same(c.from) && same(c.to) {
				c.passed[w.send(c.question, c.sport, "A", w.rand.IntN(2) == 0).passed()] = writes
			}
		}
		for i, q := range qs {
			if w.rand.IntN(3) > 0 || !same(q.from) || !same(q.to) {
				continue
			}
			all = append(all, seen{i, w.send(q, w.nextPort(), "S", false), writes})
		}
	}
	return func() {
		w.seen = nil
		for _, c := range conns {
			if !w.there(c.from) || !w.there(c.to) {
				continue
			}
			after := !w.sides(c.question)[0].denies()
			if when, did := c.passed[!after]; did && c.before == after {
				w.t.Fatalf("established %v: passes %t before and after the change, not after write %d of %d", c.question, after, when, writes)
			}
		}
		for _, s := range all {
			q := qs[s.q]
			if !w.there(q.from) || !w.there(q.to) {
				continue
			}
			after := w.sides(q)
			for _, j := range s.got.judged {
				ok := false
				for _, legal := range append(before[s.q], after...) {
					ok = ok || legal.dir == j.dir && legal.verdict == j.verdict && legal.rule == j.rule
				}
				if !ok {
					w.t.Fatalf("%v: after write %d of %d: %+v, before the change %+v, after it %+v", q, s.when, writes, j, before[s.q], after)
				}
			}
			if n := len(s.got.judged); n == 0 || s.got.drop != 0 && s.got.drop != 133 && s.got.drop != 181 {
				w.t.Fatalf("%v: after write %d of %d: %+v", q, s.when, writes, s.got)
			}
		}
	}
}
