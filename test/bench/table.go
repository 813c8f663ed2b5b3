package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/stat"
)

// A target is a line of the performance suite: a paired ratio that has to be reached.
type target struct {
	test  string // name of the test
	arm   string
	than  string
	least float64
	cpu   bool // CPU per unit of arm / than must be below 1 instead
}

// targets of rows 1 to 3.
var targets = []target{
	{test: "stream1", arm: "C", than: "A1", least: 0.97},
	{test: "stream1", arm: "C", than: "A2", least: 1},
	{test: "stream1", arm: "C", than: "B1", least: 1},
	{test: "stream1", arm: "C", than: "A2", cpu: true},
	{test: "stream1", arm: "C", than: "B1", cpu: true},
	{test: "stream4", arm: "C", than: "A1", least: 0.97},
	{test: "stream4", arm: "C", than: "A2", least: 1},
	{test: "stream4", arm: "C", than: "B1", least: 1},
	{test: "stream4", arm: "C", than: "A2", cpu: true},
	{test: "stream4", arm: "C", than: "B1", cpu: true},
	{test: "stream1", arm: "XC", than: "XV", least: 0.97},
	{test: "stream4", arm: "XC", than: "XV", least: 0.97},
	{test: "rr1", arm: "C", than: "A1", least: 0.97},
	{test: "rr1", arm: "C", than: "A2", least: 1.15},
	{test: "rr1", arm: "C", than: "B1", least: 1.2},
	{test: "rr1", arm: "C", than: "C0", least: 0.99},
	{test: "rr32", arm: "C", than: "A1", least: 0.97},
	{test: "rr32", arm: "C", than: "A2", least: 1.15},
	{test: "rr32", arm: "C", than: "B1", least: 1.2},
	{test: "crr1", arm: "C", than: "A1", least: 0.96},
	{test: "crr1", arm: "C", than: "B1", least: 1.3},
	{test: "crr1", arm: "C", than: "B1s", least: 1},
	{test: "crr1", arm: "C", than: "C0", least: 0.97},
}

// write writes the reports as Markdown tables.
func write(w io.Writer, reports []report) {
	for _, r := range reports {
		_, _ = fmt.Fprintf(w, "#### %s\n\n", r.test.title)
		if r.test.stream() {
			_, _ = fmt.Fprintf(w, "| arm | Gbit/s | CPU s per GB | ratio to %s | spread |\n| --- | ---: | ---: | ---: | ---: |\n", r.base)
		} else {
			_, _ = fmt.Fprintf(w, "| arm | per second | p50 us | p99 us | CPU us each | ratio to %s | spread |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n", r.base)
		}
		for _, o := range r.arms {
			spread := fmt.Sprintf("%.2f-%.2f", slices.Min(o.ratios), slices.Max(o.ratios))
			rate, cpu := stat.MedianOf(o.samples, func(s sample) float64 { return s.rate }), stat.MedianOf(o.samples, func(s sample) float64 { return s.cpu })
			if r.test.stream() {
				_, _ = fmt.Fprintf(w, "| %s | %.2f | %.3f | %.3f | %s |\n", o.arm.Name(), rate/1e9, cpu*1e9, stat.Median(o.ratios), spread)
				continue
			}
			us := func(of func(sample) time.Duration) float64 {
				return stat.MedianOf(o.samples, func(s sample) float64 { return float64(of(s)) / 1e3 })
			}
			_, _ = fmt.Fprintf(w, "| %s | %.0f | %.1f | %.1f | %.2f | %.3f | %s |\n", o.arm.Name(), rate,
				us(func(s sample) time.Duration { return s.p50 }), us(func(s sample) time.Duration { return s.p99 }), cpu*1e6, stat.Median(o.ratios), spread)
		}
		_, _ = fmt.Fprintf(w, "\n%s\n\n", r.Text(r.base))
	}
}

// writeTargets writes which targets were reached, of those whose arms were measured.
func writeTargets(w io.Writer, reports []report) {
	var b strings.Builder
	for _, t := range targets {
		for _, r := range reports {
			a, b1 := r.outcome(t.arm), r.outcome(t.than)
			if r.test.name != t.test || a == nil || b1 == nil || r.Kept == 0 {
				continue
			}
			ratios, want, ok := paired(*a, *b1), fmt.Sprintf(">= %.2f", t.least), false
			what := t.arm + " / " + t.than
			got := stat.Median(ratios)
			if t.cpu {
				cpu := func(s sample) float64 { return s.cpu }
				got, want, what = stat.MedianOf(a.samples, cpu)/stat.MedianOf(b1.samples, cpu), "< 1", what+", CPU per byte"
				ok = got < 1
			} else {
				ok = got >= t.least
			}
			mark := "reached"
			if !ok {
				mark = "**missed**"
			}
			_, _ = fmt.Fprintf(&b, "| %s | %s | %.3f | %s | %s |\n", r.test.name, what, got, want, mark)
		}
	}
	if b.Len() > 0 {
		_, _ = fmt.Fprintf(w, "#### Targets\n\n| test | paired ratio | median | target | |\n| --- | --- | ---: | ---: | --- |\n%s\n", b.String())
	}
}

func (r report) outcome(name string) *outcome {
	for i := range r.arms {
		if r.arms[i].arm.Name() == name {
			return &r.arms[i]
		}
	}
	return nil
}
