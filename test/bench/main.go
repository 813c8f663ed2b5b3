// Command bench compares Hypha's data path with the kernel's own paths and with kube-proxy's shapes, side by side in one run on one
// machine: rows 1 to 3 of the performance suite (streams, request-response, connect-request-close). It writes tables to
// docs/performance.md. It asserts nothing: read the tables.
//
//	go run ./test/bench
//	go run ./test/bench -rounds 21 -duration 2s -budget 2h
//	go run ./test/bench -arms A1,A2 -tests rr1 -rounds 3 -out ""
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
	"github.com/hypha-net/hypha/test/bench/page"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		exit(load.Main(os.Args[2:], os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	exit(bench(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func bench(ctx context.Context) (err error) {
	rounds := flag.Int("rounds", 7, "good rounds of each test")
	duration := flag.Duration("duration", 500*time.Millisecond, "length of one measurement; streams take whole seconds, at least one")
	budget := flag.Duration("budget", 14*time.Minute, "time for everything; when it is short, bad rounds are not repeated")
	services := flag.Int("services", 1000, "services of kube-proxy's shapes")
	drift := flag.Float64("drift", 0.03, "part by which the base may differ from itself within a round")
	only := flag.String("arms", "", "arms to run, comma separated (default: all)")
	onlyTests := flag.String("tests", "", "tests to run, comma separated (default: all)")
	bin := flag.String("bin", "bin", "directory of Hypha's binaries")
	out := flag.String("out", "docs/performance.md", "document to write the tables into, between its markers; empty: none")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("needs root: makes network namespaces")
	}
	if err := netns.Sweep(); err != nil {
		return err
	}
	binaries, err := filepath.Abs(*bin) // agents start with a working directory of their own
	if err != nil {
		return err
	}
	chosen := tests
	if *onlyTests != "" {
		chosen, err = pick(tests, func(t test) string { return t.name }, *onlyTests)
		if err != nil {
			return err
		}
	}
	groups := []struct {
		title, base string
		arms        []arm.Arm
	}{
		{"Same node", "A1", slices.Concat(arm.Kernel(), arm.KubeProxy(*services), arm.Hypha(binaries))},
		{"Across two nodes", "XV", slices.Concat(arm.CrossNode(), arm.HyphaCross(binaries))},
	}
	end, left := time.Now().Add(*budget), len(groups)*len(chosen)
	share := func() time.Duration { // of the next test: what is left, divided by those to come
		left--
		return time.Until(end) / time.Duration(left+1)
	}
	var doc strings.Builder
	fmt.Fprintf(&doc, "%s\n\n", page.Machine([]string{"iperf3", "--version"}, []string{"iptables", "--version"}, []string{"nft", "--version"}))
	fmt.Fprintf(&doc, "Command: `go run ./test/bench -rounds %d -duration %s -services %d`; streams with %s.\n\n", *rounds, *duration, *services, congestion)
	for _, g := range groups {
		arms := g.arms
		if *only != "" {
			arms, err = pick(arms, arm.Arm.Name, *only)
			if err != nil && len(arms) == 0 {
				left -= len(chosen)
				continue
			}
			if !slices.ContainsFunc(arms, func(a arm.Arm) bool { return a.Name() == g.base }) {
				base, err := pick(g.arms, arm.Arm.Name, g.base)
				if err != nil {
					return err
				}
				arms = append(base, arms...)
			}
		}
		p := plan{
			arms: arms, base: g.base, tests: chosen, rounds: *rounds, most: 3 * *rounds,
			duration: *duration, drift: *drift, share: share, log: os.Stderr,
		}
		reports, err := group(ctx, p)
		if err != nil {
			return err
		}
		fmt.Fprintf(&doc, "### %s\n\n", g.title)
		for _, a := range arms {
			fmt.Fprintf(&doc, "- **%s** %s\n", a.Name(), a.About())
		}
		fmt.Fprintln(&doc)
		writeTargets(&doc, reports)
		write(&doc, reports)
	}
	fmt.Print(doc.String())
	if *out == "" {
		return nil
	}
	return page.Replace(*out, "bench", doc.String())
}

// group sets all arms up, measures, and takes all down again, whatever happens.
func group(ctx context.Context, p plan) (reports []report, err error) {
	ends := map[string]arm.Ends{}
	for _, a := range p.arms {
		defer func() { err = errors.Join(err, a.Teardown()) }()
		e, err := a.Setup(ctx)
		if err != nil {
			return nil, fmt.Errorf("set up %s: %w", a.Name(), err)
		}
		ends[a.Name()] = e
	}
	return p.run(ctx, ends)
}

// pick returns the elements with these names, in their own order. An unknown name is an error, beside what was found.
func pick[T any](all []T, name func(T) string, list string) (out []T, err error) {
	want := strings.Split(list, ",")
	var have []string
	for _, x := range all {
		have = append(have, name(x))
		if slices.Contains(want, name(x)) {
			out = append(out, x)
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			err = fmt.Errorf("there is no %q: there are %s", w, strings.Join(have, ", "))
		}
	}
	return out, err
}
