// Command kube makes a real Kubernetes cluster on this machine, to test on: the programs of Kubernetes built from source, nodes
// made of namespaces, images made of the project's own binaries. See docs/kubernetes-testing.md.
//
//	go run ./test/kube build|images|up|load|down|status
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/test/kube/cluster"
	"github.com/hypha-net/hypha/test/kube/machine"
	"github.com/hypha-net/hypha/test/kube/program"
)

func main() {
	if called, err := machine.Main(os.Args); called {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	exit(command().ExecuteContext(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Places of the project, from its top directory.
var (
	bin      = "bin"
	programs = filepath.Join(bin, "kube")
	archives = filepath.Join(bin, "images")
)

func builder() program.Builder {
	dir, err := filepath.Abs(programs)
	if err != nil {
		exit(err)
	}
	return program.Builder{Modules: filepath.Join("tools", "kubernetes"), Dir: dir, Out: os.Stderr}
}

func command() *cobra.Command {
	cmd := &cobra.Command{
		Use: "kube", Short: "A real Kubernetes cluster on this machine", SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if _, err := os.Stat(filepath.Join("tools", "kubernetes", "go.mod")); err != nil {
				return fmt.Errorf("to be called in the top directory of the project: %w", err)
			}
			return nil
		},
	}
	var c cluster.Config
	cmd.PersistentFlags().StringVar(&c.Name, "name", "kube", "name of the cluster: several of different names may run")
	cmd.PersistentFlags().StringVar(&c.Dir, "dir", "", "where everything of the cluster is kept (default /var/lib/hypha-kube/<name>)")
	cmd.PersistentFlags().IntVar(&c.Nodes, "nodes", 2, "how many nodes up makes, besides the control plane")
	cmd.PersistentFlags().BoolVar(&c.DualStack, "dual-stack", false, "up gives them IPv6 beside IPv4")
	cmd.PersistentFlags().BoolVar(&c.Member, "control-node", false,
		"up makes the control plane a node, too: its API server reaches pods, as webhooks and proxies need it")
	with := func(fn func(context.Context, *cluster.Cluster) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			c.Out = cmd.OutOrStderr()
			var err error
			if c.Programs, err = filepath.Abs(programs); err != nil {
				return err
			}
			if c.Images, err = filepath.Abs(archives); err != nil {
				return err
			}
			k, err := cluster.New(c)
			if err != nil {
				return err
			}
			return fn(cmd.Context(), k)
		}
	}
	up := &cobra.Command{
		Use: "up", Short: "Make the cluster", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, k *cluster.Cluster) error {
			if err := k.Up(ctx); err != nil {
				return err
			}
			fmt.Printf("export KUBECONFIG=%s\n", k.Kubeconfig())
			return nil
		}),
	}
	cmd.AddCommand(up,
		&cobra.Command{
			Use: "down", Short: "Remove the cluster without a trace", Args: cobra.NoArgs,
			RunE: with(func(ctx context.Context, k *cluster.Cluster) error { return k.Down(ctx) }),
		},
		&cobra.Command{
			Use: "load", Short: "Give the images in bin/images to the nodes of a cluster that runs", Args: cobra.NoArgs,
			RunE: with(func(ctx context.Context, k *cluster.Cluster) error { return k.Load(ctx) }),
		},
		&cobra.Command{
			Use: "status", Short: "How each program of the cluster is", Args: cobra.NoArgs,
			RunE: with(func(_ context.Context, k *cluster.Cluster) error { return k.Status() }),
		},
		&cobra.Command{
			Use: "build", Short: "Build the programs of Kubernetes", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return builder().Build(cmd.Context()) },
		},
		imagesCommand(),
	)
	return cmd
}
