// Command services measures what services cost: rows 4 to 7 of the performance suite (connecting to one of many, one and many that
// come, the program that balances packets, packets per second), beside kube-proxy's rule shapes. It writes tables to docs/performance.md. It asserts
// nothing: read the tables.
//
//	go run ./test/bench/services
//	go run ./test/bench/services -quick -out ""
//	go run ./test/bench/services -parts program -rounds 3 -out ""
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

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

// parts are what can be measured, in order.
var parts = []struct {
	name, about string
	run         func(context.Context, options, *page.Targets) (string, error)
}{
	{"sites", "Connecting to one of many, and one more", sites},
	{"load", "Many from nothing", fromNothing},
	{"program", "The program that balances packets", programs},
	{"wire", "From the wire to the wire", wires},
}

func bench(ctx context.Context) error {
	o, err := parse(os.Args[1:])
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: makes network namespaces")
	}
	if err := cluster.Sweep(); err != nil {
		return err
	}
	doc, err := measure(ctx, o)
	if err != nil {
		return err
	}
	doc = fmt.Sprintf("%s\n\nCommand: `go run ./test/bench/services%s`\n\n%s",
		page.Machine([]string{"iptables", "--version"}, []string{"nft", "--version"}), o.given, doc)
	fmt.Print(doc)
	if o.out == "" {
		return nil
	}
	return page.Replace(o.out, "bench-services", doc)
}

// measure runs the wanted parts and says first what was reached.
func measure(ctx context.Context, o options) (string, error) {
	var t page.Targets
	var doc strings.Builder
	for _, p := range parts {
		if o.parts != nil && !slices.Contains(o.parts, p.name) {
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
