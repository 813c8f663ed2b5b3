// Package policystatus tells the authors of policies, in the condition Valid of a policy's status, whether it is understood. Agents come
// to the same judgement by the same parser; one speaks for all.
package policystatus

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/source/document"
)

// kinds are those that have such a condition.
var kinds = []string{v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy}

func empty(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(ciliumv2.GroupVersion.WithKind(kind))
	return u
}

// ByObject is how the manager's cache is to keep policies: judged when they come in, and without what they say. The filter is that of
// identities' labels.
func ByObject(f policy.Filter) map[client.Object]ctrlcache.ByObject {
	out := map[client.Object]ctrlcache.ByObject{}
	for _, kind := range kinds {
		out[empty(kind)] = ctrlcache.ByObject{Transform: func(o any) (any, error) { return judge(o, f) }}
	}
	return out
}

// Fields of a policy, as it is kept.
const (
	fault  = "fault"  // what is not understood of it; "": all is
	caveat = "caveat" // what its author should know, though it is; "": nothing
)

// maxText bounds what is told, in bytes.
const maxText = 4096

// judge makes of a policy what is kept of it.
func judge(o any, f policy.Filter) (any, error) {
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
	var bad, odd string
	var d document.Document
	if err = json.Unmarshal(body, &d); err == nil {
		odd, err = hidden(&d, f)
	}
	if err != nil {
		bad = err.Error()
	}
	out := empty(u.GetKind())
	out.SetName(u.GetName())
	out.SetNamespace(u.GetNamespace())
	out.SetUID(u.GetUID())
	out.SetResourceVersion(u.GetResourceVersion())
	out.Object[fault], out.Object[caveat] = bad[:min(len(bad), maxText)], odd[:min(len(odd), maxText)]
	if s, ok := u.Object["status"]; ok {
		out.Object["status"] = s
	}
	return out, nil
}

// hidden names the labels that a policy asks for and that no identity has.
func hidden(d *document.Document, f policy.Filter) (string, error) {
	policies, _, err := d.Parse()
	if err != nil {
		return "", err
	}
	var all []string
	for _, p := range policies {
		labels, err := policy.Hidden(p, f)
		if err != nil {
			return "", err
		}
		all = append(all, labels...)
	}
	if len(all) == 0 {
		return "", nil
	}
	slices.Sort(all)
	return "selects by labels that identities do not have, so no workload is taken to have them (option labels): " + strings.Join(slices.Compact(all), ", "), nil
}
