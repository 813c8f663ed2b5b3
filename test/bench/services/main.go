// Services measures what services cost: rows 4, 5 and 6 of the performance suite (connecting to one of many, one and many that
// come, the program that balances packets), beside kube-proxy's rule shapes. It writes tables to docs/performance.md. It asserts
// nothing: read the tables.
//
//	go run ./test/bench/services
//	go run ./test/bench/services -quick -out ""
//	go run ./test/bench/services -parts program -rounds 3 -out ""
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/test/bench/load"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/e2e/cluster"
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

// options are what to measure and how long.
type options struct {
	bin      string
	sizes    []int // numbers of services to connect among
	changes  []int // those of them at which services come
	arms     []string
	rounds   int
	duration time.Duration // of one arm's connects in a round
	drift    float64       // of the base within a round, above which the round is bad
	patience time.Duration // with bad rounds, and with slow arms, at one number of services
	load     int           // services that come from nothing
	vips     []int
	passes   int // rounds of programs
	repeat   int // packets of each round and kind
}

// quick are the flags of a short run.
var quick = map[string]string{
	"sizes": "1,1000,5000", "changes": "1000", "rounds": "3", "duration": "200ms", "patience": "10s", "load": "10000", "vips": "1,1000,60000", "passes": "15",
}

// parts are what can be measured, in order.
var parts = []struct {
	name, about string
	run         func(context.Context, options, *page.Targets) (string, error)
}{
	{"sites", "Connecting to one of many, and one more", sites},
	{"load", "Many from nothing", fromNothing},
	{"program", "The program that balances packets", programs},
}

func bench(ctx context.Context) error {
	var o options
	sizes := flag.String("sizes", "1,100,1000,5000,10000,30000", "numbers of services to connect among, growing, comma separated")
	changes := flag.String("changes", "1000,10000,30000", "those of them at which services come")
	arms := flag.String("arms", "", "arms beside A2 to run, comma separated (default: all)")
	flag.IntVar(&o.rounds, "rounds", 7, "good rounds of everything but the programs")
	flag.DurationVar(&o.duration, "duration", 300*time.Millisecond, "length of one arm's connects in a round")
	flag.Float64Var(&o.drift, "drift", 0.03, "part by which the base may differ from itself within a round")
	flag.DurationVar(&o.patience, "patience", 25*time.Second, "time for what takes longer at each number of services: repeating bad rounds; slow arms' changes, of which there are three at least")
	flag.IntVar(&o.load, "load", 50000, "services that come from nothing")
	vips := flag.String("vips", "1,1000,10000,60000", "numbers of VIPs in the kernel for the programs, growing")
	flag.IntVar(&o.passes, "passes", 101, "rounds of the programs")
	flag.IntVar(&o.repeat, "repeat", 5000, "packets of each of these rounds and kind of packets")
	short := flag.Bool("quick", false, "a short run: less of everything that is not given by another flag")
	bin := flag.String("bin", "bin", "directory of Hypha's binaries")
	only := flag.String("parts", "", "parts to run, comma separated (default: all): sites, load, program")
	out := flag.String("out", "docs/performance.md", "document to write the tables into, between its markers; empty: none")
	flag.Parse()
	given := page.Given("out", "bin")
	if *short {
		shorten()
	}
	var err error
	if o.sizes, err = numbers(*sizes); err != nil {
		return err
	}
	if o.vips, err = numbers(*vips); err != nil {
		return err
	}
	if o.changes, err = numbers(*changes); err != nil {
		return err
	}
	if *arms != "" {
		o.arms = strings.Split(*arms, ",")
	}
	if o.rounds < 1 || o.passes < 1 || o.repeat < 1 || o.load < 1 {
		return errors.New("rounds, passes, repeat and load: want one at least")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: makes network namespaces")
	}
	if o.bin, err = filepath.Abs(*bin); err != nil { // agents start with a working directory of their own
		return err
	}
	if err := cluster.Sweep(); err != nil {
		return err
	}
	doc, err := measure(ctx, o, *only)
	if err != nil {
		return err
	}
	doc = fmt.Sprintf("%s\n\nCommand: `go run ./test/bench/services%s`\n\n%s",
		page.Machine([]string{"iptables", "--version"}, []string{"nft", "--version"}), given, doc)
	fmt.Print(doc)
	if *out == "" {
		return nil
	}
	return page.Replace(*out, "bench-services", doc)
}

// measure runs the wanted parts and says first what was reached.
func measure(ctx context.Context, o options, only string) (string, error) {
	chosen := strings.Split(only, ",")
	var t page.Targets
	var doc strings.Builder
	for _, p := range parts {
		if only != "" && !slices.Contains(chosen, p.name) {
			continue
		}
		say("%s", p.about)
		text, err := p.run(ctx, o, &t)
		if err != nil {
			return "", fmt.Errorf("%s: %w", strings.ToLower(p.about), err)
		}
		fmt.Fprintf(&doc, "### %s\n\n%s\n", p.about, text)
	}
	return t.String() + doc.String(), nil
}

// shorten sets the flags of a short run that were not given.
func shorten() {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range quick {
		if !given[name] {
			_ = flag.Set(name, value) // TestQuick sets them all
		}
	}
}

// numbers reads growing numbers.
func numbers(list string) (out []int, err error) {
	if list == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%q: want numbers that grow, comma separated", list)
		}
		out = append(out, n)
	}
	return out, nil
}
