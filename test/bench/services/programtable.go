package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hypha-net/hypha/test/bench/page"
)

// Targets of row 6, in ns, by the first of the traffics.
var programMost = []float64{80, 150, 200}

const flatWithin = 0.10

// programs is row 6.
func programs(_ context.Context, o options, t *page.Targets) (string, error) {
	all, err := measurePrograms(o.vips, o.passes, o.repeat)
	if err != nil {
		return "", err
	}
	return programText(o, all, t), nil
}

func programText(o options, all []*programTimes, t *page.Targets) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`from_netdev` on IPv4 packets of clients outside to VIPs whose backend is a workload of this node, by BPF_PROG_RUN, quiet: the fastest of %d interleaved "+
		"rounds of %d packets each, and in brackets the median of the paired rounds; over an empty program that gets its packets in the same way. It is the whole program: "+
		"sender, connection, policy and delivery too. Balancing is what it takes more than on packets straight to the workload. Flows and new connections go round all VIPs; the tables of connections and translations (%d rows) are full.\n\n",
		o.passes, o.repeat, tableRows)
	last := all[len(all)-1]
	for kind, most := range programMost {
		got, _ := last.alone(kind)
		what := fmt.Sprintf("from_netdev to a VIP, %s", traffics[kind].what)
		t.Add(fmt.Sprintf("%s, %d VIPs", what, last.vips), fmt.Sprintf("%.0f ns", got), fmt.Sprintf("<= %.0f ns", most), got <= most)
		least, greatest := got, got
		for _, p := range all {
			x, _ := p.alone(kind)
			least, greatest = min(least, x), max(greatest, x)
		}
		t.Add(fmt.Sprintf("%s: the most over the least, %d to %d VIPs", what, all[0].vips, last.vips), fmt.Sprintf("%+.0f %%", 100*(greatest/least-1)),
			"flat within 10 %", greatest/least-1 <= flatWithin)
	}
	b.WriteString("| ns, with so many VIPs |")
	for _, p := range all {
		fmt.Fprintf(&b, " %d |", p.vips)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(all)) + "\n")
	line := func(what string, of func(*programTimes) (float64, float64)) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, p := range all {
			fastest, middle := of(p)
			fmt.Fprintf(&b, " %.0f (%.0f) |", fastest, middle)
		}
		b.WriteString("\n")
	}
	half := len(traffics) / 2
	for kind := range half {
		what := traffics[kind].what
		line(what+", to a VIP", func(p *programTimes) (float64, float64) { return p.alone(kind) })
		line(what+", straight", func(p *programTimes) (float64, float64) { return p.alone(kind + half) })
		line(what+": balancing", func(p *programTimes) (float64, float64) {
			a, b := p.alone(kind)
			c, d := p.alone(kind + half)
			return a - c, b - d
		})
	}
	return b.String()
}
