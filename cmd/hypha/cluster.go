package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli"
)

const clusterTool = "hypha-cluster"

// openCluster never returns a cluster: this process becomes the program that speaks with one, with the same arguments.
func openCluster(cli.ClusterFlags) (cli.Cluster, error) { return nil, becomeClusterTool() }

// clusterCommands are those that only that program has; their flags and help are its own.
func clusterCommands() (out []*cobra.Command) {
	for _, c := range []struct{ name, short string }{
		{"install", "Install Hypha in a Kubernetes cluster"},
		{"upgrade", "Change the Hypha of a Kubernetes cluster"},
		{"uninstall", "Remove Hypha from a Kubernetes cluster"},
		{"sysdump", "Gather what is needed to find out what is wrong, in a zip file"},
	} {
		out = append(out, &cobra.Command{Use: c.name, Short: c.short, Args: cobra.ArbitraryArgs, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return becomeClusterTool() }})
	}
	return out
}

// becomeClusterTool returns only when that fails. The program lies beside this one, or else where the shell finds it.
func becomeClusterTool() error {
	var path string
	if own, err := os.Executable(); err == nil {
		path = filepath.Join(filepath.Dir(own), clusterTool)
	}
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(clusterTool); err != nil {
			return fmt.Errorf("%s is not installed beside this program nor in PATH, and only that speaks with an API server: %w", clusterTool, err)
		}
	}
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}
