// Command hypha-agent is the agent of one node. See package app.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/hypha-net/hypha/internal/app"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/version"
)

const about = `hypha-agent connects, polices and observes the workloads of one node.

Every option is a flag, a key of the YAML file given by --config, a file in the directory given by --config-dir, and a HYPHA_*
variable (HYPHA_NODE_NAME is --node-name).

Usage: hypha-agent [flags]

`

// gcPercent is how much garbage there may be for what is in use. In a large cluster an agent keeps much and changes little of it: memory
// that is not given back costs every node, collecting five times as often costs a little of one CPU.
const gcPercent = 20

func main() { os.Exit(run()) }

func run() int {
	if slices.Contains(os.Args[1:], "--version") {
		fmt.Println("hypha-agent", version.Version)
		return 0
	}
	l, err := config.LoadAgent(os.Args[1:], os.Environ)
	if errors.Is(err, config.ErrHelp) {
		fmt.Print(about, config.Usage(), "      --version\n")
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "hypha-agent: %v\nTry 'hypha-agent --help'.\n", err)
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "hypha-agent: must run as root: it programs the kernel")
		return 1
	}
	log, level, done, err := app.NewLogger(&l.Agent)
	if err != nil {
		fmt.Fprintf(os.Stderr, "hypha-agent: %v\n", err)
		return 1
	}
	defer done()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = work(ctx, l, log, level)
	if errors.Is(err, app.ErrStartOver) && ctx.Err() == nil {
		log.Warn("agent starts over", "err", err)
		// The same process, as its supervisor sees it. What was open is closed by that.
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Error("agent stopped", "err", err)
		if l.Agent.LogFile != "" {
			fmt.Fprintf(os.Stderr, "hypha-agent: %v\n", err)
		}
		return 1
	}
	log.Info("agent stopped; the datapath goes on")
	return 0
}

// work runs the agent until ctx ends.
func work(ctx context.Context, l *config.Loaded, log *slog.Logger, level *slog.LevelVar) error {
	l, err := app.ForNode(ctx, l, os.Args[1:], log, level)
	if err != nil {
		return err
	}
	for _, w := range l.Warnings {
		log.Warn("part of the configuration passed over", "reason", w)
	}
	agent, err := app.New(ctx, l, log, level)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}
