package cluster

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// page is how many objects are asked for at once.
const page = 500

var endpoints = schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumendpoints"}

// Pods counts the pods that run with a network of their own.
type Pods struct {
	Running int
	Managed int // those that Hypha connects
}

// workloads counts pods by the endpoints of the same names.
func (c *Cluster) workloads(ctx context.Context) (Pods, error) {
	managed := map[string]bool{}
	for next, first := "", true; first || next != ""; first = false {
		list, err := c.names.Resource(endpoints).List(ctx, metav1.ListOptions{Limit: page, Continue: next})
		if err != nil {
			return Pods{}, fmt.Errorf("list endpoints: %w", err)
		}
		for _, e := range list.Items {
			managed[e.Namespace+"/"+e.Name] = true
		}
		next = list.Continue
	}
	var n Pods
	for next, first := "", true; first || next != ""; first = false {
		list, err := c.api.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running", Limit: page, Continue: next})
		if err != nil {
			return Pods{}, fmt.Errorf("list pods: %w", err)
		}
		for _, p := range list.Items {
			if p.Spec.HostNetwork {
				continue
			}
			n.Running++
			if managed[p.Namespace+"/"+p.Name] {
				n.Managed++
			}
		}
		next = list.Continue
	}
	return n, nil
}
