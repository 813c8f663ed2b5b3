package k8s

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is kept of objects that are needed again when another one changes.

func trimService(o *corev1.Service) *corev1.Service {
	out := &corev1.Service{Spec: o.Spec, Status: o.Status}
	out.Namespace, out.Name, out.CreationTimestamp = o.Namespace, o.Name, o.CreationTimestamp
	out.Spec.Selector, out.Status.Conditions = nil, nil
	for k, v := range o.Annotations {
		if strings.HasPrefix(k, annotationPrefix) {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[k] = v
		}
	}
	return out
}

func trimSlice(o *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{AddressType: o.AddressType, Ports: o.Ports, Endpoints: o.Endpoints}
	out.Name = o.Name
	for i := range out.Endpoints {
		e := &out.Endpoints[i]
		e.Hostname, e.TargetRef, e.DeprecatedTopology = nil, nil, nil
	}
	return out
}

// trimPod is nil for a pod without host ports, and for one that is gone.
func trimPod(o *corev1.Pod) *corev1.Pod {
	if o == nil {
		return nil
	}
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, CreationTimestamp: o.CreationTimestamp}}
	out.Spec.HostNetwork, out.Spec.NodeName = o.Spec.HostNetwork, o.Spec.NodeName
	out.Status.Phase, out.Status.PodIPs = o.Status.Phase, o.Status.PodIPs
	c := corev1.Container{}
	for _, p := range podPorts(o) {
		if p.HostPort != 0 {
			c.Ports = append(c.Ports, p)
		}
	}
	if len(c.Ports) == 0 {
		return nil
	}
	out.Spec.Containers = []corev1.Container{c}
	return out
}
