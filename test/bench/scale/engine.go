package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// The engine's part of row 9: no kernel, no store.

const (
	engineRules   = 1000
	engineRounds  = 300
	resolveTarget = time.Millisecond
)

// engineWorld is an engine with 1000 rules, 3000 identities, 100 workloads.
func engineWorld() (*policy.Engine, error) {
	e, err := policy.New(policy.Config{}, model.PolicyState{})
	if err != nil {
		return nil, err
	}
	parsed, _, err := parse.Parse("rules.json", []byte(manyRules(engineRules)))
	if err != nil {
		return nil, err
	}
	c := policy.Changes{Policies: parsed}
	for i := range identities {
		c.Identities = append(c.Identities, policy.Identity{Identity: identityOf(i)})
	}
	for i := range workloads {
		c.Subjects = append(c.Subjects, policy.Subject{Endpoint: uint16(i + 1), Identity: identityOf(i).ID})
	}
	_, err = e.Apply(c)
	return e, err
}

func engine(context.Context, options) (string, error) {
	var start []time.Duration
	var e *policy.Engine
	for range 5 {
		began := time.Now()
		var err error
		if e, err = engineWorld(); err != nil {
			return "", err
		}
		start = append(start, time.Since(began))
	}
	changed := func(i int) (c policy.Changes, err error) { // rule 7 with another port
		r := rule(7)
		r["ingress"] = []object{{"fromEndpoints": []object{selector("app", "a49")}, "toPorts": ports("TCP", 20000+i)}}
		c.Policies, _, err = parse.Parse("rules.json", []byte(document(r)))
		return c, err
	}
	ops := []struct {
		what string
		make func(i int) (policy.Changes, error)
	}{
		{"a new identity in a known class", func(i int) (policy.Changes, error) {
			return policy.Changes{Identities: []policy.Identity{{Identity: identityOf(identities + i)}}}, nil
		}},
		{"one of the policies changes", changed},
		{"a workload comes", func(i int) (policy.Changes, error) {
			return policy.Changes{Subjects: []policy.Subject{{Endpoint: uint16(1000 + i), Identity: identityOf(i % workloads).ID}}}, nil
		}},
		{"a workload goes", func(i int) (policy.Changes, error) {
			return policy.Changes{DeleteSubjects: []uint16{uint16(1000 + i)}}, nil
		}},
	}
	var b strings.Builder
	var t page.Targets
	fmt.Fprintf(&b, "%d rules, %d identities, %d workloads; resolving is one `Engine.Apply`: the change in, the plan of kernel writes out. %d of each.\n\n",
		engineRules, identities, workloads, engineRounds)
	for _, op := range ops {
		var took []time.Duration
		for i := range engineRounds {
			c, err := op.make(i)
			if err != nil {
				return "", err
			}
			began := time.Now()
			if _, err := e.Apply(c); err != nil {
				return "", err
			}
			took = append(took, time.Since(began))
		}
		s := stat.SpreadOf(took)
		t.Add(op.what+": resolved, p50 (p99)", fmt.Sprintf("%s (%s)", page.MS(s.P50), page.MS(s.P99)), "<= 1 ms", s.P50 <= resolveTarget)
	}
	b.WriteString(t.String())
	fmt.Fprintf(&b, "Everything from nothing, parsing included: %s.\n", page.MS(stat.SpreadOf(start).P50))
	return b.String(), nil
}
