package k8s

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// NodeOptions are the options that CiliumNodeConfigs of a namespace set for this node, of several that set one those of the last by name.
// What keeps the API server from answering is state.ErrUnreachable. Of the configuration, only what finds node and API server is used.
func NodeOptions(ctx context.Context, cfg Config, namespace string) (map[string]string, error) {
	conf, err := cfg.rest()
	if err != nil {
		return nil, err
	}
	conf.QPS = -1 // two requests
	c, err := newClients(conf)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer c.close()
	all, err := nodeConfigs(ctx, c.cilium, namespace)
	if err != nil || len(all) == 0 {
		return nil, wrap("list CiliumNodeConfigs in "+namespace, err)
	}
	var node corev1.Node
	if err := get(ctx, c.core, "nodes", "", cfg.NodeName, &node); err != nil {
		return nil, wrap("ask for Node "+cfg.NodeName, err)
	}
	return optionsFor(all, node.Labels)
}

// nodeConfigs are those of a namespace; where the resource is not known, there are none.
func nodeConfigs(ctx context.Context, c rest.Interface, namespace string) ([]ciliumv2.CiliumNodeConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var list ciliumv2.CiliumNodeConfigList
	err := c.Get().Namespace(namespace).Resource("ciliumnodeconfigs").Do(ctx).Into(&list)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return list.Items, err
}

// optionsFor merges those that select a node with these labels. One whose selector cannot be read is an error: nobody knows for whom it is.
func optionsFor(all []ciliumv2.CiliumNodeConfig, labels map[string]string) (map[string]string, error) {
	slices.SortFunc(all, func(a, b ciliumv2.CiliumNodeConfig) int { return strings.Compare(a.Name, b.Name) })
	out := map[string]string{}
	for i := range all {
		sel, err := metav1.LabelSelectorAsSelector(all[i].Spec.NodeSelector)
		if err != nil {
			return nil, fmt.Errorf("CiliumNodeConfig %s/%s: %w", all[i].Namespace, all[i].Name, err)
		}
		if sel.Matches(kubelabels.Set(labels)) {
			maps.Copy(out, all[i].Spec.Defaults)
		}
	}
	return out, nil
}
