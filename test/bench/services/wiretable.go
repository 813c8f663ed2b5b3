package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// Targets of row 7.
const (
	wireRuleTimes = 3.0 // B2's
	wireBarePart  = 0.8 // of a bare redirect program's
)

// wires is row 7.
func wires(_ context.Context, o options, t *page.Targets) (string, error) {
	all, err := measureWires(o.passes, o.frames)
	if err != nil {
		return "", err
	}
	return wireText(o, all, t), nil
}

// against are a way's packets per second over another's, by round.
func (r *wireReport) against(way, other string) (ratios []float64) {
	for i, x := range r.got[way] {
		ratios = append(ratios, x/r.got[other][i])
	}
	return ratios
}

// best is a way's fastest round, which what else the machine does touches least.
func (r *wireReport) best(way string) float64 { return slices.Max(r.got[way]) }

func wireText(o options, all []wireReport, t *page.Targets) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Segments of established IPv4 connections to a service whose backend is on another node, one CPU, native routing, by live frames (BPF_PROG_RUN, %d at a time): "+
		"from the driver of one veth out by a veth whose other end counts and drops them in XDP. A small program makes each frame anew first, on all ways; it is part of the time. The fastest of %d interleaved rounds of %d frames, and in brackets the median of the paired ratios.\n\n",
		wireBatch, o.passes, o.frames)
	for i := range all {
		r := &all[i]
		what := fmt.Sprintf("packets per second in XDP, %d connections", r.flows)
		for _, x := range []struct {
			other string
			least float64
		}{{wireRule, wireRuleTimes}, {wireBare, wireBarePart}} {
			m := r.best(wireFast) / r.best(x.other)
			t.Add(fmt.Sprintf("%s, over %s", what, x.other), fmt.Sprintf("%.2f", m), fmt.Sprintf(">= %.1f", x.least), m >= x.least)
		}
	}
	b.WriteString("| million packets per second |")
	for i := range all {
		fmt.Fprintf(&b, " %d connections | ns each | of bare |", all[i].flows)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: | ---: | ---: |", len(all)) + "\n")
	for _, way := range wireWays {
		fmt.Fprintf(&b, "| %s |", way)
		for i := range all {
			pps := all[i].best(way)
			fmt.Fprintf(&b, " %.2f | %.0f | %.2f (%.2f) |", pps/1e6, 1e9/pps, pps/all[i].best(wireBare), stat.Median(all[i].against(way, wireBare)))
		}
		b.WriteString("\n")
	}
	return b.String()
}
