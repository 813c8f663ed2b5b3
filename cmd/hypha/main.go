// Command hypha is Hypha's command line. Called as `cilium`, `cilium-dbg` or `hubble` it answers with that tool's
// command tree. See package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hypha-net/hypha/internal/cli"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/doctor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second signal ends the program at once
		<-ctx.Done()
		stop()
	}()
	os.Exit(cli.Run(ctx, os.Args, cli.Deps{
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		StdinTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		Getenv:    os.Getenv,
		Probe:     probe,
		Commands:  commands,
	}))
}

// commands are the parts of the tree that live in packages of their own.
func commands() []*cobra.Command {
	return []*cobra.Command{}
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
