package sysdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/cluster"
	"github.com/hypha-net/hypha/internal/escape"
)

// options of the command.
type options struct {
	kubeconfig, context, namespace string
	output                         string
	agents, operators              string // labels of their pods
	nodes                          []string
	since                          time.Duration
	limit                          int64
	quick, profiling               bool
	workers, flows                 int
}

// NewCommand is `sysdump`.
func NewCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{Use: "sysdump", Short: "Gather what is needed to find out what is wrong, in a zip file", Args: cobra.NoArgs,
		Long: "Gather what somebody needs who is to find out what is wrong with a cluster: objects, logs of agents and operators, and what each\n" +
			"agent says of itself. Without a cluster (no kubeconfig), or with one of the flags that name an agent, it is the agent of this machine.\n\n" +
			"Contents of secrets are left out, but the file names workloads, addresses and policies. What could not be had is listed at the end;\n" +
			"the exit code is 1 only when there is no file."}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&o.context, "context", "", "context of the kubeconfig (default: its current one)")
	f.StringVarP(&o.namespace, "namespace", "n", "kube-system", "namespace where the cluster has Hypha")
	f.StringVar(&o.namespace, "cilium-namespace", "kube-system", "the same as --namespace")
	f.StringVar(&o.output, "output-filename", "cilium-sysdump-<ts>", "file to write, without .zip; <ts> is the time")
	f.StringVar(&o.agents, "cilium-label-selector", "k8s-app=cilium", "labels of the agents' pods")
	f.StringVar(&o.operators, "cilium-operator-label-selector", "io.cilium/app=operator", "labels of the operators' pods")
	f.StringSliceVar(&o.nodes, "node-list", nil, "nodes whose agents are asked and whose logs are read (default: all)")
	f.DurationVar(&o.since, "logs-since-time", 8760*time.Hour, "how far back logs are read")
	f.Int64Var(&o.limit, "logs-limit-bytes", 1<<30, "at most so many bytes of each log")
	f.BoolVar(&o.quick, "quick", false, "leave out what is long: flows, tables of connections and addresses, profiles")
	f.BoolVar(&o.profiling, "profiling", true, "read the agents' profiles, where they serve them (option pprof)")
	f.IntVar(&o.workers, "worker-count", runtime.NumCPU(), "how many things are gathered at once")
	f.IntVar(&o.flows, "hubble-flows-count", 10000, "how many flows of each node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		conf, err := o.connection(cmd)
		if err != nil {
			return err
		}
		return o.run(cmd.Context(), cmd.OutOrStdout(), conf, agentOf(cmd))
	}
	return cmd
}

// agentOf are the flags of the root that say which agent is meant, as variables: so every command understands them alike.
func agentOf(cmd *cobra.Command) (out []string) {
	for name, variable := range map[string]string{"socket": client.EnvSocket, "state-dir": client.EnvStateDir, "node-name": client.EnvNodeName} {
		if f := cmd.Root().PersistentFlags().Lookup(name); f != nil && f.Changed {
			out = append(out, variable+"="+f.Value.String())
		}
	}
	return out
}

// connection is how the cluster is reached, nil where this machine's agent is meant: a flag names it, or there is one and no cluster.
func (o *options) connection(cmd *cobra.Command) (*rest.Config, error) {
	named := cmd.Flags().Changed("kubeconfig") || cmd.Flags().Changed("context")
	if !named && len(agentOf(cmd)) > 0 {
		return nil, nil
	}
	conf, _, err := cluster.Rest(o.kubeconfig, o.context)
	if err == nil {
		conf.QPS, conf.Burst = 50, 100
		conf.Timeout = 0 // each task has its own, and logs may be long
		return conf, nil
	}
	if _, none := client.Find("", "", "", false); !named && none == nil && clientcmd.IsEmptyConfig(errors.Unwrap(err)) {
		return nil, nil
	}
	return nil, err
}

// run gathers all and packs it.
func (o *options) run(ctx context.Context, out io.Writer, conf *rest.Config, agent []string) (err error) {
	to := strings.ReplaceAll(o.output, "<ts>", time.Now().Format("20060102-150405"))
	if !strings.HasSuffix(to, ".zip") {
		to += ".zip"
	}
	a, err := newArchive(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.remove()) }()
	var tasks []task
	var failed []failure
	if conf == nil {
		program, err := hypha()
		if err != nil {
			return err
		}
		name, err := os.Hostname()
		if err != nil {
			name = "this-node"
		}
		tasks = ask(a, name, onNode(program, agent), o)
	} else if tasks, failed, err = o.ofCluster(ctx, a, conf); err != nil {
		return err
	}
	failed = append(failed, runAll(ctx, tasks, o.workers, out)...)
	var text strings.Builder
	for _, f := range failed {
		fmt.Fprintf(&text, "%s: %s\n", f.what, escape.Text(f.err.Error()))
	}
	if err := a.text(text.String(), "errors.txt"); err != nil {
		return err
	}
	if err := a.pack(to); err != nil {
		return err
	}
	if len(failed) > 0 {
		fmt.Fprintf(out, "\n%d of %d could not be had, so the dump may not be complete:\n\n%s\n", len(failed), len(tasks), text.String())
	}
	if full, err := filepath.Abs(to); err == nil {
		to = full
	}
	fmt.Fprintln(out, "The dump is in", to)
	return ctx.Err()
}

// ofCluster makes the tasks for a cluster. The error is that it cannot be reached at all.
func (o *options) ofCluster(ctx context.Context, a *archive, conf *rest.Config) (tasks []task, failed []failure, err error) {
	api, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, nil, fmt.Errorf("reach cluster: %w", err)
	}
	objects, err := dynamic.NewForConfig(conf)
	if err != nil {
		return nil, nil, fmt.Errorf("reach cluster: %w", err)
	}
	v, err := api.Discovery().ServerVersion()
	if err != nil {
		return nil, nil, fmt.Errorf("reach cluster: %w", err)
	}
	if err := a.text(v.String()+"\n", "kubernetes-version.txt"); err != nil {
		return nil, nil, err
	}
	all := resources()
	own, err := served(api.Discovery())
	if err != nil {
		failed = append(failed, failure{"resources of " + group, err})
	}
	for _, r := range append(all, own...) {
		tasks = append(tasks, task{"objects: " + r.Resource, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return gather(ctx, objects, a, r, o.namespace)
		}})
	}
	port := o.pprof(ctx, api)
	for _, selector := range []string{o.agents, o.operators, "k8s-app=hubble-relay"} {
		found, err := pods(ctx, api, o, selector)
		if err != nil {
			failed = append(failed, failure{"pods " + selector, err})
		}
		for i := range found {
			p := &found[i]
			tasks = append(tasks, logs(api, a, p, o)...)
			if selector != o.agents {
				continue
			}
			tasks = append(tasks, ask(a, p.Spec.NodeName, inPod(conf, api, p), o)...)
			if port != 0 {
				tasks = append(tasks, profile(conf, api, a, p, port))
			}
		}
	}
	return tasks, failed, nil
}

// pprof is the port at which agents serve their profiles, 0 where they do not or nobody wants them.
func (o *options) pprof(ctx context.Context, api kubernetes.Interface) int {
	if o.quick || !o.profiling {
		return 0
	}
	m, err := api.CoreV1().ConfigMaps(o.namespace).Get(ctx, "cilium-config", metav1.GetOptions{})
	if err != nil || m.Data["pprof"] != "true" {
		return 0
	}
	if port, err := strconv.Atoi(m.Data["pprof-port"]); err == nil {
		return port
	}
	return 6060
}
