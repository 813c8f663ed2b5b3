package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
)

// Targets of rows 4 and 5.
const (
	grownMost      = 1.05 // p99 among the most services over that among the fewest
	addedAtSocket  = 1.0  // us, p50
	addedInPackets = 2.0
	nftablesPart   = 0.5 // of p99
	inKernelMost   = time.Millisecond
	throughMost    = 10 * time.Millisecond
	iptablesTimes  = 100.0
	nftablesTimes  = 10.0
)

// fewerThan is how many times less a connect must gain than with B1, by services.
var fewerThan = []struct {
	services int
	times    float64
}{{5000, 20}, {30000, 100}}

// judge compares with the targets, as far as there is something to compare.
func (r *sitesReport) judge(t *page.Targets) {
	if len(r.connects) > 0 {
		r.judgeConnects(t)
	}
	for _, x := range r.changes {
		x.judge(t)
	}
}

func (r *sitesReport) judgeConnects(t *page.Targets) {
	first, last := r.connects[0], r.connects[len(r.connects)-1]
	for _, c := range []struct {
		name  string
		least float64
	}{{atSocket, addedAtSocket}, {inPackets, addedInPackets}} {
		if !r.has(c.name) {
			continue
		}
		grown := last.of(c.name, "last", p99) / first.of(c.name, "last", p99)
		t.Add(fmt.Sprintf("%s: p99 of the connect to the last of %d over that of %d", c.name, last.services, first.services), fmt.Sprintf("%.2f", grown),
			fmt.Sprintf("<= %.2f", grownMost), grown <= grownMost)
		added, least, most, _ := last.added(c.name, "last")
		t.Add(fmt.Sprintf("%s: added to a connect, p50, the last of %d (spread)", c.name, last.services), fmt.Sprintf("%.2f us (%.2f to %.2f)", added, least, most),
			fmt.Sprintf("<= %.0f us", c.least), added <= c.least)
		for _, x := range fewerThan {
			if at := r.at(x.services); at != nil && r.has(byIPTables) {
				theirs, _, _, _ := at.added(byIPTables, "last")
				ours, _, _, _ := at.added(c.name, "last")
				t.Add(fmt.Sprintf("%s: added, p50, the last of %d, against B1's", c.name, x.services), fmt.Sprintf("%.2f us against %.1f us", ours, theirs),
					fmt.Sprintf("%.0f times less", x.times), ours*x.times <= theirs)
			}
		}
		if r.has(byNFTables) {
			_, _, _, ours := last.added(c.name, "last")
			_, _, _, theirs := last.added(byNFTables, "last")
			t.Add(fmt.Sprintf("%s: added, p99, the last of %d, against B2's", c.name, last.services), fmt.Sprintf("%.1f us against %.1f us", ours, theirs),
				fmt.Sprintf("<= %.1f of it", nftablesPart), ours <= nftablesPart*theirs)
		}
	}
}

func (x *changeReport) judge(t *page.Targets) {
	c := x.got[atSocket]
	if c == nil {
		return
	}
	kernel, through := stat.SpreadOf(c.kernel), stat.SpreadOf(c.through)
	t.Add(fmt.Sprintf("one more than %d services, from the call to the row in the kernel, p99 of %d", x.services, kernel.N), page.MS(kernel.P99),
		"<= "+page.MS(inKernelMost), kernel.P99 <= inKernelMost)
	t.Add(fmt.Sprintf("... to the first connection, p99 of %d", through.N), page.MS(through.P99), "<= "+page.MS(throughMost), through.P99 <= throughMost)
	for _, y := range []struct {
		name  string
		times float64
	}{{byIPTables, iptablesTimes}, {byNFTables, nftablesTimes}} {
		if theirs := x.got[y.name]; theirs != nil {
			than := stat.SpreadOf(theirs.through).P50
			t.Add(fmt.Sprintf("... p50, against %s's", y.name), fmt.Sprintf("%s against %s", page.MS(through.P50), page.MS(than)),
				fmt.Sprintf("%.0f times less", y.times), float64(through.P50)*y.times <= float64(than))
		}
	}
	t.Add("... connections to another service that failed meanwhile", fmt.Sprint(c.failed), "0", c.failed == 0)
}

