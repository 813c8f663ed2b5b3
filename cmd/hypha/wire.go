package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/observe"
	"github.com/hypha-net/hypha/internal/connectivity"
	"github.com/hypha-net/hypha/internal/connectivity/standalone"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/datapath/cleanup"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/demo"
	"github.com/hypha-net/hypha/internal/doctor"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/workload"
)

// commands are the parts of the tree that live in packages of their own.
func commands() []*cobra.Command {
	return append(clusterCommands(), observe.NewObserveCommand(), demo.NewCommand(), workload.NewCommand())
}

// standalonePlace is the demo that an agent belongs to.
func standalonePlace(socket string, o connectivity.Options) (connectivity.Place, error) {
	dir := demo.DirOf(socket)
	if dir == "" {
		return nil, fmt.Errorf("the agent at %s is not one of the demo's: connectivity tests run on the demo (hypha demo up) and on Kubernetes (--kubeconfig, --context)", socket)
	}
	return standalone.New(dir, o)
}

// probe asks the kernel through the datapath's loader.
func probe() []doctor.Check {
	k := loader.Probe()
	out := make([]doctor.Check, len(k.Checks))
	for i, c := range k.Checks {
		out[i] = doctor.Check{Name: c.Name, OK: c.OK, Required: c.Required, Detail: c.Detail, Remedy: c.Remedy}
	}
	return out
}

// parsePolicy counts the rules of a document, read as the agent reads it. CIDR groups count as one each.
func parsePolicy(filename string, doc []byte) (int, error) {
	policies, groups, err := parse.Parse(filename, doc)
	if err != nil {
		return 0, err
	}
	n := len(groups)
	for _, p := range policies {
		n += p.Len()
	}
	return n, nil
}

// removeDatapath takes what a stopped agent left out of the kernel.
func removeDatapath(ctx context.Context, p paths.Paths) error {
	return cleanup.Run(ctx, p, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}
