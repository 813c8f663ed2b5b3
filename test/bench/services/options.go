package main

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hypha-net/hypha/test/bench/page"
)

// options are what to measure and how long.
type options struct {
	bin, out string
	given    string   // flags as they were given, for the record
	parts    []string // nil: all
	arms     []string // beside the base; nil: all
	sizes    []int    // numbers of services to connect among
	changes  []int    // those of them at which services come
	rounds   int
	duration time.Duration // of one arm's connects in a round
	drift    float64       // of the base within a round, above which the round is bad
	patience time.Duration // with bad rounds, and with slow arms, at one number of services
	load     int           // services that come from nothing
	vips     []int
	passes   int // rounds of programs
	repeat   int // packets of each round and kind
	frames   int // of each round and way from the wire to the wire
}

// quick are the flags of a short run.
var quick = map[string]string{
	"sizes": "1,1000,5000", "changes": "1000", "rounds": "3", "duration": "200ms", "patience": "10s", "load": "10000", "vips": "1,1000,60000", "passes": "15", "frames": "100000",
}

// parse reads the command line.
func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("services", flag.ContinueOnError)
	sizes := f.String("sizes", "1,100,1000,5000,10000,30000", "numbers of services to connect among, growing, comma separated")
	changes := f.String("changes", "1000,10000,30000", "those of them at which services come; empty: none")
	vips := f.String("vips", "1,1000,10000,60000", "numbers of VIPs in the kernel for the programs, growing, comma separated")
	arms := f.String("arms", "", "arms to run beside A2, comma separated (default: all)")
	parts := f.String("parts", "", "parts to run, comma separated: sites, load, program, wire (default: all)")
	f.IntVar(&o.rounds, "rounds", 7, "good rounds of everything but the programs")
	f.DurationVar(&o.duration, "duration", 300*time.Millisecond, "length of one arm's connects in a round")
	f.Float64Var(&o.drift, "drift", 0.03, "part by which the base may differ from itself within a round")
	f.DurationVar(&o.patience, "patience", 25*time.Second, "time at each number of services for repeating bad rounds, and for the changes, of which each arm has three rounds at least")
	f.IntVar(&o.load, "load", 50000, "services that come from nothing")
	f.IntVar(&o.passes, "passes", 101, "rounds of the programs")
	f.IntVar(&o.repeat, "repeat", 5000, "packets of each of these rounds and kind of packets")
	f.IntVar(&o.frames, "frames", 200000, "frames of each round and way from the wire to the wire")
	short := f.Bool("quick", false, "a short run: less of everything that no other flag gives")
	f.StringVar(&o.bin, "bin", "bin", "directory of Hypha's binaries")
	f.StringVar(&o.out, "out", "docs/performance.md", "document to write the tables into, between its markers; empty: none")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.given = page.Given(f, "out", "bin")
	if *short {
		if err := shorten(f); err != nil {
			return o, err
		}
	}
	o.arms, o.parts = list(*arms), list(*parts)
	for _, x := range []struct {
		into *[]int
		text string
	}{{&o.sizes, *sizes}, {&o.changes, *changes}, {&o.vips, *vips}} {
		if *x.into, err = numbers(x.text); err != nil {
			return o, err
		}
	}
	if o.rounds < 1 || o.passes < 1 || o.repeat < 1 || o.frames < 1 || o.load < 1 || len(o.sizes) == 0 || len(o.vips) == 0 {
		return o, errors.New("sizes, vips, rounds, passes, repeat, frames and load: want one at least")
	}
	o.bin, err = filepath.Abs(o.bin) // agents start with a working directory of their own
	return o, err
}

// shorten sets the flags of a short run that were not given.
func shorten(f *flag.FlagSet) (err error) {
	given := map[string]bool{}
	f.Visit(func(x *flag.Flag) { given[x.Name] = true })
	for name, value := range quick {
		if !given[name] {
			err = errors.Join(err, f.Set(name, value))
		}
	}
	return err
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// numbers reads growing numbers.
func numbers(text string) (out []int, err error) {
	for _, x := range list(text) {
		n, err := strconv.Atoi(x)
		if err != nil || n < 1 || len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%q: want numbers that grow, comma separated", text)
		}
		out = append(out, n)
	}
	return out, nil
}
