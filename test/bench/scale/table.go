package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// quantile is the value that a part q of the sorted values does not exceed.
func quantile[T any](sorted []T, q float64) T {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(v []float64) float64 { return quantile(slices.Sorted(slices.Values(v)), 0.5) }

// spread is p50, p99 and the greatest of durations.
type spread struct {
	n             int
	p50, p99, max time.Duration
}

func spreadOf(v []time.Duration) spread {
	if len(v) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(v))
	return spread{n: len(s), p50: quantile(s, 0.5), p99: quantile(s, 0.99), max: s[len(s)-1]}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }

// targets is a table of what was wanted and what came out.
type targets struct{ b strings.Builder }

func (t *targets) add(what, got, want string, reached bool) {
	mark := "reached"
	if !reached {
		mark = "**missed**"
	}
	fmt.Fprintf(&t.b, "| %s | %s | %s | %s |\n", what, got, want, mark)
}

func (t *targets) String() string {
	return "| what | measured | target | |\n| --- | ---: | ---: | --- |\n" + t.b.String() + "\n"
}