// text is the tables of rows 4 and 5.
func (r *sitesReport) text(o options) string {
	var b strings.Builder
	for _, s := range r.arms {
		fmt.Fprintf(&b, "- **%s** %s\n", s.Name(), s.About())
	}
	fmt.Fprintf(&b, "\n%s", r.losses())
	fmt.Fprintf(&b, "#### The connect call\n\n%s per arm and round, client and server on one CPU; the process has both ends, nobody wakes up.\n\n", o.duration)
	r.lines(&b, "us: p50, p99", func(c connectReport, name, goal string) string {
		return fmt.Sprintf("%.1f, %.1f", c.of(name, goal, p50), c.of(name, goal, p99))
	}, true)
	b.WriteString("Added, over straight: on B1 and B2 over A2's, because what goes straight there passes the rules as well.\n\n")
	r.lines(&b, "us added: p50 (spread), p99", func(c connectReport, name, goal string) string {
		half, least, most, high := c.added(name, goal)
		return fmt.Sprintf("%.2f (%.2f to %.2f), %.1f", half, least, most, high)
	}, false)
	b.WriteString("CPU time of a connection, its end and the server's part included, the mean over all that the arm connects to:\n\n")
	r.head(&b, "us | ")
	for _, s := range r.arms {
		fmt.Fprintf(&b, "| %s | |", s.Name())
		for _, c := range r.connects {
			fmt.Fprintf(&b, " %.1f |", c.cpu(s.Name()))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, c := range r.connects {
		fmt.Fprintf(&b, "- Among %d: %s\n", c.services, c.Text(baseName))
	}
	r.changeText(&b)
	return b.String()
}

// head begins a table with a column for each number of services.
func (r *sitesReport) head(b *strings.Builder, what string) {
	fmt.Fprintf(b, "| %s|", what)
	for _, c := range r.connects {
		fmt.Fprintf(b, " %d |", c.services)
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" ---: |", len(r.connects)) + "\n")
}

// lines is a table of something about each arm and goal. base: with what goes straight too.
func (r *sitesReport) lines(b *strings.Builder, what string, cell func(connectReport, string, string) string, base bool) {
	r.head(b, what+" | of services ")
	for _, s := range r.arms {
		for _, goal := range goals {
			straight := goal == goals[0]
			if s.Name() == baseName && !(straight && base) || straight && !base && !rival(s.Name()) {
				continue
			}
			fmt.Fprintf(b, "| %s | %s |", s.Name(), goal)
			for _, c := range r.connects {
				fmt.Fprintf(b, " %s |", cell(c, s.Name(), goal))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n")
}

// losses are where a shape of kube-proxy's does better, in words: a line for each two arms.
func (r *sitesReport) losses() string {
	if !slices.ContainsFunc(rivals, r.has) {
		return ""
	}
	var out []string
	for _, ours := range r.arms {
		if _, ok := ours.(*clustered); !ok {
			continue
		}
		for _, theirs := range rivals {
			if !r.has(theirs) {
				continue
			}
			var half, high []string
			for _, c := range r.connects {
				for _, goal := range goals[1:] {
					a, _, _, a99 := c.added(ours.Name(), goal)
					b, _, _, b99 := c.added(theirs, goal)
					if a > b {
						half = append(half, fmt.Sprintf("%s of %d (%.2f, %.2f)", goal, c.services, a, b))
					}
					if a99 > b99 {
						high = append(high, fmt.Sprintf("%s of %d (%.1f, %.1f)", goal, c.services, a99, b99))
					}
				}
			}
			for i, where := range [][]string{half, high} {
				if len(where) > 0 {
					out = append(out, fmt.Sprintf("%s against %s, %s of what is added to a connect, in us: %s", ours.Name(), theirs, []string{"p50", "p99"}[i], strings.Join(where, ", ")))
				}
			}
		}
	}
	return lost(append(out, r.changeLosses()...))
}

func (r *sitesReport) changeLosses() (out []string) {
	for _, x := range r.changes {
		c := x.got[atSocket]
		for _, theirs := range rivals {
			if c == nil || x.got[theirs] == nil {
				continue
			}
			if a, b := stat.SpreadOf(c.through).P50, stat.SpreadOf(x.got[theirs].through).P50; a > b {
				out = append(out, fmt.Sprintf("one more than %d services, to the first connection, p50: %s against %s's %s", x.services, page.MS(a), theirs, page.MS(b)))
			}
		}
	}
	return out
}

// lost says where Hypha does worse.
func lost(where []string) string {
	if len(where) == 0 {
		return "Nowhere below is Hypha behind one of kube-proxy's shapes.\n\n"
	}
	return "Where Hypha is behind one of kube-proxy's shapes:\n\n- " + strings.Join(where, "\n- ") + "\n\n"
}

// changeText is the tables of what comes.
func (r *sitesReport) changeText(b *strings.Builder) {
	if len(r.changes) > 0 {
		b.WriteString("\n#### One service more\n\nOn C from the call of the API on, which stores the service on disk first; on B1 and B2 from the start of the command that " +
			"loads the rules, which are written already (they are in force before it returns). Rows are looked for, and connections tried, about every 0.1 ms. Failed: connections to another service meanwhile.\n\n" +
			"| services | arm | times | the call or command returns: p50, p99 | in the kernel: p50, p99 | first connection: p50, p99 | failed |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |\n")
	}
	for _, x := range r.changes {
		for _, s := range r.changing() {
			c := x.got[s.Name()]
			both := func(v []time.Duration) string {
				d := stat.SpreadOf(v)
				if d.N == 0 {
					return ""
				}
				return page.MS(d.P50) + ", " + page.MS(d.P99)
			}
			fmt.Fprintf(b, "| %d | %s | %d | %s | %s | %s | %d |\n", x.services, s.Name(), len(c.called), both(c.called), both(c.kernel), both(c.through), c.failed)
		}
	}
}
