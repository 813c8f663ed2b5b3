package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// plan is what to run.
type plan struct {
	arms     []arm.Arm
	base     string // name of the arm that all are compared with; it runs first and last in each round
	tests    []test
	rounds   int                  // good ones wanted
	most     int                  // rounds at most, bad ones included
	duration time.Duration        // of one measurement
	drift    float64              // of base against itself in one round, above which the round is bad
	share    func() time.Duration // how long the next test may take in search of good rounds; nil: without limit
	log      io.Writer
}

// outcome is what one arm did in one test.
type outcome struct {
	arm     arm.Arm
	samples []sample  // of the good rounds
	ratios  []float64 // to base, of the same rounds
}

// report is the outcome of one test.
type report struct {
	test test
	base string
	stat.Quality
	arms []outcome
}

// A turn is one round's measurements.
type turn struct {
	drift float64
	base  float64 // rate
	got   map[string]sample
}

// run measures all arms in all tests, interleaved: ABC, CBA, ...
func (p plan) run(ctx context.Context, ends map[string]arm.Ends) ([]report, error) {
	var out []report
	for _, t := range p.tests {
		r, err := p.runTest(ctx, t, ends)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (p plan) runTest(ctx context.Context, t test, ends map[string]arm.Ends) (report, error) {
	_, _ = fmt.Fprintf(p.log, "%s\n", t.title)
	late := func() bool { return false }
	if p.share != nil {
		end := time.Now().Add(p.share())
		late = func() bool { return time.Now().After(end) }
	}
	var turns []turn
	for good := 0; good < p.rounds && len(turns) < p.most && (len(turns) < p.rounds || !late()); {
		got, first, last, err := p.round(ctx, t, ends, len(turns)%2 == 1)
		if err != nil {
			return report{}, err
		}
		x := turn{drift: math.Abs(last.rate/first.rate - 1), base: (first.rate + last.rate) / 2, got: got}
		verdict := "good"
		if x.drift > p.drift {
			verdict = "bad"
		} else {
			good++
		}
		turns = append(turns, x)
		_, _ = fmt.Fprintf(p.log, "  round %d: %s drift %.1f %%, %s\n", len(turns), p.base, 100*x.drift, verdict)
	}
	return p.judge(t, turns), nil
}

// judge makes a report of the calmest rounds.
func (p plan) judge(t test, turns []turn) report {
	kept, quality := stat.Calmest(turns, func(x turn) float64 { return x.drift }, p.drift, p.rounds)
	r := report{test: t, base: p.base, Quality: quality}
	for _, a := range p.arms {
		o := outcome{arm: a}
		for _, x := range kept {
			o.samples = append(o.samples, x.got[a.Name()])
			o.ratios = append(o.ratios, x.got[a.Name()].rate/x.base)
		}
		r.arms = append(r.arms, o)
	}
	return r
}

// round measures every arm once, base at both ends.
func (p plan) round(ctx context.Context, t test, ends map[string]arm.Ends, backwards bool) (got map[string]sample, first, last sample, err error) {
	order := slices.Clone(p.arms)
	if backwards {
		slices.Reverse(order)
	}
	one := func(name string) (s sample) {
		if err != nil {
			return s
		}
		if s, err = measure(ctx, ends[name], t, p.duration); err != nil {
			err = fmt.Errorf("%s on %s: %w", t.name, name, err)
		}
		return s
	}
	got = map[string]sample{}
	first = one(p.base)
	for _, a := range order {
		if a.Name() != p.base {
			got[a.Name()] = one(a.Name())
		}
	}
	last = one(p.base)
	got[p.base] = sample{
		rate: (first.rate + last.rate) / 2, cpu: (first.cpu + last.cpu) / 2, p50: (first.p50 + last.p50) / 2, p99: (first.p99 + last.p99) / 2,
	}
	return got, first, last, err
}

// paired are the ratios of two arms in the same rounds.
func paired(a, b outcome) []float64 {
	out := make([]float64, min(len(a.samples), len(b.samples)))
	for i := range out {
		out[i] = a.samples[i].rate / b.samples[i].rate
	}
	return out
}
