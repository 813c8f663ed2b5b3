// Package option reads the operator's options: flags, HYPHA_* variables, and a directory with a file for each, under the names that
// charts and people use.
package option

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hypha-net/hypha/internal/control/identity"
	"github.com/hypha-net/hypha/internal/control/ipam"
)

// Options of the operator.
type Options struct {
	Debug bool

	Server, Kubeconfig, Namespace string
	QPS                           float32
	Burst                         int

	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	MetricsAddr, APIAddr                      string
	SkipCRDs                                  bool

	IPv4, IPv6       bool
	IPAM             string
	AutoPools        string
	CIDRs4, CIDRs6   []string
	Mask4, Mask6     int
	IdentityMode     string
	IdentityInterval time.Duration
	IdentityTimeout  time.Duration
	IdentityLimit    int
	IdentityRate     time.Duration
	EndpointInterval time.Duration
	EndpointSlices   bool
	SliceMost        int
	SliceLimits      string
	NodeInterval     time.Duration
	RestartInterval  seconds
	RestartLabel     string

	JudgePolicies bool
	Labels        []string

	LBIPAM    bool
	DefaultLB string

	RemoveTaints, SetTaints, SetUp bool
	TaintKey                       string
	TaintWorkers                   int
	PodNamespace, PodLabel         string
}

// Values of options.
const (
	IPAMClusterPool = "cluster-pool"
	IPAMMultiPool   = "multi-pool"
	LBIPAM          = "lbipam"
)

