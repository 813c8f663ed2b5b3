package main

import (
	"fmt"
	"iter"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// policyObjects are the policies, one of each namespace in turn. Those of the first half of a namespace's applications limit what
// comes in, those of the others what goes out.
func (f *fleet) policyObjects() iter.Seq[*unstructured.Unstructured] {
	return func(yield func(*unstructured.Unstructured) bool) {
		for i := range f.policies {
			if !yield(policyObject(i%f.namespaces(), i/f.namespaces())) {
				return
			}
		}
	}
}

// policyObject is the k-th policy of a namespace.
func policyObject(ns, k int) *unstructured.Unstructured {
	app, shape := k%fleetApps, k/fleetApps
	name := fmt.Sprintf("p%02d-a%d", k, app)
	match := func(app int) object { return object{"matchLabels": object{"app": fmt.Sprintf("a%d", app)}} }
	other := match((app*7 + shape + 1) % fleetApps)
	team := fmt.Sprintf("team%d", (ns+shape)%fleetTeams)
	out := app >= fleetApps/2
	if k%2 == 0 {
		peers := []any{object{"podSelector": other}}
		switch shape % 3 {
		case 1:
			peers = append(peers, object{"namespaceSelector": object{"matchLabels": object{"team": team}}, "podSelector": match(app)})
		case 2:
			peers = append(peers, object{"ipBlock": object{"cidr": fmt.Sprintf("192.%d.0.0/16", 169+ns%64), "except": []any{fmt.Sprintf("192.%d.7.0/24", 169+ns%64)}}})
		}
		ports := []any{object{"protocol": "TCP", "port": int64(8080 + shape)}, object{"protocol": "UDP", "port": int64(53)}}
		spec := object{"podSelector": match(app), "policyTypes": []any{"Ingress"}, "ingress": []any{object{"from": peers, "ports": ports}}}
		if out {
			spec = object{"podSelector": match(app), "policyTypes": []any{"Egress"}, "egress": []any{object{"to": peers, "ports": ports}}}
		}
		return object1("networking.k8s.io/v1", "NetworkPolicy", namespaceOf(ns), name, object{"spec": spec})
	}
	ports := []any{object{"ports": []any{object{"port": fmt.Sprint(8000 + shape), "protocol": "TCP"}, object{"port": "9090", "protocol": "TCP"}}}}
	peers := []any{other}
	if shape%2 == 1 {
		peers = append(peers, object{"matchLabels": object{"k8s:io.kubernetes.pod.namespace": namespaceOf(ns / 2), "app": "a3"}})
	}
	in := object{"fromEndpoints": peers, "toPorts": ports}
	spec := object{"endpointSelector": match(app), "ingress": []any{in}}
	if out {
		spec = object{"endpointSelector": match(app), "egress": []any{object{"toEndpoints": peers, "toPorts": ports}, object{"toEntities": []any{"kube-apiserver"}}}}
	}
	return object1("cilium.io/v2", "CiliumNetworkPolicy", namespaceOf(ns), name, object{"spec": spec})
}
