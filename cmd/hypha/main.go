// Command hypha is Hypha's command line. Called as `cilium`, `cilium-dbg` or `hubble` it answers with that tool's
// command tree. See package cli.
package main

import (
	"github.com/hypha-net/hypha/internal/cli"
	"github.com/hypha-net/hypha/internal/cli/observe"
	"github.com/hypha-net/hypha/internal/datapath/bpffs"
)

func main() {
	cli.Main(cli.Deps{
		Probe:       probe,
		ParsePolicy: parsePolicy,
		Cleanup:     removeDatapath,
		Cluster:     openCluster,
		Standalone:  standalonePlace,
		MountBPF:    bpffs.Mount,
		Commands:    commands,
		Hubble:      observe.NewHubbleCommand,
	})
}