func (o *Options) flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("hypha-operator", pflag.ContinueOnError)
	fs.Usage = func() {}
	fs.String("config-dir", "", "Directory of options, a file for each; flags and variables take precedence")
	fs.BoolVarP(&o.Debug, "debug", "D", false, "Log more")

	fs.StringVar(&o.Server, "k8s-api-server", "", "URL of the API server, instead of the kubeconfig's or the pod's own")
	fs.StringVar(&o.Kubeconfig, "k8s-kubeconfig-path", "", "Kubeconfig with the way to the API server; without one the pod's own credentials")
	fs.StringVar(&o.Namespace, "k8s-namespace", "", "Namespace of the operator, where its lease is (default $CILIUM_K8S_NAMESPACE or kube-system)")
	fs.Float32Var(&o.QPS, "operator-k8s-client-qps", 100, "Requests per second to the API server")
	fs.IntVar(&o.Burst, "operator-k8s-client-burst", 200, "Requests at once to the API server")

	fs.DurationVar(&o.LeaseDuration, "leader-election-lease-duration", 15*time.Second, "After how long without a sign of the leader another one leads")
	fs.DurationVar(&o.RenewDeadline, "leader-election-renew-deadline", 10*time.Second, "For how long a leader tries to renew its lease before it gives up")
	fs.DurationVar(&o.RetryPeriod, "leader-election-retry-period", 2*time.Second, "How long to wait between two tries")
	fs.StringVar(&o.MetricsAddr, "operator-prometheus-serve-addr", ":9963", "Where metrics are served; empty: nowhere")
	fs.StringVar(&o.APIAddr, "operator-api-serve-addr", "127.0.0.1:9234", "Where /healthz is served; empty: nowhere")
	fs.BoolVar(&o.SkipCRDs, "skip-crd-creation", false, "Leave the definitions of cilium.io to others, and wait for them")

	fs.BoolVar(&o.IPv4, "enable-ipv4", true, "Workloads have IPv4 addresses")
	fs.BoolVar(&o.IPv6, "enable-ipv6", false, "Workloads have IPv6 addresses")
	fs.StringVar(&o.IPAM, "ipam", IPAMClusterPool, "Where pod ranges are from; with cluster-pool and multi-pool nodes get them here")
	fs.StringSliceVar(&o.CIDRs4, "cluster-pool-ipv4-cidr", nil, "IPv4 prefixes that nodes get their pod ranges of")
	fs.IntVar(&o.Mask4, "cluster-pool-ipv4-mask-size", 24, "Prefix length of a node's IPv4 pod range")
	fs.StringSliceVar(&o.CIDRs6, "cluster-pool-ipv6-cidr", nil, "IPv6 prefixes that nodes get their pod ranges of")
	fs.IntVar(&o.Mask6, "cluster-pool-ipv6-mask-size", 112, "Prefix length of a node's IPv6 pod range")

	fs.StringVar(&o.AutoPools, "auto-create-cilium-pod-ip-pools", "", "With multi-pool, CiliumPodIPPools to make where there are none of the name: name=ipv4-cidrs:10.0.0.0/8;ipv4-mask-size:24")

	fs.StringVar(&o.IdentityMode, "identity-allocation-mode", "crd", "Who keeps identities; with crd those that nobody uses are removed here")
	fs.DurationVar(&o.IdentityInterval, "identity-gc-interval", 15*time.Minute, "How often to look for identities that nobody uses; 0: never")
	fs.DurationVar(&o.IdentityTimeout, "identity-heartbeat-timeout", 30*time.Minute, "After how long without use an identity goes")
	fs.IntVar(&o.IdentityLimit, "identity-gc-rate-limit", 2500, "How many identities are removed in one identity-gc-rate-interval")
	fs.DurationVar(&o.IdentityRate, "identity-gc-rate-interval", time.Minute, "What identity-gc-rate-limit is about")
	fs.DurationVar(&o.EndpointInterval, "cilium-endpoint-gc-interval", 5*time.Minute, "How often to look for endpoints whose pod is gone; 0: never")

	fs.BoolVar(&o.EndpointSlices, "enable-cilium-endpoint-slice", false, "Keep CiliumEndpointSlices, of which agents learn of other nodes' workloads; without, those that are left are deleted")
	fs.IntVar(&o.SliceMost, "ces-max-ciliumendpoints-per-ces", 100, "How many endpoints a CiliumEndpointSlice has at most")
	fs.StringVar(&o.SliceLimits, "ces-rate-limits", `[{"nodes":0,"limit":10,"burst":20},{"nodes":100,"limit":50,"burst":100}]`,
		"How many CiliumEndpointSlices are written in a second, and at once, by the number of nodes: a JSON list; 50 and 100 at most")

	fs.BoolVar(&o.JudgePolicies, "validate-network-policy", true, "Say in the status of policies whether they are understood")
	fs.StringSliceVar(&o.Labels, "labels", nil, "Which labels of workloads make an identity, as agents have it: what policies ask for besides is told in their status")
	fs.DurationVar(&o.NodeInterval, "nodes-gc-interval", 5*time.Minute, "How often to look for CiliumNodes whose Node is gone; 0: never")
	o.RestartInterval = seconds(15 * time.Second)
	fs.Var(&o.RestartInterval, "unmanaged-pod-watcher-interval", "How often to look for pods of pod-restart-selector that have no endpoint, to restart them, in seconds; 0: never")
	fs.StringVar(&o.RestartLabel, "pod-restart-selector", "k8s-app=kube-dns", "Labels of the pods that are restarted when they have no endpoint")

	fs.BoolVar(&o.LBIPAM, "enable-lb-ipam", true, "Give services of type LoadBalancer addresses of CiliumLoadBalancerIPPools")
	fs.StringVar(&o.DefaultLB, "default-lb-service-ipam", LBIPAM, "Who serves services without a class: lbipam or none")

	fs.BoolVar(&o.RemoveTaints, "remove-cilium-node-taints", true, "Remove the taint of nodes whose agent is ready")
	fs.BoolVar(&o.SetTaints, "set-cilium-node-taints", false, "Set the taint on nodes that have an agent that is not ready")
	fs.BoolVar(&o.SetUp, "set-cilium-is-up-condition", true, "Set the condition NetworkUnavailable of nodes whose agent is ready")
	fs.StringVar(&o.TaintKey, "agent-not-ready-taint-key", "node.cilium.io/agent-not-ready", "Key of the taint")
	fs.IntVar(&o.TaintWorkers, "taint-sync-workers", 10, "How many nodes are looked at at once")
	fs.StringVar(&o.PodNamespace, "cilium-pod-namespace", "", "Namespace of the agents' pods (default that of the operator)")
	fs.StringVar(&o.PodLabel, "cilium-pod-labels", "k8s-app=cilium", "Labels of the agents' pods")
	return fs
}

// Usage is the flags' help text.
func Usage() string { return new(Options).flags().FlagUsages() }

// ErrHelp is returned when the command line asks for help.
var ErrHelp = pflag.ErrHelp

// Load reads the options: defaults, then the directory, then variables (by getenv), then args. What is no option is an error in
// args; in the directory, which serves agents as well, it is passed over.
func Load(args []string, getenv func(string) string) (*Options, error) {
	o := &Options{}
	fs := o.flags()
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: options are given as --name=value", fs.Arg(0))
	}
	values := map[string]string{}
	dir, _ := fs.GetString("config-dir")
	if dir = cmp.Or(dir, getenv(variable("config-dir"))); dir != "" {
		if err := readDir(dir, values); err != nil {
			return nil, err
		}
	}
	var errs error
	fs.VisitAll(func(f *pflag.Flag) {
		v, ok := values[f.Name]
		if e := getenv(variable(f.Name)); e != "" {
			v, ok = e, true
		}
		if !ok || f.Changed {
			return
		}
		if err := fs.Set(f.Name, v); err != nil {
			errs = errors.Join(errs, fmt.Errorf("option %s: %w", f.Name, err))
		}
	})
	if errs != nil {
		return nil, errs
	}
	o.Namespace = cmp.Or(o.Namespace, getenv("CILIUM_K8S_NAMESPACE"), "kube-system")
	o.PodNamespace = cmp.Or(o.PodNamespace, o.Namespace)
	return o, o.check()
}

