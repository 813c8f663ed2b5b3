package k8s

import (
	"maps"
	"testing"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

func TestOptionsFor(t *testing.T) {
	var all []ciliumv2.CiliumNodeConfig
	for _, text := range []string{
		`{metadata: {name: z}, spec: {nodeSelector: {matchLabels: {kind: edge}}, defaults: {debug: "true", mtu: "9000"}}}`,
		`{metadata: {name: a}, spec: {nodeSelector: {}, defaults: {mtu: "1400", devices: eth0}}}`,
		`{metadata: {name: b}, spec: {nodeSelector: {matchExpressions: [{key: kind, operator: DoesNotExist}]}, defaults: {mtu: "1300"}}}`,
		`{metadata: {name: c}, spec: {nodeSelector: null, defaults: {mtu: "1"}}}`,
	} {
		var c ciliumv2.CiliumNodeConfig
		read(t, text, &c)
		all = append(all, c)
	}
	for labels, want := range map[string]map[string]string{
		"edge": {"debug": "true", "mtu": "9000", "devices": "eth0"}, "core": {"mtu": "1400", "devices": "eth0"}, "": {"mtu": "1300", "devices": "eth0"},
	} {
		node := map[string]string{"kind": labels}
		if labels == "" {
			node = nil
		}
		if got, err := optionsFor(all, node); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v %v, want %v", labels, got, err, want)
		}
	}
	read(t, `{metadata: {name: d}, spec: {nodeSelector: {matchExpressions: [{key: kind, operator: Like}]}, defaults: {a: b}}}`, &all[3])
	if got, err := optionsFor(all, nil); err == nil {
		t.Errorf("a selector that cannot be read: %v", got)
	}
}

func testNodeConfig(t *testing.T, srv *kubeapi.Server) {
	cfg := Config{NodeName: "n7", Kubeconfig: srv.Kubeconfig}
	options := func(want map[string]string) {
		t.Helper()
		if got, err := NodeOptions(t.Context(), cfg, "kube-system"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
	}
	options(nil)
	srv.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: n7, labels: {kind: edge}}}
---
{apiVersion: cilium.io/v2, kind: CiliumNodeConfig, metadata: {name: edge, namespace: kube-system}, spec: {nodeSelector: {matchLabels: {kind: edge}}, defaults: {debug: "true"}}}
---
{apiVersion: cilium.io/v2, kind: CiliumNodeConfig, metadata: {name: edge, namespace: default}, spec: {nodeSelector: {}, defaults: {debug: "false"}}}`)
	options(map[string]string{"debug": "true"})
	srv.Delete(t, "cilium.io/v2", "CiliumNodeConfig", "kube-system", "edge")
	options(nil)
}
