// Command hypha-cluster is the part of Hypha's command line that speaks with an API server: it installs Hypha, asks how a whole
// cluster does, and gathers what is needed to find out why it does not. `hypha` becomes this program when such a command is given; nobody needs to call it by its own name. It is a program
// of its own because Helm and the API server's client triple the size of a binary and the time it takes to start.
package main

import (
	"context"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/hypha-net/hypha/internal/cli"
	"github.com/hypha-net/hypha/internal/cluster"
	"github.com/hypha-net/hypha/internal/cluster/sysdump"
	"github.com/hypha-net/hypha/internal/connectivity"
	"github.com/hypha-net/hypha/internal/connectivity/kube"
	"github.com/hypha-net/hypha/internal/install"
)

func main() {
	// What the API server's client tells by itself, such as a connection that was closed in the middle of a command that is over, is told
	// to nobody: what matters comes back as an error.
	klog.SetLogger(logr.Discard())
	cli.Main(cli.Deps{Cluster: openCluster, Commands: commands})
}

func commands() []*cobra.Command { return append(install.NewCommands(), sysdump.NewCommand()) }

// ofCluster tells a cluster's state as text, as the commands want it.
type ofCluster struct {
	*cluster.Cluster
	flags cli.ClusterFlags
}

func (c ofCluster) Status(ctx context.Context) (string, bool, error) {
	s, err := c.Cluster.Status(ctx)
	return cluster.Text(s), s.Well(), err
}

// Place is the cluster for connectivity tests.
func (c ofCluster) Place(o connectivity.Options) (connectivity.Place, error) {
	cfg, name, err := cluster.Rest(c.flags.Kubeconfig, c.flags.Context)
	if err != nil {
		return nil, err
	}
	return kube.New(cfg, name, o)
}

func openCluster(f cli.ClusterFlags) (cli.Cluster, error) {
	c, err := cluster.Open(f.Kubeconfig, f.Context, f.Namespace)
	if err != nil {
		return nil, err
	}
	return ofCluster{c, f}, nil
}
