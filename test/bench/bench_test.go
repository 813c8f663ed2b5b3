package main

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
)

// TestMain lets the test binary be the load process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		exit(load.Main(os.Args[2:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func TestPick(t *testing.T) {
	name := func(s string) string { return s }
	got, err := pick([]string{"a", "b", "c"}, name, "c,a")
	if err != nil || strings.Join(got, "") != "ac" {
		t.Errorf("%v %v", got, err)
	}
	if got, err := pick([]string{"a"}, name, "a,x"); err == nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

// Good rounds are kept; too few of them are made up by the calmest others, and the table says so.
func TestJudge(t *testing.T) {
	a1 := arm.Kernel()[1]
	turns := func(drifts ...float64) (out []turn) {
		for _, d := range drifts {
			out = append(out, turn{drift: d, base: 100, got: map[string]sample{"A1": {rate: 100 + 100*d}}})
		}
		return out
	}
	p := plan{arms: []arm.Arm{a1}, base: "A1", rounds: 3, drift: 0.03}
	for _, c := range []struct {
		turns              []turn
		good, kept, thrown int
		worst              float64
		says               string
	}{
		{turns(0.01, 0.5, 0.02, 0.03), 3, 3, 1, 0.03, "at most 3.0 %. 1 more"},
		{turns(0.5, 0.2, 0.02, 0.1, 0.3), 1, 3, 2, 0.2, "in only 1 of them"},
		{turns(0.5, 0.2, 0.4), 0, 3, 0, 0.5, "up to 50.0 %"},
	} {
		r := p.judge(tests[0], c.turns)
		if r.Good != c.good || r.Kept != c.kept || r.Thrown != c.thrown || r.Worst != c.worst || len(r.arms[0].ratios) != c.kept {
			t.Errorf("%+v: %+v", c, r)
		}
		if got := r.Text("A1"); !strings.Contains(got, c.says) {
			t.Errorf("%q lacks %q", got, c.says)
		}
	}
}

// Targets name tests that exist, so that none is silently never looked at.
func TestTargets(t *testing.T) {
	for _, x := range targets {
		found := false
		for _, y := range tests {
			found = found || y.name == x.test
		}
		if !found || x.least == 0 && !x.cpu {
			t.Errorf("target %+v", x)
		}
	}
}

// TestRound measures one short round of the plain arms: the tool works, its figures are figures.
func TestRound(t *testing.T) {
	netns.Require(t)
	chosen, err := pick(tests, func(t test) string { return t.name }, "rr1,crr32")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	p := plan{arms: arm.Kernel()[:2], base: "A1", tests: chosen, rounds: 1, most: 1, duration: 100 * time.Millisecond, drift: math.Inf(1), log: &log}
	reports, err := group(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if r.Good != 1 || r.Kept != 1 || len(r.arms) != 2 {
			t.Fatalf("%+v", r)
		}
		for _, o := range r.arms {
			if s := o.samples[0]; s.rate < 100 || s.p50 <= 0 || s.p99 < s.p50 || s.cpu < 0 || o.ratios[0] <= 0 {
				t.Errorf("%s on %s: %+v", r.test.name, o.arm.Name(), s)
			}
		}
	}
	var doc strings.Builder
	write(&doc, reports)
	if !strings.Contains(doc.String(), "| A1 |") {
		t.Errorf("no line for A1:\n%s", doc.String())
	}
}
