// Command hypha is Hypha's command line. Called as `cilium`, `cilium-dbg` or `hubble` it answers with that tool's
// command tree. See package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/hypha-net/hypha/internal/cli"
	"github.com/hypha-net/hypha/internal/cli/observe"
	"github.com/hypha-net/hypha/internal/datapath/bpffs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second signal ends the program at once
		<-ctx.Done()
		stop()
	}()
	os.Exit(cli.Run(ctx, os.Args, cli.Deps{
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		StdinTTY:    term.IsTerminal(int(os.Stdin.Fd())),
		StdoutTTY:   term.IsTerminal(int(os.Stdout.Fd())),
		Getenv:      os.Getenv,
		Probe:       probe,
		ParsePolicy: parsePolicy,
		Cleanup:     removeDatapath,
		Cluster:     openCluster,
		MountBPF:    bpffs.Mount,
		Commands:    commands,
		Hubble:      observe.NewHubbleCommand,
	}))
}
