package install

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/cli/values"
	"helm.sh/helm/v4/pkg/getter"
	"k8s.io/client-go/kubernetes"

	"github.com/hypha-net/hypha/internal/version"
)

// flags of all three commands.
type flags struct {
	kubeconfig, context, namespace string
	values                         values.Options
	version                        string
	wait, dryRun                   bool
	timeout                        time.Duration
}

// NewCommands are install, upgrade and uninstall.
func NewCommands() []*cobra.Command { return []*cobra.Command{install(), upgrade(), uninstall()} }

func (f *flags) add(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG, then ~/.kube/config)")
	p.StringVar(&f.context, "context", "", "context of the kubeconfig (default: its current one)")
	p.StringVarP(&f.namespace, "namespace", "n", Namespace, "namespace to install into")
	p.BoolVar(&f.wait, "wait", false, "wait until all pods are ready")
	p.DurationVar(&f.timeout, "wait-duration", 5*time.Minute, "how long to --wait")
}

func (f *flags) addValues(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringArrayVar(&f.values.Values, "set", nil, "values, NAME=VALUE,...")
	p.StringArrayVar(&f.values.StringValues, "set-string", nil, "values that are text, NAME=VALUE,...")
	p.StringArrayVar(&f.values.FileValues, "set-file", nil, "values from files, NAME=PATH,...")
	p.StringSliceVarP(&f.values.ValueFiles, "values", "f", nil, "files of values")
	p.StringVar(&f.version, "version", "", "version to install: this program's own, or none")
	p.BoolVar(&f.dryRun, "dry-run", false, "print what would be made, and ask or change no cluster")
}

// open reaches the cluster, but for its configuration nothing is asked yet.
func (f *flags) open() (*Installer, *cli.EnvSettings, error) {
	s := cli.New()
	s.KubeConfig, s.KubeContext = f.kubeconfig, f.context
	s.SetNamespace(f.namespace)
	cfg := action.NewConfiguration()
	if err := cfg.Init(s.RESTClientGetter(), f.namespace, ""); err != nil {
		return nil, nil, fmt.Errorf("reach cluster: %w", err)
	}
	return New(cfg, f.namespace), s, nil
}

func (f *flags) options() (Options, error) {
	if v := version.Version; f.version != "" && f.version != v {
		return Options{}, fmt.Errorf("--version %s: this program installs version %s, its own; use hypha of version %s", f.version, v, f.version)
	}
	v, err := f.values.MergeValues(getter.Providers{})
	if err != nil {
		return Options{}, fmt.Errorf("read values: %w", err)
	}
	return Options{Values: v, Wait: f.wait, Timeout: f.timeout, DryRun: f.dryRun}, nil
}

func install() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "install", Short: "Install Hypha on a Kubernetes cluster", Args: cobra.NoArgs,
		Long: "Install Hypha on a Kubernetes cluster, as `helm install cilium` would with the chart in deploy/chart.\n\n" +
			"Where no kube-proxy runs, services are served by Hypha and the API server's address is found out, unless the values say.\n" +
			"With --dry-run no cluster is asked, so nothing is found out.",
	}
	f.add(cmd)
	f.addValues(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := f.options()
		if err != nil {
			return err
		}
		if f.dryRun {
			r, err := New(action.NewConfiguration(), f.namespace).Install(cmd.Context(), o)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), r.Manifest)
			return err
		}
		i, s, err := f.open()
		if err != nil {
			return err
		}
		rest, err := s.RESTClientGetter().ToRESTConfig()
		if err != nil {
			return fmt.Errorf("reach cluster: %w", err)
		}
		client, err := kubernetes.NewForConfig(rest)
		if err != nil {
			return fmt.Errorf("reach cluster: %w", err)
		}
		found, err := Detect(cmd.Context(), client, rest.Host, o.Values)
		if err != nil {
			return err
		}
		if found != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), found)
		}
		r, err := i.Install(cmd.Context(), o)
		if err != nil {
			return err
		}
		_, err = io.WriteString(cmd.OutOrStdout(), r.Info.Notes)
		return err
	}
	return cmd
}

func upgrade() *cobra.Command {
	f := &flags{}
	var reuse, reset bool
	cmd := &cobra.Command{Use: "upgrade", Short: "Bring Hypha on a Kubernetes cluster to this program's version, or to other values", Args: cobra.NoArgs}
	f.add(cmd)
	f.addValues(cmd)
	cmd.Flags().BoolVar(&reuse, "reuse-values", true, "keep the release's values where none are given")
	cmd.Flags().BoolVar(&reset, "reset-values", false, "forget the release's values")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if reset && cmd.Flags().Changed("reuse-values") && reuse {
			return errors.New("--reuse-values and --reset-values exclude each other")
		}
		o, err := f.options()
		if err != nil {
			return err
		}
		o.Reuse = reuse && !reset
		i, _, err := f.open()
		if err != nil {
			return err
		}
		r, err := i.Upgrade(cmd.Context(), o)
		if err != nil {
			return err
		}
		text := r.Info.Notes
		if f.dryRun {
			text = r.Manifest
		}
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

func uninstall() *cobra.Command {
	f := &flags{}
	var keep bool
	cmd := &cobra.Command{Use: "uninstall", Short: "Take Hypha off a Kubernetes cluster", Args: cobra.NoArgs,
		Long: "Take Hypha off a Kubernetes cluster: first the agents take the CNI configuration off their nodes and end, then everything else goes.\n" +
			"Running workloads keep their network and their policy until they end; `hypha cleanup` on a node takes that away."}
	f.add(cmd)
	cmd.Flags().BoolVar(&keep, "keep-cni", false, "leave the CNI configuration on the nodes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, _, err := f.open()
		if err != nil {
			return err
		}
		return i.Uninstall(cmd.Context(), Options{Wait: f.wait, Timeout: f.timeout}, keep)
	}
	return cmd
}
