package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// fieldManager is under whose name objects are written.
const fieldManager = "hypha-connectivity"

// resources are the kinds that tests make.
var resources = map[string]schema.GroupVersionResource{
	"Namespace":                      {Version: "v1", Resource: "namespaces"},
	"ServiceAccount":                 {Version: "v1", Resource: "serviceaccounts"},
	"Service":                        {Version: "v1", Resource: "services"},
	"Deployment":                     {Group: "apps", Version: "v1", Resource: "deployments"},
	"DaemonSet":                      {Group: "apps", Version: "v1", Resource: "daemonsets"},
	"NetworkPolicy":                  {Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	"CiliumNetworkPolicy":            {Group: "cilium.io", Version: "v2", Resource: "ciliumnetworkpolicies"},
	"CiliumClusterwideNetworkPolicy": {Group: "cilium.io", Version: "v2", Resource: "ciliumclusterwidenetworkpolicies"},
	"CiliumCIDRGroup":                {Group: "cilium.io", Version: "v2", Resource: "ciliumcidrgroups"},
}

func (p *Place) resource(kind, namespace string) dynamic.ResourceInterface {
	r := p.dyn.Resource(resources[kind])
	if namespace == "" {
		return r
	}
	return r.Namespace(namespace)
}

// put makes an object, or brings the one that is there in line with it.
func (p *Place) put(ctx context.Context, o *unstructured.Unstructured) error {
	_, err := p.resource(o.GetKind(), o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("deploy %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// drop deletes an object; it is no error when it is not there.
func (p *Place) drop(ctx context.Context, kind, namespace, name string) error {
	background := metav1.DeletePropagationBackground
	err := p.resource(kind, namespace).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &background})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s: %w", kind, name, err)
	}
	return nil
}
