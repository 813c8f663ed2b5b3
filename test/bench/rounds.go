package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/hypha-net/hypha/test/bench/arm"
)

// plan is what to run.
type plan struct {
	arms     []arm.Arm
	base     string // name of the arm that all are compared with; it runs first and last in each round
	tests    []test
	rounds   int           // good ones wanted
	most     int           // rounds at most, bad ones included
	duration time.Duration // of one measurement
	drift    float64       // of base against itself in one round, above which the round is thrown away
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
	test   test
	base   string
	good   int
	thrown int
	arms   []outcome
}

// run measures all arms in all tests, interleaved: ABC, CBA, ... A round whose base drifts is thrown away.
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
	r := report{test: t, base: p.base}
	for _, a := range p.arms {
		r.arms = append(r.arms, outcome{arm: a})
	}
	_, _ = fmt.Fprintf(p.log, "%s\n", t.title)
	for n := 0; r.good < p.rounds && n < p.most; n++ {
		got, first, last, err := p.round(ctx, t, ends, n%2 == 1)
		if err != nil {
			return r, err
		}
		drift := math.Abs(last.rate/first.rate - 1)
		verdict := "good"
		if drift > p.drift {
			verdict = "thrown away"
			r.thrown++
		} else {
			r.good++
			mean := (first.rate + last.rate) / 2
			for i, a := range p.arms {
				r.arms[i].samples = append(r.arms[i].samples, got[a.Name()])
				r.arms[i].ratios = append(r.arms[i].ratios, got[a.Name()].rate/mean)
			}
		}
		_, _ = fmt.Fprintf(p.log, "  round %d: %s drift %.1f %%, %s\n", n+1, p.base, 100*drift, verdict)
	}
	return r, nil
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

// median of the values, NaN of none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// medianOf is the median of one property of the samples.
func medianOf(samples []sample, of func(sample) float64) float64 {
	v := make([]float64, len(samples))
	for i, s := range samples {
		v[i] = of(s)
	}
	return median(v)
}

// paired are the ratios of two arms in the same rounds.
func paired(a, b outcome) []float64 {
	out := make([]float64, min(len(a.samples), len(b.samples)))
	for i := range out {
		out[i] = a.samples[i].rate / b.samples[i].rate
	}
	return out
}
