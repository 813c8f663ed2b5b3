// Command conformance runs Kubernetes' own tests of the network against Hypha, installed by its chart with default values on a cluster
// of its own, and writes what they came to, spec by spec, to docs/conformance.md.
//
//	go run ./test/conformance [--group networkpolicy,services] [--focus REGEXP] [--procs 3] [--write docs/conformance.md]
//	go run ./test/conformance --kubeconfig FILE ...     # on a cluster where Hypha is installed already
//
// Reports and logs are in bin/conformance/. It wants root, and what `make conformance` builds before.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/test/kube/machine"
	"github.com/hypha-net/hypha/test/kube/program"
)

func main() {
	called, err := machine.Main(os.Args)
	if !called {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		err = command().ExecuteContext(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// Places of the project, from its top directory.
var (
	programs = filepath.Join("bin", "kube")
	archives = filepath.Join("bin", "images")
	reports  = filepath.Join("bin", "conformance")
	chart    = filepath.Join("deploy", "chart")
)

type options struct {
	name       string // of the cluster
	kubeconfig string // of a cluster that is there already
	groups     []string
	focus      string
	procs      int
	write      string
	keep       bool
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "conformance", Short: "Kubernetes' own tests of the network", SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "conform", "name of the cluster that is made")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "use the cluster of this file, with all that is installed there, instead of making one")
	f.StringSliceVar(&o.groups, "group", names(groups), "groups of specs to run, in this order")
	f.StringVar(&o.focus, "focus", "", "run only specs of these groups whose names match this regular expression; nothing is written then")
	f.IntVar(&o.procs, "procs", 2, "how many specs run at the same time")
	f.StringVar(&o.write, "write", "", "document whose tables are to tell the results")
	f.BoolVar(&o.keep, "keep", false, "leave the cluster there when all is done")
	return cmd
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := choose(o.groups)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(programs)
	if err != nil {
		return err
	}
	b := program.Builder{Modules: filepath.Join("tools", "kubernetes"), Dir: dir, Out: os.Stderr}
	if err := b.BuildSuites(ctx); err != nil {
		return err
	}
	if o.kubeconfig == "" {
		c, err := newCluster(o.name)
		if err != nil {
			return err
		}
		if err := c.up(ctx, b); err != nil {
			return err
		}
		if !o.keep {
			defer func() { err = errors.Join(err, c.Down(context.WithoutCancel(ctx))) }()
		}
		o.kubeconfig = c.Kubeconfig()
	}
	r := runner{programs: dir, reports: reports, kubeconfig: o.kubeconfig, procs: o.procs}
	failed := 0
	for _, g := range chosen {
		_, version, err := b.Source(ctx, g.module)
		if err != nil {
			return err
		}
		specs, err := r.run(ctx, g, o.focus)
		if err != nil {
			return fmt.Errorf("run %s: %w", g.name, err)
		}
		c := count(specs)
		fmt.Printf("%-16s %s\n", g.name, c)
		failed += c.failed
		if o.write != "" && o.focus == "" {
			if err := write(o.write, g, version, o.procs, specs); err != nil {
				return err
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d specs failed; what they said is in %s", failed, reports)
	}
	return nil
}
