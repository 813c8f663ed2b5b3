package sysdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// resource is a kind of objects that are gathered.
type resource struct {
	schema.GroupVersionResource
	own  bool   // in Hypha's namespace only
	name string // this one alone
}

// group is the API group of Hypha's own resources, all of which are gathered.
const group = "cilium.io"

// resources are those of others that matter. Secrets are not among them.
func resources() []resource {
	r := func(group, version, name string) resource {
		return resource{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: name}}
	}
	own := func(r resource) resource { r.own = true; return r }
	config := own(r("", "v1", "configmaps"))
	config.name = "cilium-config"
	return []resource{
		r("", "v1", "nodes"), r("", "v1", "namespaces"), r("", "v1", "pods"), r("", "v1", "services"), r("", "v1", "events"), config,
		own(r("apps", "v1", "daemonsets")), own(r("apps", "v1", "deployments")), own(r("apps", "v1", "replicasets")), own(r("apps", "v1", "controllerrevisions")),
		r("discovery.k8s.io", "v1", "endpointslices"), r("networking.k8s.io", "v1", "networkpolicies"), r("networking.k8s.io", "v1", "ingresses"),
		r("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies"), r("coordination.k8s.io", "v1", "leases"),
		r("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
	}
}

// served are the resources of Hypha's group that the API server has, each in the version that it prefers.
func served(d discovery.DiscoveryInterface) ([]resource, error) {
	lists, err := discovery.ServerPreferredResources(d)
	var partly *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partly) { // groups of others may be away
		return nil, fmt.Errorf("ask which resources there are: %w", err)
	}
	var out []resource
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil || gv.Group != group {
			continue
		}
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") {
				out = append(out, resource{GroupVersionResource: gv.WithResource(r.Name)})
			}
		}
	}
	return out, nil
}

// page is how many objects are asked for at once.
const page = 500

// gather writes all objects of a resource into a file. A resource that there is not has no objects.
func gather(ctx context.Context, c dynamic.Interface, a *archive, r resource, namespace string) error {
	of := c.Resource(r.GroupVersionResource).Namespace("")
	if r.own {
		of = c.Resource(r.GroupVersionResource).Namespace(namespace)
	}
	file := r.Resource
	o := metav1.ListOptions{Limit: page}
	if r.name != "" {
		o.FieldSelector, file = "metadata.name="+r.name, r.name
	}
	all := &unstructured.UnstructuredList{}
	for {
		list, err := of.List(ctx, o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range list.Items {
			redact(&list.Items[i])
		}
		all.Object = list.Object
		all.Items = append(all.Items, list.Items...)
		if o.Continue = list.GetContinue(); o.Continue == "" {
			break
		}
	}
	text, err := yaml.Marshal(all.UnstructuredContent())
	if err != nil {
		return err
	}
	return a.write(func(w io.Writer) error { _, err := w.Write(text); return err }, "objects", file+".yaml")
}
