package operator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// cep is a CiliumEndpoint.
func cep(namespace string, n, identity int) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumEndpoint
metadata: {name: e%03d, namespace: %s}
status: {id: 7, identity: {id: %d, labels: ["k8s:a=b"]}, networking: {node: 192.0.2.1, addressing: [{ipv4: 10.0.%d.%d}]}, named-ports: [{name: http, port: 80, protocol: TCP}], state: ready}
`, n, namespace, identity, len(namespace), n)
}

// sliced is where endpoints are, and what is wrong with the slices.
func sliced(t *testing.T, api *kubeapi.Server, most int) (at map[string]string, identity map[string]int64, err error) {
	t.Helper()
	at, identity = map[string]string{}, map[string]int64{}
	var errs []error
	for _, o := range api.List(t, "cilium.io/v2alpha1", "CiliumEndpointSlice").Items {
		namespace, _, _ := unstructured.NestedString(o.Object, "namespace")
		all, _, _ := unstructured.NestedSlice(o.Object, "endpoints")
		if len(all) == 0 || len(all) > most || !strings.HasPrefix(o.GetName(), "ces-") {
			errs = append(errs, fmt.Errorf("%s has %d endpoints", o.GetName(), len(all)))
		}
		for _, e := range all {
			e := e.(map[string]any)
			key := fmt.Sprint(namespace, "/", e["name"])
			if at[key] != "" {
				errs = append(errs, fmt.Errorf("%s is in %s and %s", key, at[key], o.GetName()))
			}
			at[key] = o.GetName()
			identity[key], _ = e["id"].(int64)
		}
	}
	return at, identity, errors.Join(errs...)
}

// TestSlices has an operator keep the slices of 250 endpoints of two namespaces, another one go on from there, and one delete them that
// does not keep any.
func TestSlices(t *testing.T) {
	api := kubeapi.Start(t)
	api.Install(t)
	api.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: other}}")
	wanted := map[string]int64{}
	put := func(namespace string, n, identity int) {
		api.Apply(t, cep(namespace, n, identity))
		wanted[fmt.Sprintf("%s/e%03d", namespace, n)] = int64(identity)
	}
	drop := func(namespace string, n int) {
		api.Delete(t, "cilium.io/v2", "CiliumEndpoint", namespace, fmt.Sprintf("e%03d", n))
		delete(wanted, fmt.Sprintf("%s/e%03d", namespace, n))
	}
	most := 30
	settled := func(what string) map[string]string {
		t.Helper()
		var at map[string]string
		kubeapi.Eventually(t, time.Minute, what, func() error {
			where, got, err := sliced(t, api, most)
			at = where
			if d := cmp.Diff(wanted, got); d != "" {
				return errors.Join(err, errors.New(d))
			}
			return err
		})
		return at
	}
	for n := range 120 {
		put("default", n, 300+n%5)
	}
	on := []string{"--enable-cilium-endpoint-slice", "--ces-max-ciliumendpoints-per-ces=30", "--cilium-endpoint-gc-interval=0", "--identity-gc-interval=0",
		`--ces-rate-limits=[{"nodes":0,"limit":50,"burst":100}]`}
	stop := run(t, api, on...)
	settled("slices of what was there")
	for n := range 130 {
		put("other", n, 300+n%5)
	}
	api.Apply(t, "{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: unnamed, namespace: default}, status: {networking: {node: 192.0.2.1, addressing: [{ipv4: 10.1.1.1}]}}}")
	api.Apply(t, "{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: nowhere, namespace: default}, status: {identity: {id: 300}, networking: {node: 192.0.2.1}}}")
	at := settled("slices of what came")
	if n := len(slices.Compact(slices.Sorted(maps.Values(at)))); n != 4+5 {
		t.Errorf("250 endpoints are in %d slices", n)
	}
	o, err := api.Get(t, "cilium.io/v2alpha1", "CiliumEndpointSlice", "", at["other/e007"])
	if err != nil {
		t.Fatal(err)
	}
	all, _, _ := unstructured.NestedSlice(o.Object, "endpoints")
	i := slices.IndexFunc(all, func(e any) bool { return e.(map[string]any)["name"] == "e007" })
	want := map[string]any{"name": "e007", "id": int64(302), "networking": map[string]any{"node": "192.0.2.1", "addressing": []any{map[string]any{"ipv4": "10.0.5.7"}}},
		"named-ports": []any{map[string]any{"name": "http", "port": int64(80), "protocol": "TCP"}}}
	if d := cmp.Diff(want, all[i]); d != "" {
		t.Error(d)
	}

	unmoved := func(what string, before, now map[string]string) {
		t.Helper()
		for k, was := range before {
			if _, there := wanted[k]; there && now[k] != was {
				t.Errorf("%s: %s moved from %s to %s", what, k, was, now[k])
			}
		}
	}
	for n := range 40 {
		drop("default", n)
	}
	put("default", 50, 999)
	put("default", 200, 301)
	now := settled("slices of what changed and went")
	unmoved("changes", at, now)

	// Somebody deletes a slice, empties another one, and makes one of his own.
	api.Delete(t, "cilium.io/v2alpha1", "CiliumEndpointSlice", "", now["other/e000"])
	api.Apply(t, fmt.Sprintf("{apiVersion: cilium.io/v2alpha1, kind: CiliumEndpointSlice, metadata: {name: %s}, namespace: default, endpoints: [{name: e060, id: 1}, {name: nobody, id: 2}]}", now["default/e060"]))
	api.Apply(t, "{apiVersion: cilium.io/v2alpha1, kind: CiliumEndpointSlice, metadata: {name: ces-mine}, namespace: default, endpoints: [{name: e061, id: 1}]}")
	at = settled("slices that somebody meddled with")
	unmoved("meddling", now, at)

	stop()
	drop("default", 50)
	put("other", 5, 888)
	put("other", 200, 302)
	stop = run(t, api, on...)
	now = settled("slices of the next operator")
	unmoved("another operator", at, now)

	stop()
	most, on[1] = 10, "--ces-max-ciliumendpoints-per-ces=10"
	stop = run(t, api, on...)
	settled("smaller slices")

	told, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cilium_operator_number_of_ceps_per_ces", "cilium_operator_number_of_cep_changes_per_ces", "cilium_operator_ces_sync_total", "cilium_operator_ces_queueing_delay_seconds"} {
		if !slices.ContainsFunc(told, func(f *dto.MetricFamily) bool { return f.GetName() == name && len(f.GetMetric()) > 0 }) {
			t.Errorf("no metric %s", name)
		}
	}

	// Turned off, slices are kept as long as an agent says that it reads them.
	stop()
	node := func(reads string) {
		api.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: n1, annotations: {network.hypha.io/endpoint-slices: "`+reads+`"}}, spec: {}}`)
	}
	api.Apply(t, "{apiVersion: v1, kind: Node, metadata: {name: n1}}")
	node("true")
	run(t, api, on[1:]...)
	drop("other", 1)
	put("default", 51, 998)
	settled("slices that an agent reads")
	node("false")
	kubeapi.Eventually(t, 30*time.Second, "slices that nobody keeps are gone", func() error {
		if n := len(api.List(t, "cilium.io/v2alpha1", "CiliumEndpointSlice").Items); n != 0 {
			return fmt.Errorf("%d slices", n)
		}
		return nil
	})
}