func variable(option string) string {
	return "HYPHA_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// readDir reads a directory as Kubernetes mounts a ConfigMap: what starts with a dot is the mount's own.
func readDir(dir string, into map[string]string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); strings.HasPrefix(e.Name(), ".") || err == nil && info.IsDir() {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read options: %w", err)
		}
		into[e.Name()] = strings.TrimSpace(string(b))
	}
	return nil
}

func (o *Options) check() error {
	if o.DefaultLB != LBIPAM && o.DefaultLB != "none" {
		return fmt.Errorf("option default-lb-service-ipam: %q is not supported; want lbipam or none", o.DefaultLB)
	}
	if o.LeaseDuration <= o.RenewDeadline || o.RenewDeadline <= o.RetryPeriod || o.RetryPeriod <= 0 {
		return errors.New("options leader-election-*: want lease-duration > renew-deadline > retry-period > 0")
	}
	if o.IdentityLimit <= 0 || o.IdentityRate <= 0 {
		return errors.New("options identity-gc-rate-*: want more than nothing")
	}
	if o.IdentityTimeout < 0 || o.IdentityInterval < 0 || o.EndpointInterval < 0 || o.NodeInterval < 0 || o.RestartInterval < 0 || o.TaintWorkers <= 0 {
		return errors.New("intervals are not less than nothing, and one node at least is looked at")
	}
	if _, err := o.PodLabels(); err != nil {
		return err
	}
	if _, err := o.RestartLabels(); err != nil {
		return err
	}
	if _, err := o.PodPools(); err != nil {
		return err
	}
	if _, err := o.Filter(); err != nil {
		return err
	}
	if _, err := o.SliceRates(); err != nil {
		return err
	}
	if o.SliceMost <= 0 {
		return errors.New("option ces-max-ciliumendpoints-per-ces: want more than nothing")
	}
	if o.IPAM != IPAMClusterPool {
		return nil
	}
	_, err := o.Pools()
	return err
}

// Filter decides which labels of workloads make an identity.
func (o *Options) Filter() (*identity.Filter, error) {
	f, err := identity.NewFilter(o.Labels)
	if err != nil {
		return nil, fmt.Errorf("option labels: %w", err)
	}
	return f, nil
}

// PodLabels is what the agents' pods are selected by.
func (o *Options) PodLabels() (labels.Selector, error) {
	s, err := labels.Parse(o.PodLabel)
	if err != nil {
		return nil, fmt.Errorf("option cilium-pod-labels: %w", err)
	}
	return s, nil
}

// RestartLabels is what the pods are selected by that are restarted when they have no endpoint.
func (o *Options) RestartLabels() (labels.Selector, error) {
	s, err := labels.Parse(o.RestartLabel)
	if err != nil {
		return nil, fmt.Errorf("option pod-restart-selector: %w", err)
	}
	return s, nil
}

// Pools are what nodes get their pod ranges of. The operator's own defaults are those of ipam.
func (o *Options) Pools() (out []ipam.Pool, err error) {
	for _, f := range []struct {
		on    bool
		name  string
		cidrs []string
		mask  int
	}{{o.IPv4, "cluster-pool-ipv4-cidr", o.CIDRs4, o.Mask4}, {o.IPv6, "cluster-pool-ipv6-cidr", o.CIDRs6, o.Mask6}} {
		if !f.on {
			continue
		}
		if len(f.cidrs) == 0 {
			return nil, fmt.Errorf("option %s is missing: nodes would get no pod ranges", f.name)
		}
		for _, text := range f.cidrs {
			for text := range strings.FieldsSeq(text) { // charts write lists with spaces
				p, err := netip.ParsePrefix(text)
				if err != nil || p.Addr().Is6() != strings.Contains(f.name, "ipv6") {
					return nil, fmt.Errorf("option %s: %q is no such prefix", f.name, text)
				}
				out = append(out, ipam.Pool{Prefix: p.Masked(), Bits: f.mask})
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("neither enable-ipv4 nor enable-ipv6: nodes would get no pod ranges")
	}
	return slices.Clip(out), ipam.Ranges{Pools: out}.Check()
}
