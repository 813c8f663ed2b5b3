// Command hypha-operator does what has to be done once for a cluster on Kubernetes. See package operator.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/hypha-net/hypha/internal/operator"
	"github.com/hypha-net/hypha/internal/operator/option"
	"github.com/hypha-net/hypha/internal/version"
)

const about = `hypha-operator does what has to be done once for a cluster on Kubernetes: definitions of resources, pod ranges of nodes, addresses of
services, and the removal of what nobody uses any more. Several may run; one leads.

Every option is a flag, a file of --config-dir, and a HYPHA_* variable (HYPHA_K8S_NAMESPACE is --k8s-namespace).

Usage: hypha-operator [flags]

`

func main() { os.Exit(run()) }

func run() int {
	if slices.Contains(os.Args[1:], "--version") {
		fmt.Println("hypha-operator", version.Version)
		return 0
	}
	o, err := option.Load(os.Args[1:], os.Getenv)
	if errors.Is(err, option.ErrHelp) {
		fmt.Print(about, option.Usage(), "      --version\n")
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "hypha-operator: %v\nTry 'hypha-operator --help'.\n", err)
		return 2
	}
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := operator.Run(ctx, o, log); err != nil && ctx.Err() == nil {
		log.Error("operator stopped", "err", err)
		return 1
	}
	log.Info("operator stopped")
	return 0
}
