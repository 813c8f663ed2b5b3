// Package cluster answers for a whole Kubernetes cluster what an agent answers for its node: how Hypha does there, and with which
// options. It reads what the API server knows and changes nothing but the ConfigMap of options.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	agents    = "cilium" // DaemonSet
	operator  = "cilium-operator"
	relay     = "hubble-relay"
	mesh      = "clustermesh-apiserver"
	configMap = "cilium-config"
)

// Cluster is one, seen through its API server.
type Cluster struct {
	api       kubernetes.Interface
	names     metadata.Interface
	namespace string
}

// New is the cluster behind a client, and one for what objects are called; namespace is where Hypha is installed.
func New(api kubernetes.Interface, names metadata.Interface, namespace string) *Cluster {
	return &Cluster{api: api, names: names, namespace: namespace}
}

// Rest finds the cluster as kubectl does: by a kubeconfig file and a context in it, each "" for the usual. It returns the name of the
// context as well.
func Rest(kubeconfig, contextName string) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: contextName})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	if raw, err := loader.RawConfig(); err == nil && contextName == "" {
		contextName = raw.CurrentContext
	}
	cfg.Timeout = 30 * time.Second
	return cfg, contextName, nil
}

// Open is the cluster that Rest finds.
func Open(kubeconfig, contextName, namespace string) (*Cluster, error) {
	cfg, _, err := Rest(kubeconfig, contextName)
	if err != nil {
		return nil, err
	}
	api, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	names, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	return New(api, names, namespace), nil
}

// Config are the options in the ConfigMap.
func (c *Cluster) Config(ctx context.Context) (map[string]string, error) {
	m, err := c.api.CoreV1().ConfigMaps(c.namespace).Get(ctx, configMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("not installed in namespace %s: there is no ConfigMap %s", c.namespace, configMap)
	}
	if err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	return m.Data, nil
}

// SetConfig changes options, or with nil as a value takes them away, and then has the agents start anew with them, a few at a
// time.
func (c *Cluster) SetConfig(ctx context.Context, values map[string]*string) error {
	if _, err := c.Config(ctx); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": values})
	if err != nil {
		return fmt.Errorf("change options: %w", err)
	}
	if _, err := c.api.CoreV1().ConfigMaps(c.namespace).Patch(ctx, configMap, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "hypha"}); err != nil {
		return fmt.Errorf("change options: %w", err)
	}
	patch = fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if _, err := c.api.AppsV1().DaemonSets(c.namespace).Patch(ctx, agents, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "hypha"}); err != nil {
		return fmt.Errorf("options are changed, but agents do not start anew: %w", err)
	}
	return nil
}
