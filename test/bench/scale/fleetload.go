package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// load puts the cluster, but for the pods of the node under test, where the API server keeps it: through the API server each object
// would take it a millisecond or two. Objects are as it would have stored them, what it adds included.
func (f *fleet) load(ctx context.Context, api *kubeapi.Server) (err error) {
	s := &site{}
	if s.store, err = s.dial(api.Etcd, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	self := object1("v1", "Node", "", "node1", object{"spec": object{"podCIDR": "10.10.1.0/24", "podCIDRs": []any{"10.10.1.0/24", "fd10::100/120"}}})
	var kvs []kvstore.KV
	add := func(o *unstructured.Unstructured) error {
		kv, err := asStored(o, len(kvs))
		kvs = append(kvs, kv)
		return err
	}
	if err := add(self); err != nil {
		return err
	}
	for _, all := range []iter.Seq[*unstructured.Unstructured]{f.namespaceObjects(), f.objects(), f.policyObjects()} {
		for o := range all {
			if err := add(o); err != nil {
				return err
			}
		}
	}
	return s.write(ctx, kvs)
}

// places are where the API server keeps what is not named after its plural.
var places = map[string]string{"Node": "minions", "NetworkPolicy": "networkpolicies", "CiliumIdentity": "cilium.io/ciliumidentities",
	"CiliumNetworkPolicy": "cilium.io/ciliumnetworkpolicies"}

// asStored is an object as the API server stores it: the n-th.
func asStored(o *unstructured.Unstructured, n int) (kvstore.KV, error) {
	place := strings.ToLower(o.GetKind()) + "s"
	if group, _, ok := strings.Cut(o.GetAPIVersion(), "/"); ok {
		place = group + "/" + place
	}
	key := "/registry/" + cmp.Or(places[o.GetKind()], place) + "/"
	if ns := o.GetNamespace(); ns != "" {
		key += ns + "/"
	}
	now := metav1.Now()
	o.SetCreationTimestamp(now)
	o.SetUID(types.UID(fmt.Sprintf("5f0c1f6e-2a52-4b5e-9d5e-%012x", n)))
	o.SetGeneration(1)
	switch o.GetKind() {
	case "Namespace":
		labels := o.GetLabels()
		labels[metav1LabelName] = o.GetName()
		o.SetLabels(labels)
		o.Object["spec"], o.Object["status"] = object{"finalizers": []any{"kubernetes"}}, object{"phase": "Active"}
	case "CiliumNetworkPolicy":
		o.Object["status"] = object{"conditions": []any{object{"type": "Valid", "status": "True", "reason": "Understood", "lastTransitionTime": now.UTC().Format(time.RFC3339)}}}
	}
	fields := fieldsOf(o.Object)
	for _, k := range []string{"apiVersion", "kind"} {
		delete(fields, "f:"+k)
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return kvstore.KV{}, err
	}
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "hypha-agent", Operation: metav1.ManagedFieldsOperationApply, APIVersion: o.GetAPIVersion(), Time: &now,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(raw))}})
	value, err := json.Marshal(o.Object)
	return kvstore.KV{Key: key + o.GetName(), Value: value}, err
}

const metav1LabelName = "kubernetes.io/metadata.name" // corev1.LabelMetadataName

// fieldsOf names the fields of an object, as the API server notes who set which.
func fieldsOf(o object) object {
	out := object{}
	for k, v := range o {
		if m, ok := v.(object); ok {
			out["f:"+k] = fieldsOf(m)
		} else {
			out["f:"+k] = object{}
		}
	}
	return out
}
