package page

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Targets is a table of what was wanted and what came out.
type Targets struct {
	b      strings.Builder
	Missed []string // what was not reached
}

// Add adds a line.
func (t *Targets) Add(what, got, want string, reached bool) {
	mark := "reached"
	if !reached {
		mark = "**missed**"
		t.Missed = append(t.Missed, what)
	}
	fmt.Fprintf(&t.b, "| %s | %s | %s | %s |\n", what, got, want, mark)
}

// String is the table.
func (t *Targets) String() string {
	return "| what | measured | target | |\n| --- | ---: | ---: | --- |\n" + t.b.String() + "\n"
}

// MS is a duration in milliseconds.
func MS(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }

// Given are the flags that were given, for the record, but for these.
func Given(flags *flag.FlagSet, but ...string) (s string) {
	flags.Visit(func(f *flag.Flag) {
		switch {
		case slices.Contains(but, f.Name):
		case f.Value.String() == "true":
			s += " -" + f.Name
		default:
			s += " -" + f.Name + " " + f.Value.String()
		}
	})
	return s
}