// TestSliceUses: an identity that only a slice has, which lags behind, is in use.
func TestSliceUses(t *testing.T) {
	api := kubeapi.Start(t)
	api.Install(t)
	identity := func(id string) {
		api.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "`+id+`"}, security-labels: {"k8s:app": a`+id+`}}`)
	}
	identity("300")
	api.Apply(t, cep("default", 0, 300))
	run(t, api, "--enable-cilium-endpoint-slice", "--cilium-endpoint-gc-interval=0", `--ces-rate-limits=[{"nodes":0,"limit":0.0001,"burst":1}]`)
	kubeapi.Eventually(t, 30*time.Second, "the slice", func() error {
		if _, got, err := sliced(t, api, 100); err != nil || got["default/e000"] != 300 {
			return fmt.Errorf("%v: %w", got, err)
		}
		return nil
	})
	api.Delete(t, "cilium.io/v2", "CiliumEndpoint", "default", "e000")
	identity("301")
	kubeapi.Eventually(t, 30*time.Second, "what nobody has goes", func() error {
		if _, err := api.Get(t, "cilium.io/v2", "CiliumIdentity", "", "301"); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	if _, got, err := sliced(t, api, 100); err != nil || got["default/e000"] != 300 {
		t.Errorf("the slice: %v %v", got, err)
	}
	if _, err := api.Get(t, "cilium.io/v2", "CiliumIdentity", "", "300"); err != nil {
		t.Error(err)
	}
}
