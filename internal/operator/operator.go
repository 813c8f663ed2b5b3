package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/operator/clusterpool"
	"github.com/hypha-net/hypha/internal/operator/crd"
	"github.com/hypha-net/hypha/internal/operator/endpoint"
	"github.com/hypha-net/hypha/internal/operator/endpointslice"
	"github.com/hypha-net/hypha/internal/operator/identity"
	"github.com/hypha-net/hypha/internal/operator/lb"
	"github.com/hypha-net/hypha/internal/operator/multipool"
	"github.com/hypha-net/hypha/internal/operator/node"
	"github.com/hypha-net/hypha/internal/operator/option"
	"github.com/hypha-net/hypha/internal/operator/policystatus"
	"github.com/hypha-net/hypha/internal/operator/taint"
	"github.com/hypha-net/hypha/internal/operator/unmanaged"
	"github.com/hypha-net/hypha/internal/version"
)

// leaseName is the name of the lease by which one leads, the one that people know.
const leaseName = "cilium-operator-resource-lock"

// established is how long definitions may take until they can be used.
const established = time.Minute

// Run works until the context ends, or until another operator leads, which is an error.
func Run(ctx context.Context, o *option.Options, log *slog.Logger) error {
	logger := logr.FromSlogHandler(log.Handler())
	ctrl.SetLogger(logger) // both libraries have one logger for the process
	klog.SetLogger(logger)
	conf, err := connection(o)
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	if err := define(ctx, conf, scheme, o, log); err != nil {
		return err
	}
	mgr, err := newManager(conf, scheme, o, logger)
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	if err := add(ctx, mgr, o, log); err != nil {
		return err
	}
	log.Info("operator runs", "version", version.Get().Version, "ipam", o.IPAM, "lease", o.Namespace+"/"+leaseName)
	return mgr.Start(ctx)
}

// connection finds the API server: by the kubeconfig, or as a pod does, or by its URL alone.
func connection(o *option.Options) (*rest.Config, error) {
	var conf *rest.Config
	var err error
	if o.Kubeconfig != "" {
		conf, err = clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	} else if conf, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) && o.Server != "" {
		conf, err = &rest.Config{}, nil
	}
	if err != nil {
		return nil, err
	}
	if o.Server != "" {
		conf.Host = o.Server
	}
	conf.UserAgent = "hypha-operator/" + version.Get().Version
	conf.QPS, conf.Burst = o.QPS, o.Burst
	return conf, nil
}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, ciliumv2.AddToScheme, ciliumv2alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// define sees to the definitions, before anybody leads: agents wait for them, and so do the watches.
func define(ctx context.Context, conf *rest.Config, scheme *runtime.Scheme, o *option.Options, log *slog.Logger) error {
	c, err := client.New(conf, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	if !o.SkipCRDs {
		if err := crd.Install(ctx, c, log); err != nil {
			return err
		}
	}
	return crd.Wait(ctx, c, established)
}

func newManager(conf *rest.Config, scheme *runtime.Scheme, o *option.Options, logger logr.Logger) (ctrl.Manager, error) {
	labels, err := o.PodLabels()
	if err != nil {
		return nil, err
	}
	metrics := o.MetricsAddr
	if metrics == "" {
		metrics = "0" // the library's word for nowhere
	}
	kept := map[client.Object]ctrlcache.ByObject{
		&corev1.Pod{}:  {Namespaces: map[string]ctrlcache.Config{o.PodNamespace: {}}, Label: labels},
		&corev1.Node{}: {Transform: cache.TransformFunc(trimNode)},
	}
	filter, err := o.Filter()
	if err != nil {
		return nil, err
	}
	maps.Copy(kept, policystatus.ByObject(filter))
	maps.Copy(kept, endpointslice.ByObject())
	health := o.APIAddr
	if health == "" {
		health = "0"
	}
	again := true
	mgr, err := ctrl.NewManager(conf, ctrl.Options{
		Scheme: scheme, Logger: logger,
		Controller:             config.Controller{SkipNameValidation: &again}, // it asks for names never used in the process
		Metrics:                metricsserver.Options{BindAddress: metrics},
		HealthProbeBindAddress: health,
		LeaderElection:         true, LeaderElectionID: leaseName, LeaderElectionNamespace: o.Namespace, LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &o.LeaseDuration, RenewDeadline: &o.RenewDeadline, RetryPeriod: &o.RetryPeriod,
		Cache: ctrlcache.Options{
			DefaultTransform: ctrlcache.TransformStripManagedFields(),
			ByObject:         kept,
		},
	})
	if err != nil {
		return nil, err
	}
	return mgr, mgr.AddHealthzCheck("ping", healthz.Ping)
}

// trimNode leaves out what takes most of a node's space.
func trimNode(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok {
		n.Status.Images, n.ManagedFields, n.Annotations = nil, nil, nil
	} else if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// add gives the manager all that is to be done.
func add(ctx context.Context, mgr ctrl.Manager, o *option.Options, log *slog.Logger) error {
	if o.IPAM == option.IPAMClusterPool {
		pools, err := o.Pools()
		if err != nil {
			return err
		}
		if err := clusterpool.Add(mgr, pools); err != nil {
			return err
		}
	}
	if o.IPAM == option.IPAMMultiPool {
		pools, err := o.PodPools()
		if err != nil {
			return err
		}
		if err := multipool.Add(mgr, multipool.Config{IPv4: o.IPv4, IPv6: o.IPv6, Pools: pools}); err != nil {
			return err
		}
	}
	if o.LBIPAM {
		if err := lb.Add(mgr, lb.Config{IPv4: o.IPv4, IPv6: o.IPv6, Default: o.DefaultLB == option.LBIPAM}); err != nil {
			return err
		}
	}
	if o.IdentityMode == "crd" && o.IdentityInterval > 0 {
		cfg := identity.Config{Interval: o.IdentityInterval, Timeout: o.IdentityTimeout, Limit: o.IdentityLimit, RateInterval: o.IdentityRate}
		if err := identity.Add(mgr, cfg, log); err != nil {
			return err
		}
	}
	if o.EndpointInterval > 0 {
		if err := endpoint.Add(mgr, o.EndpointInterval, log); err != nil {
			return err
		}
	}
	rates, err := o.SliceRates()
	if err != nil {
		return err
	}
	if err := endpointslice.Add(mgr, endpointslice.Config{Keep: o.EndpointSlices, Most: o.SliceMost, Rates: rates}, log); err != nil {
		return err
	}
	if o.JudgePolicies {
		if err := policystatus.Add(mgr); err != nil {
			return err
		}
	}
	if o.NodeInterval > 0 {
		if err := node.Add(mgr, o.NodeInterval, log); err != nil {
			return err
		}
	}
	agents, err := o.PodLabels()
	if err != nil {
		return err
	}
	if o.RestartInterval > 0 {
		pods, err := o.RestartLabels()
		if err != nil {
			return err
		}
		cfg := unmanaged.Config{Interval: time.Duration(o.RestartInterval), Selector: pods, Namespace: o.PodNamespace, Agents: agents}
		if err := unmanaged.Add(mgr, cfg, log); err != nil {
			return err
		}
	}
	if !o.RemoveTaints && !o.SetTaints && !o.SetUp {
		return nil
	}
	return taint.Add(ctx, mgr, taint.Config{Key: o.TaintKey, Remove: o.RemoveTaints, Set: o.SetTaints, Condition: o.SetUp,
		Namespace: o.PodNamespace, Labels: agents, Workers: o.TaintWorkers})
}
