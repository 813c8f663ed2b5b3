package main

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/model"
)

// fleet is how large a cluster on Kubernetes is, and what its objects say. Each namespace has ten applications, each of these an
// identity, and as many policies as any other, half of them NetworkPolicies.
type fleet struct {
	nodes, pods, identities, policies int
	local                             int // pods of the node under test, two in a namespace
	changes                           int
}

const (
	fleetApps  = 10 // of a namespace
	fleetTeams = 20 // of namespaces
	fleetFirst = 1000
)

func (f *fleet) namespaces() int { return max(1, f.identities/fleetApps) }

func namespaceOf(i int) string { return fmt.Sprintf("tenant-%04d", i) }

func object1(apiVersion, kind, namespace, name string, rest object) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: object{"apiVersion": apiVersion, "kind": kind}}
	maps.Copy(o.Object, rest)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// text makes a map of strings something that an object holds.
func text(m map[string]string) object {
	out := object{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// podLabels are those of a pod of an application; unlike makes them an identity of its own.
func podLabelsOf(app int, unlike string) map[string]string {
	out := map[string]string{"app": fmt.Sprintf("a%d", app), "app.kubernetes.io/name": fmt.Sprintf("a%d", app),
		"app.kubernetes.io/managed-by": "helm", "tier": []string{"web", "logic", "data"}[app%3]}
	if unlike != "" {
		out["pod-template-hash"] = unlike
	}
	return out
}

// securityLabels are what the agent makes of them in a namespace.
func securityLabels(ns, app int, unlike string) model.Labels {
	var ls []model.Label
	add := func(k, v string) { ls = append(ls, model.Label{Source: model.SourceK8s, Key: k, Value: v}) }
	for k, v := range podLabelsOf(app, unlike) {
		add(k, v)
	}
	for k, v := range namespaceLabels(ns) {
		add(model.KeyNamespaceLabels+"."+k, v)
	}
	add(model.KeyNamespaceLabels+".kubernetes.io/metadata.name", namespaceOf(ns)) // the API server's
	add(model.KeyNamespace, namespaceOf(ns))
	add(model.KeyCluster, clusterName)
	add(model.KeyServiceAccount, "default")
	return model.NewLabels(ls...)
}

func namespaceLabels(ns int) map[string]string {
	return map[string]string{"team": fmt.Sprintf("team%d", ns%fleetTeams), "stage": "production"}
}

// objects are all that there is but for the node under test, its pods and the policies.
func (f *fleet) objects() iter.Seq[*unstructured.Unstructured] {
	return func(yield func(*unstructured.Unstructured) bool) {
		for i := range f.nodes - 1 {
			n := farNode(i)
			if !yield(nodeObject(n)) || !yield(ciliumNodeObject(n)) {
				return
			}
		}
		for i := range f.identities {
			if !yield(identityObject(fleetFirst+i, i/fleetApps, i%fleetApps, "")) {
				return
			}
		}
		for i := range f.pods {
			if !yield(f.endpointObject(i, i%f.identities)) {
				return
			}
		}
	}
}

func (f *fleet) namespaceObjects() iter.Seq[*unstructured.Unstructured] {
	return func(yield func(*unstructured.Unstructured) bool) {
		for i := range f.namespaces() {
			if !yield(object1("v1", "Namespace", "", namespaceOf(i), object{"metadata": object{"labels": text(namespaceLabels(i))}})) {
				return
			}
		}
	}
}

func nodeObject(n model.Node) *unstructured.Unstructured {
	return object1("v1", "Node", "", n.Name, object{"metadata": object{"labels": object{"kubernetes.io/hostname": n.Name}},
		"spec": object{"podCIDR": n.PodCIDRs[0].String(), "podCIDRs": []any{n.PodCIDRs[0].String(), n.PodCIDRs[1].String()}}})
}

func ciliumNodeObject(n model.Node) *unstructured.Unstructured {
	var addrs []any
	for kind, list := range map[string][]netip.Addr{"InternalIP": n.Addrs, "CiliumInternalIP": n.Routers} {
		for _, a := range list {
			addrs = append(addrs, object{"type": kind, "ip": a.String()})
		}
	}
	return object1("cilium.io/v2", "CiliumNode", "", n.Name, object{"metadata": object{"labels": object{"kubernetes.io/hostname": n.Name}},
		"spec": object{"addresses": addrs, "ipam": object{"podCIDRs": []any{n.PodCIDRs[0].String(), n.PodCIDRs[1].String()}}}})
}

func identityObject(id, ns, app int, unlike string) *unstructured.Unstructured {
	labels := object{}
	for _, l := range securityLabels(ns, app, unlike) {
		labels[l.Source+":"+l.Key] = l.Value
	}
	return object1("cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id), object{"security-labels": labels,
		"metadata": object{"labels": text(podLabelsOf(app, unlike))}})
}

// podAddr is where the i-th pod lives, and its node.
func (f *fleet) podAddr(i int) (node model.Node, v4, v6 netip.Addr) {
	_, e := podEntry(i, f.nodes-1)
	node = farNode(i % (f.nodes - 1))
	a := node.PodCIDRs[1].Addr().As16()
	a[15] = byte(10 + i/(f.nodes-1))
	return node, e.Prefix.Addr(), netip.AddrFrom16(a)
}

// endpointObject is the i-th pod, who has an identity of the fleet.
func (f *fleet) endpointObject(i, identity int) *unstructured.Unstructured {
	node, v4, v6 := f.podAddr(i)
	ns, app := identity/fleetApps, identity%fleetApps
	var labels []any
	for _, l := range securityLabels(ns, app, "").Strings() {
		labels = append(labels, l)
	}
	name := fmt.Sprintf("a%d-%d-%s", app, i, "7d9c5b6f4-x2x9q")
	return object1("cilium.io/v2", "CiliumEndpoint", namespaceOf(ns), name, object{
		"metadata": object{"ownerReferences": []any{object{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": fmt.Sprintf("0b7a5f0e-5a52-4b5e-9d5e-%012d", i)}}},
		"status": object{"id": int64(i%4000 + 1), "state": "ready",
			"identity":             object{"id": int64(fleetFirst + identity), "labels": labels},
			"networking":           object{"addressing": []any{object{"ipv4": v4.String(), "ipv6": v6.String()}}, "node": node.Addrs[0].String()},
			"external-identifiers": object{"k8s-namespace": namespaceOf(ns), "k8s-pod-name": name},
			"named-ports":          []any{object{"name": "web", "port": int64(8080), "protocol": "TCP"}}}})
}
