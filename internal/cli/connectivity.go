package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/connectivity"
)

// connectivity tests the cluster that is meant, or the demo.
func (e *env) connectivity() *cobra.Command {
	cmd := connectivity.NewCommand(func(cmd *cobra.Command, o connectivity.Options) (connectivity.Place, error) {
		c, err := e.ofCluster(cmd)
		if err != nil {
			return nil, err
		}
		o.AgentNamespace = e.cluster.Namespace
		if c != nil {
			return c.Place(o)
		}
		socket, err := e.find(true)
		if err != nil {
			return nil, err
		}
		if e.Standalone == nil {
			return nil, errors.New("this program tests clusters only: name one with --kubeconfig or --context")
		}
		return e.Standalone(socket, o)
	})
	e.clusterFlags(cmd)
	return cmd
}
