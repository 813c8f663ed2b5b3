package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// startSlices is a cluster whose agents learn of each other's pods from slices, and an operator that makes them, with a stop.
func startSlices(t *testing.T) (k *kube, stop func()) {
	k = startKubeWith(t, func(k *kube) { stop = k.operate(sliceOptions...) }, map[string]any{"enable-cilium-endpoint-slice": true})
	return k, stop
}

var sliceOptions = []string{"--ipam=kubernetes", "--enable-cilium-endpoint-slice", "--ces-max-ciliumendpoints-per-ces=2", "--cilium-endpoint-gc-interval=0"}

// believes says that a node has, or has not, an address of the other one's pod in its kernel, soon.
func (k *kube) believes(node int, p *cluster.Pod, ok bool) {
	k.t.Helper()
	for _, v6 := range []bool{false, true} {
		addr := p.Addr(v6).String()
		eventually(k.t, 3*yes, fmt.Sprintf("node%d and %s of %s", node+1, addr, p.Name), func() error {
			out, err := k.Hypha(k.t.Context(), k.Nodes[node], "bpf", "ipcache", "list")
			if err != nil {
				return err
			}
			if there := slices.Contains(strings.Fields(out), addr); there != ok {
				return fmt.Errorf("there: %v\n%s", there, out)
			}
			return nil
		})
	}
}

// slicesHave says that the slices have so many endpoints, soon, and how many slices they are.
func (k *kube) slicesHave(want int) (number int) {
	k.t.Helper()
	eventually(k.t, 3*yes, "slices", func() error {
		all, n := k.api.List(k.t, "cilium.io/v2alpha1", "CiliumEndpointSlice").Items, 0
		for _, o := range all {
			e, _, _ := unstructured.NestedSlice(o.Object, "endpoints")
			n += len(e)
		}
		if number = len(all); n != want {
			return fmt.Errorf("%d endpoints in %d slices", n, number)
		}
		return nil
	})
	return number
}

// TestSlices: agents that learn of each other's pods from CiliumEndpointSlices, and an operator that makes these. Policy between nodes is
// as it is without them, also while the operator is away and after an agent or the operator has started anew.
func TestSlices(t *testing.T) {
	k, stop := startSlices(t)
	k.api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: clients, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}},
		ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: web}]}]}}`)
	web := k.pod("shop", "web", 0, "{app: web}")
	far, stranger, near := k.pod("shop", "far", 1, "{app: client}"), k.pod("shop", "stranger", 1, "{app: other}"), k.pod("shop", "near", 0, "{app: client}")
	k.reach("a client on the other node", far, web, true)
	k.reach("a client on the node", near, web, true)
	k.reach("no client", stranger, web, false)
	if n := k.slicesHave(4); n != 2 {
		t.Errorf("4 pods of a namespace are in %d slices of 2", n)
	}

	relabel := func(app string) {
		k.api.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: shop, labels: {app: %s}}, spec: {nodeName: node2, serviceAccountName: default, containers: [{name: c, image: i, ports: [{name: web, containerPort: %d}]}]}}`,
			app, workload.HTTPPort))
	}
	relabel("retired")
	k.reach("a client no more", far, web, false)
	relabel("client")
	k.reach("a client again", far, web, true)

	// Without the operator all is as it is, for an agent that starts, too.
	stop()
	k.api.Delete(t, "cilium.io/v2", "CiliumEndpoint", "shop", "far") // nobody hears of it
	if err := k.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Nodes[0].Launch(); err != nil {
		t.Fatal(err)
	}
	if err := k.Nodes[0].WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	k.reach("without the operator, a client", far, web, true)
	k.reach("without the operator, no client", stranger, web, false)
	k.operate(sliceOptions...)
	eventually(t, 3*yes, "CiliumEndpoint that was deleted", func() error {
		_, err := k.api.Get(t, "cilium.io/v2", "CiliumEndpoint", "shop", "far")
		return err
	})
	k.slicesHave(4)
	k.reach("with the next operator, a client", far, web, true)

	k.believes(0, far, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := k.Delete(ctx, far); err != nil {
		t.Fatal(err)
	}
	k.believes(0, far, false)
	k.believes(0, stranger, true)
	k.slicesHave(3)
	if err := errors.Join(k.Delete(ctx, stranger), k.Delete(ctx, near), k.Delete(ctx, web)); err != nil {
		t.Fatal(err)
	}
	if n := k.slicesHave(0); n != 0 {
		t.Errorf("%d slices are left", n)
	}
}
