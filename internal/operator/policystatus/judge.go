// Package policystatus tells the authors of policies, in the condition Valid of a policy's status, whether it is understood. Agents come
// to the same judgement by the same parser; one speaks for all.
package policystatus

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/source/document"
)

// kinds are those that have such a condition.
var kinds = []string{v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy}

func empty(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(ciliumv2.GroupVersion.WithKind(kind))
	return u
}

// ByObject is how the manager's cache is to keep policies: judged when they come in, and without what they say.
func ByObject() map[client.Object]ctrlcache.ByObject {
	out := map[client.Object]ctrlcache.ByObject{}
	for _, kind := range kinds {
		out[empty(kind)] = ctrlcache.ByObject{Transform: judge}
	}
	return out
}

// fault is the field of a policy, as it is kept, with what is not understood of it; "": all is.
const fault = "fault"

// maxFault bounds what is told of it, in bytes.
const maxFault = 4096

// judge makes of a policy what is kept of it.
func judge(o any) (any, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	if _, done := u.Object[fault]; done {
		return o, nil
	}
	body, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("read policy %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	text := ""
	var d document.Document
	if err = json.Unmarshal(body, &d); err == nil {
		_, _, err = d.Parse()
	}
	if err != nil {
		text = err.Error()
		text = text[:min(len(text), maxFault)]
	}
	out := empty(u.GetKind())
	out.SetName(u.GetName())
	out.SetNamespace(u.GetNamespace())
	out.SetUID(u.GetUID())
	out.SetResourceVersion(u.GetResourceVersion())
	out.Object[fault] = text
	if s, ok := u.Object["status"]; ok {
		out.Object["status"] = s
	}
	return out, nil
}
