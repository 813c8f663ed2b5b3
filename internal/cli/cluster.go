package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/connectivity"
)

// ClusterFlags say which cluster is meant, as kubectl's flags do.
type ClusterFlags struct{ Kubeconfig, Context, Namespace string }

// Cluster answers for a whole Kubernetes cluster what an agent answers for its node.
type Cluster interface {
	// Status is the summary, and whether all is well.
	Status(context.Context) (text string, well bool, err error)
	// Config are the options in the cluster's ConfigMap.
	Config(context.Context) (map[string]string, error)
	// SetConfig changes options, nil takes one away, and has the agents start anew.
	SetConfig(context.Context, map[string]*string) error
	// Place is the cluster for connectivity tests.
	Place(connectivity.Options) (connectivity.Place, error)
}

// clusterFlags declares them for a command that asks a node's agent or the cluster.
func (e *env) clusterFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&e.cluster.Kubeconfig, "kubeconfig", "", "ask the cluster of this kubeconfig file, not this node's agent")
	f.StringVar(&e.cluster.Context, "context", "", "ask the cluster of this context of the kubeconfig, not this node's agent")
	f.StringVarP(&e.cluster.Namespace, "namespace", "n", "kube-system", "namespace where the cluster has Hypha")
}

// ofCluster is the cluster, where it is meant: by a flag that names one, or by a kubeconfig where this machine has no agent.
// nil: the node's agent is meant. Nothing is asked for the decision.
func (e *env) ofCluster(cmd *cobra.Command) (Cluster, error) {
	if e.Cluster == nil {
		return nil, nil
	}
	f, root := cmd.Flags(), e.root.PersistentFlags()
	named := f.Changed("kubeconfig") || f.Changed("context")
	if !named {
		if root.Changed("socket") || root.Changed("state-dir") || root.Changed("node-name") {
			return nil, nil
		}
		var none *client.NoAgentError
		if _, err := e.find(false); !errors.As(err, &none) || !e.hasKubeconfig() {
			return nil, nil
		}
	}
	return e.Cluster(e.cluster)
}

func (e *env) hasKubeconfig() bool {
	if e.Getenv("KUBECONFIG") != "" {
		return true
	}
	home := e.Getenv("HOME")
	_, err := os.Stat(filepath.Join(home, ".kube", "config"))
	return home != "" && err == nil
}

// clusterStatus asks until all is well, for as long as patience lasts; 0: once.
func (e *env) clusterStatus(ctx context.Context, c Cluster, patience time.Duration) error {
	end, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var text string
	for {
		now, well, err := c.Status(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			text = now
		}
		if well && err == nil {
			_, err := io.WriteString(e.Stdout, text)
			return err
		}
		select {
		case <-end.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
			if _, err := io.WriteString(e.Stdout, text); err != nil {
				return err
			}
			return silent{ExitFailed}
		case <-time.After(min(2*time.Second, max(patience/10, 10*time.Millisecond))):
		}
	}
}

func (e *env) viewClusterConfig(ctx context.Context, c Cluster, o *output) error {
	values, err := c.Config(ctx)
	if err != nil {
		return err
	}
	return o.list(values, "The ConfigMap has no options.", []string{"OPTION", "VALUE"}, func(t *out.Table) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			t.Row(name, values[name])
		}
	})
}

func (e *env) getClusterConfig(ctx context.Context, c Cluster, name string, o *output) error {
	values, err := c.Config(ctx)
	if err != nil {
		return err
	}
	value, ok := values[name]
	if !ok {
		return fmt.Errorf("the ConfigMap has no option %q: its default holds", name)
	}
	return o.write(value, func() error {
		_, err := fmt.Fprintln(e.Stdout, lines(value))
		return err
	})
}

func (e *env) setClusterConfig(ctx context.Context, c Cluster, args []string) error {
	values := map[string]*string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		values[name] = &value
	}
	if err := c.SetConfig(ctx, values); err != nil {
		return err
	}
	fmt.Fprintln(e.Stdout, "Changed; the agents start anew, one node after the other.")
	return nil
}

func (e *env) configDelete() *cobra.Command {
	return &cobra.Command{Use: "delete OPTION...", Short: "Take options out of the cluster's configuration, so that their defaults hold",
		Args: need(1, -1, "an option: hypha config delete OPTION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.ofCluster(cmd)
			if err != nil {
				return err
			}
			if c == nil {
				return errors.New("an agent's options are not deleted but set: delete goes with a cluster (--kubeconfig or --context)")
			}
			values := map[string]*string{}
			for _, a := range args {
				values[a] = nil
			}
			if err := c.SetConfig(cmd.Context(), values); err != nil {
				return err
			}
			fmt.Fprintln(e.Stdout, "Deleted; the agents start anew, one node after the other.")
			return nil
		}}
}
