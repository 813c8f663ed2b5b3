package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/operator/option"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// run runs an operator, with more options, until the function that it returns is called.
func run(t *testing.T, api *kubeapi.Server, more ...string) (stop func()) {
	t.Helper()
	o, err := option.Load(append([]string{"--k8s-kubeconfig-path=" + api.Kubeconfig, "--operator-prometheus-serve-addr=", "--operator-api-serve-addr=",
		"--cluster-pool-ipv4-cidr=10.0.0.0/23", "--identity-gc-interval=500ms", "--identity-heartbeat-timeout=1s", "--cilium-endpoint-gc-interval=500ms",
		"--nodes-gc-interval=500ms", "--unmanaged-pod-watcher-interval=1", "--set-cilium-node-taints"}, more...),
		func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("operator: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func condition(o *unstructured.Unstructured, kind string) string {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range all {
		if c := c.(map[string]any); c["type"] == kind {
			return fmt.Sprint(c["status"], " ", c["reason"])
		}
	}
	return ""
}

// agent is the pod of one.
func agent(name, node, ready string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: kube-system, labels: {k8s-app: cilium}}
spec: {nodeName: %s, hostNetwork: true, tolerations: [{operator: Exists}], containers: [{name: c, image: i}]}
status: {conditions: [{type: Ready, status: %q}]}
`, name, node, ready)
}

// TestCluster lets an operator serve a cluster, and then another one take over.
func TestCluster(t *testing.T) {
	api := kubeapi.Start(t)
	stop := run(t, api)
	kubeapi.Eventually(t, time.Minute, "definitions", func() error {
		_, err := api.Get(t, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "ciliumnodes.cilium.io")
		return err
	})
	const text = `apiVersion: cilium.io/v2
kind: CiliumNode
metadata: {name: n1}
spec: {}
---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: p}
spec: {blocks: [{cidr: 192.0.2.0/31}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: cilium.io/v2
kind: CiliumIdentity
metadata: {name: "300"}
security-labels: {"k8s:app": unused}
---
apiVersion: cilium.io/v2
kind: CiliumIdentity
metadata: {name: "301"}
security-labels: {"k8s:app": used}
---
apiVersion: cilium.io/v2
kind: CiliumEndpoint
metadata: {name: gone, namespace: default}
status: {identity: {id: 300}}
---
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: default}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: cilium.io/v2
kind: CiliumEndpoint
metadata: {name: here, namespace: default}
status: {identity: {id: 301}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: good, namespace: default}
spec: {endpointSelector: {}, ingress: [{}]}
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: wide}
specs: [{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: 8}, {type: EchoReply}]}]}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: typo, namespace: default}
spec: {endpointSelector: {matchLabel: {a: b}}, ingress: [{}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {taints: [{key: node.cilium.io/agent-not-ready, effect: NoExecute}, {key: other, effect: NoSchedule}]}
---
apiVersion: v1
kind: Node
metadata: {name: n0}
`
	kubeapi.Eventually(t, time.Minute, "objects", func() error { return api.Try(t.Context(), text) })
	api.Apply(t, agent("agent", "n1", "True"))
	api.Apply(t, agent("agent0", "n0", "False"))
	ranges := func(node, want string) {
		t.Helper()
		kubeapi.Eventually(t, 30*time.Second, "pod ranges", func() error {
			o, err := api.Get(t, "cilium.io/v2", "CiliumNode", "", node)
			if err != nil {
				return err
			}
			got, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "ipam", "podCIDRs")
			why, _, _ := unstructured.NestedString(o.Object, "status", "ipam", "operator-status", "error")
			if fmt.Sprint(got, why != "") != want {
				return fmt.Errorf("%v %q, want %s", got, why, want)
			}
			return nil
		})
	}
	service := func(name, want string) {
		t.Helper()
		kubeapi.Eventually(t, 30*time.Second, "service "+name, func() error {
			o, err := api.Get(t, "v1", "Service", "default", name)
			if err != nil {
				return err
			}
			in, _, _ := unstructured.NestedSlice(o.Object, "status", "loadBalancer", "ingress")
			got := condition(o, "cilium.io/IPAMRequestSatisfied")
			for _, i := range in {
				got += fmt.Sprint(" ", i.(map[string]any)["ip"])
			}
			if got != want {
				return fmt.Errorf("%s, want %s", got, want)
			}
			return nil
		})
	}
	ranges("n1", "[10.0.0.0/24] false")
	service("a", "True satisfied 192.0.2.0")
	taints := func(node, want, network string) {
		t.Helper()
		kubeapi.Eventually(t, 30*time.Second, "taints", func() error {
			o, err := api.Get(t, "v1", "Node", "", node)
			if err != nil {
				return err
			}
			all, _, _ := unstructured.NestedSlice(o.Object, "spec", "taints")
			var got []string
			for _, x := range all {
				if key := x.(map[string]any)["key"].(string); key != "node.kubernetes.io/not-ready" {
					got = append(got, key)
				}
			}
			if c := condition(o, "NetworkUnavailable"); c != network || fmt.Sprint(got) != want {
				return fmt.Errorf("taints %s, condition %s", got, c)
			}
			return nil
		})
	}
	taints("n1", "[other]", "False CiliumIsUp")
	taints("n0", "[node.cilium.io/agent-not-ready]", "")
	api.Apply(t, agent("agent0", "n0", "True"))
	taints("n0", "[]", "False CiliumIsUp")
	kubeapi.Eventually(t, 30*time.Second, "what nobody uses goes", func() error {
		if n := len(api.List(t, "cilium.io/v2", "CiliumIdentity").Items) + len(api.List(t, "cilium.io/v2", "CiliumEndpoint").Items); n != 2 {
			return fmt.Errorf("%d objects left", n)
		}
		return nil
	})
	if _, err := api.Get(t, "cilium.io/v2", "CiliumIdentity", "", "301"); err != nil {
		t.Error("identity in use:", err)
	}

	valid := func(kind, namespace, name, want string) {
		t.Helper()
		kubeapi.Eventually(t, 30*time.Second, "status of "+name, func() error {
			o, err := api.Get(t, "cilium.io/v2", kind, namespace, name)
			if err != nil {
				return err
			}
			if got := condition(o, "Valid"); got != want {
				return fmt.Errorf("%s, want %s", got, want)
			}
			return nil
		})
	}
	valid("CiliumNetworkPolicy", "default", "good", "True Understood")
	valid("CiliumClusterwideNetworkPolicy", "", "wide", "True Understood")
	valid("CiliumNetworkPolicy", "default", "typo", "False NotUnderstood")

	stop()
	api.Apply(t, "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: good, namespace: default}\nspec: {endpointSelector: {}, ingress: [{fromCIDR: [nonsense]}]}\n")
	api.Apply(t, "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: typo, namespace: default}\nspec: {endpointSelector: {matchLabels: {a: b}}, ingress: [{}]}\n")
	run(t, api)
	valid("CiliumNetworkPolicy", "default", "good", "False NotUnderstood")
	api.Apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: default}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n")
	service("b", "True satisfied 192.0.2.1")
	service("a", "True satisfied 192.0.2.0")
	api.Apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: default}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n")
	service("c", "False out_of_ips")
	for _, n := range []string{"n2", "n3"} {
		api.Apply(t, "apiVersion: v1\nkind: Node\nmetadata: {name: "+n+"}\n")
		api.Apply(t, "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: "+n+"}\nspec: {}\n")
		if n == "n2" {
			ranges("n2", "[10.0.1.0/24] false")
		}
	}
	ranges("n3", "[] true")
	ranges("n1", "[10.0.0.0/24] false")
	api.Delete(t, "v1", "Node", "", "n2")
	ranges("n3", "[10.0.1.0/24] false")
	restarts(t, api)
}

// restarts sees which pods of the cluster's DNS are started anew.
func restarts(t *testing.T, api *kubeapi.Server) {
	t.Helper()
	old, now := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339)
	pod := func(name, node, start, more string) {
		api.Apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+", namespace: kube-system, labels: {k8s-app: kube-dns}}\nspec: {nodeName: "+node+
			", containers: [{name: c, image: i}]"+more+"}\nstatus: {phase: Running, startTime: \""+start+"\"}\n")
	}
	api.Apply(t, "apiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {name: served, namespace: kube-system}\n")
	pod("served", "n1", old, "")
	pod("host", "n1", old, ", hostNetwork: true")
	pod("young", "n1", now, "")
	pod("elsewhere", "n3", old, "") // where there is no agent
	pod("alone", "n1", old, "")
	gone := func(name string) bool {
		o, err := api.Get(t, "v1", "Pod", "kube-system", name)
		return err != nil || o.GetDeletionTimestamp() != nil
	}
	kubeapi.Eventually(t, 20*time.Second, "restart", func() error {
		if !gone("alone") {
			return errors.New("the pod without an endpoint is left alone")
		}
		return nil
	})
	for _, name := range []string{"served", "host", "young", "elsewhere"} {
		if gone(name) {
			t.Errorf("pod %s restarted", name)
		}
	}
}
