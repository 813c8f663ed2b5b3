package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hypha-net/hypha/test/bench/page"
)

// Targets of row 8, in ns.
const (
	addedMost       = 50.0
	establishedMost = 25.0
	flatWithin      = 0.10
)

// programs is row 8.
func programs(_ context.Context, o options) (string, error) {
	all, err := measurePrograms(o.rounds, o.repeat, os.Stderr)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "`from_pod` from one workload to another of the same node, IPv4 UDP, by BPF_PROG_RUN, quiet: differences of the fastest of "+
		"%d interleaved rounds of %d packets each.\n\n", o.rounds, o.repeat)
	var t page.Targets
	last := all[len(all)-1]
	added := func(p *programTimes, set uint32) float64 {
		v, _ := p.over(programArm{"new", set}, programArm{"new", setNone})
		return v
	}
	for _, c := range cases {
		got := added(last, c.set)
		if c.set != setBoth {
			t.Add(c.what+", n = 60000", fmt.Sprintf("%.0f ns", got), fmt.Sprintf("<= %.0f ns added", addedMost), got <= addedMost)
		}
		// Without entries the row for any peer is asked: another way through the program.
		least := added(all[1], c.set)
		for _, p := range all[2:] {
			least = min(least, added(p, c.set))
		}
		t.Add(c.what+": the most over the least, n = 100 to 60000", fmt.Sprintf("%+.0f %%", 100*(got/least-1)), "flat within 10 %", got/least-1 <= flatWithin)
	}
	established, _ := last.over(programArm{"established", setPeers}, programArm{"established", setNone})
	find, _ := last.over(armFind, armReach)
	t.Add("established connection, added by policy, n = 60000", fmt.Sprintf("%.0f ns", established), fmt.Sprintf("<= %.0f ns", establishedMost), established <= establishedMost)
	t.Add("the connection table's look-up, which admits an established packet", fmt.Sprintf("%.0f ns", find), fmt.Sprintf("<= %.0f ns", establishedMost), find <= establishedMost)
	b.WriteString(t.String())
	b.WriteString("| ns (median of the paired rounds), with n entries |")
	for _, p := range all {
		fmt.Fprintf(&b, " %d |", p.n)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(all)) + "\n")
	line := func(what string, x, y programArm) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, p := range all {
			if len(p.arm[x]) == 0 {
				b.WriteString(" |")
				continue
			}
			fastest, middle := p.over(x, y)
			fmt.Fprintf(&b, " %.1f (%.1f) |", fastest, middle)
		}
		b.WriteString("\n")
	}
	for _, c := range cases {
		line("new connection, added: "+c.what, programArm{"new", c.set}, programArm{"new", setNone})
	}
	line("new connection, the whole program with its old row deleted first", programArm{"new", setPeers}, armEmpty)
	line("established connection, added", programArm{"established", setPeers}, programArm{"established", setNone})
	line("established connection, the whole program", programArm{"established", setPeers}, armEmpty)
	line("the connection table's look-up", armFind, armReach)
	b.WriteString("\nAdded: over the same packet with both ends under no policy set, for which nothing is asked. The whole program: over an empty one.\n")
	return b.String(), nil
}
