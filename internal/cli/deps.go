package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/connectivity"
	"github.com/hypha-net/hypha/internal/doctor"
	"github.com/hypha-net/hypha/internal/paths"
)

// Deps is what the commands need from outside.
type Deps struct {
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	StdinTTY  bool // somebody can be asked
	StdoutTTY bool // colours make sense
	Getenv    func(string) string

	// Probe says what the kernel offers the datapath; nil leaves those lines out of `doctor`.
	Probe doctor.Probe
	// ParsePolicy reads a policy document as the agent would and counts its rules; errors name file, path and reason.
	ParsePolicy func(filename string, doc []byte) (rules int, err error)
	// Cleanup removes what a stopped agent left in the kernel; nil where it cannot.
	Cleanup func(context.Context, paths.Paths) error
	// Cluster reaches a cluster; nil where none can be reached. It asks nothing yet.
	Cluster func(ClusterFlags) (Cluster, error)
	// Standalone is the demo whose agent has this socket, as a place for connectivity tests.
	Standalone func(socket string, o connectivity.Options) (connectivity.Place, error)
	// MountBPF mounts the file system of pinned programs and maps where it is not; nil where it cannot.
	MountBPF func() error
	// Commands are further commands of the tree (observe, demo), made anew for each call.
	Commands func() []*cobra.Command
	// Hubble is the tree for the name `hubble`.
	Hubble func() *cobra.Command
}
