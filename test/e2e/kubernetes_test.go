package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// kube is a cluster whose state an API server keeps. There is neither kubelet nor controller: the test does what they do.
type kube struct {
	*cluster.Cluster
	t     *testing.T
	api   *kubeapi.Server
	front *kubeapi.Front
}

const frontAddr = "172.29.0.254:6443"

func startKube(t *testing.T) *kube { return startKubeWith(t, nil, map[string]any{}) }

// startKubeWith starts a cluster whose agents have more options, after something has been done to the API server.
func startKubeWith(t *testing.T, first func(*kube), options map[string]any) *kube {
	t.Helper()
	require(t)
	k := &kube{t: t, api: kubeapi.Start(t)}
	k.api.Install(t)
	if first != nil {
		first(k)
	}
	options["k8s-namespace"] = "kube-system"
	for i := 1; i <= 2; i++ {
		k.api.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Node, metadata: {name: node%[1]d, labels: {number: "%[1]d"}}, spec: {podCIDR: 10.10.%[1]d.0/24, podCIDRs: [10.10.%[1]d.0/24, "fd10::%[1]d00/120"]}}`, i))
	}
	k.api.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNodeConfig, metadata: {name: second, namespace: kube-system}, spec: {
		nodeSelector: {matchLabels: {number: "2"}}, defaults: {bpf-lb-algorithm: maglev, node-name: other, no-such: x}}}`)
	conf := filepath.Join(t.TempDir(), "kubeconfig")
	k.Cluster = startConfig(t, cluster.Config{Nodes: 2, IPv4: true, IPv6: true, Kubeconfig: conf, Options: options, Prepare: func(c *cluster.Cluster) error {
		l, err := c.World.Listen("tcp", frontAddr)
		if err == nil {
			k.front = k.api.Front(t, l, conf)
		}
		return err
	}})
	return k
}

// pod makes a pod as scheduler and kubelet do: the object first, the runtime then, which knows names only.
func (k *kube) pod(namespace, name string, node int, labels string) *cluster.Pod {
	k.t.Helper()
	k.api.Apply(k.t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: %s}, spec: {nodeName: node%d, serviceAccountName: default, containers: [{name: c, image: i, ports: [{name: web, containerPort: %d}]}]}}`,
		name, namespace, labels, node+1, workload.HTTPPort))
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	p, err := k.Add(ctx, cluster.PodSpec{Name: name, Namespace: namespace, Node: node, Labels: []string{"pretended=yes"}})
	if err != nil {
		k.t.Fatal(err)
	}
	return p
}

// reach says that one pod can, or cannot, fetch from another, from some time soon on.
func (k *kube) reach(what string, from, to *cluster.Pod, ok bool) {
	k.t.Helper()
	for _, v6 := range []bool{false, true} {
		eventually(k.t, 2*yes, what, func() error {
			_, err := fetch(from.NS, to.Addr(v6), workload.HTTPPort, no)
			switch {
			case ok:
				return err
			case !dropped(err):
				return fmt.Errorf("%s is not dropped: %w", family(v6), err)
			}
			return nil
		})
	}
}

// TestKubernetes: agents that have all from an API server and tell it all: identities, endpoints, policies, services. While it is away
// policy stays as it is and new pods are refused, also by an agent that starts meanwhile.
func TestKubernetes(t *testing.T) {
	k := startKube(t)
	k.api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: x}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other}}`)
	web := k.pod("shop", "web", 0, "{app: web}")
	near, far := k.pod("shop", "near", 0, "{app: client}"), k.pod("shop", "far", 1, "{app: client}")
	stranger := k.pod("other", "stranger", 1, "{app: client}")
	for _, from := range []*cluster.Pod{near, far, stranger} {
		k.reach("no policy, "+from.Name, from, web, true)
	}
	for i, want := range []string{"random", "maglev"} {
		if out, err := k.Hypha(t.Context(), k.Nodes[i], "config", "get", "bpf-lb-algorithm"); err != nil || !strings.Contains(out, want) {
			t.Errorf("options of node%d: %v\n%s", i+1, err, out)
		}
	}
	out, err := k.Hypha(t.Context(), k.Nodes[0], "endpoint", "list", "-o", "json")
	if err != nil || !strings.Contains(out, "k8s:app=web") || !strings.Contains(out, "k8s:io.cilium.k8s.namespace.labels.team=x") ||
		!strings.Contains(out, "k8s:io.cilium.k8s.policy.serviceaccount=default") || strings.Contains(out, "pretended") {
		t.Errorf("labels of the pods: %v\n%s", err, out)
	}
	if ep, err := k.api.Get(t, "cilium.io/v2", "CiliumEndpoint", "shop", "web"); err != nil || !strings.Contains(fmt.Sprint(ep.Object["status"]), web.Addr(true).String()) ||
		len(ep.GetOwnerReferences()) != 1 {
		t.Errorf("CiliumEndpoint: %v %v", ep, err)
	}

	k.api.Apply(t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: clients, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}},
		ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: web}]}]}}`)
	k.reach("of another namespace", stranger, web, false)
	k.reach("a client on the node", near, web, true)
	k.reach("a client on the other node", far, web, true)
	// The labels of a pod change, and those of a namespace come to count.
	k.api.Apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: shop, labels: {app: retired}}, spec: {nodeName: node2, serviceAccountName: default, containers: [{name: c, image: i, ports: [{name: web, containerPort: 80}]}]}}`)
	k.reach("a client no more", far, web, false)
	k.api.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: teams, namespace: shop}, spec: {endpointSelector: {matchLabels: {app: web}},
		ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.cilium.k8s.namespace.labels.team": "y"}}]}]}}`)
	k.api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {team: "y"}}}`)
	k.reach("of a team", stranger, web, true)

	k.api.Apply(t, `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.80, ports: [{port: 8000}]}}`)
	k.api.Apply(t, fmt.Sprintf(`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: %d}], endpoints: [{addresses: [%s], nodeName: node1}]}`,
		workload.HTTPPort, web.Addr(false)))
	vip := netip.MustParseAddr("10.96.0.80")
	for _, from := range []*cluster.Pod{near, stranger} {
		eventually(t, yes, "service, from "+from.Name, func() error { _, err := fetch(from.NS, vip, 8000, no); return err })
	}
	if out, err := k.Hypha(t.Context(), k.Nodes[1], "policy", "delete", "--all"); err == nil || !strings.Contains(out, "use kubectl") {
		t.Errorf("the agent's own command: %v %s", err, out)
	}

	k.apiServer(near)
	k.hostPort(near, web)
	k.localService(web, near, far)
	k.away(web, near, far, stranger)

	if err := k.Delete(t.Context(), web); err != nil {
		t.Error(err)
	}
	eventually(t, 2*yes, "CiliumEndpoint of a pod that is gone", func() error {
		if _, err := k.api.Get(t, "cilium.io/v2", "CiliumEndpoint", "shop", "web"); err == nil {
			return errors.New("is there")
		}
		return nil
	})
}

// apiServer: an API server outside, and one on a node, are who policies call kube-apiserver, as long as they are such.
func (k *kube) apiServer(client *cluster.Pod) {
	t := k.t
	t.Helper()
	outside, remote := netip.MustParseAddrPort(frontAddr), netip.AddrPortFrom(k.Nodes[1].IP4, 4240)
	l, err := k.Nodes[1].NS.Listen("tcp", remote.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	reach := func(what string, to netip.AddrPort, ok bool) {
		t.Helper()
		eventually(t, 3*yes, what, func() error {
			c, err := dialFor(client.NS, to, no)
			if err == nil {
				_ = c.Close()
			}
			switch {
			case ok:
				return err
			case !dropped(err):
				return fmt.Errorf("is not dropped: %w", err)
			}
			return nil
		})
	}
	const slice = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, ports: [{name: https, port: 6443}], endpoints: [{addresses: [%s]}]}`
	k.api.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: api, namespace: shop}, spec: {endpointSelector: {matchLabels: {app: client}}, egress: [{toEntities: [kube-apiserver]}]}}`)
	reach("nobody is an API server, outside", outside, false)
	reach("nobody is an API server, a node", remote, false)
	k.api.Apply(t, fmt.Sprintf(slice, outside.Addr()))
	reach("an API server outside", outside, true)
	reach("a node that is none", remote, false)
	out, err := k.Hypha(t.Context(), k.Nodes[0], "identity", "list")
	if err != nil || !strings.Contains(out, "cidr:"+outside.Addr().String()+"/32") || !strings.Contains(out, "reserved:kube-apiserver") {
		t.Errorf("identities: %v\n%s", err, out)
	}
	k.api.Apply(t, fmt.Sprintf(slice, remote.Addr()))
	reach("a node that is an API server", remote, true)
	reach("an API server no more", outside, false)
	k.api.Delete(t, "cilium.io/v2", "CiliumNetworkPolicy", "shop", "api")
	k.api.Delete(t, "discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes")
	reach("without the policy", outside, true)
}

// hostPort: a pod's ports at one address of its node are found there alone, by the node's processes and by pods.
func (k *kube) hostPort(pod, client *cluster.Pod) {
	t := k.t
	t.Helper()
	node := k.Nodes[0]
	const at, loop = 8081, 8082
	k.api.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: ports, namespace: shop}, spec: {nodeName: node1, containers: [
		{name: a, image: i, ports: [{containerPort: %[1]d, hostPort: %[2]d, hostIP: %[3]s}]}, {name: b, image: i, ports: [{containerPort: %[1]d, hostPort: %[4]d, hostIP: 127.0.0.1}]},
		{name: c, image: i, ports: [{containerPort: %[1]d, hostPort: 8083, hostIP: %[5]s}]}]}, status: {phase: Running, podIP: %[6]s, podIPs: [{ip: %[6]s}]}}`,
		workload.HTTPPort, at, node.IP4, loop, k.Nodes[1].IP4, pod.Addr(false)))
	eventually(t, 2*yes, "host port at the node's address", func() error { _, err := fetch(client.NS, node.IP4, at, no); return err })
	eventually(t, 2*yes, "host port at the node's address, from outside", func() error { _, err := fetch(k.World, node.IP4, at, no); return err })
	if _, err := fetch(client.NS, node.IP4, loop, no); err == nil {
		t.Error("a port of the node's loopback is open to pods")
	}
	eventually(t, yes, "what is another node's is refused", func() error {
		out, err := k.Hypha(t.Context(), node, "status")
		if !strings.Contains(out, "8083") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	k.api.Delete(t, "v1", "Pod", "shop", "ports")
}

// localService: traffic policies Local, what is published before it is ready, and the port by which load balancers know.
func (k *kube) localService(web, near, far *cluster.Pod) {
	t := k.t
	t.Helper()
	k.api.Apply(t, `{apiVersion: v1, kind: Service, metadata: {name: near, namespace: shop}, spec: {type: LoadBalancer, clusterIP: 10.96.0.81, internalTrafficPolicy: Local,
		externalTrafficPolicy: Local, healthCheckNodePort: 31999, publishNotReadyAddresses: true, ports: [{port: 8000, nodePort: 31998}]}}`)
	slice := func(conditions string) {
		k.api.Apply(t, fmt.Sprintf(`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: near-1, namespace: shop, labels: {kubernetes.io/service-name: near}}, addressType: IPv4, ports: [{port: %d}], endpoints: [{addresses: [%s], nodeName: node1, conditions: %s}]}`,
			workload.HTTPPort, web.Addr(false), conditions))
	}
	vip := netip.MustParseAddr("10.96.0.81")
	healthy := func(node int, want string) {
		t.Helper()
		n := k.Nodes[node]
		eventually(t, 2*yes, "health-check node port of "+n.Name, func() error {
			out, err := fetch(k.World, n.IP4, 31999, yes)
			if text := fmt.Sprint(out, err); !strings.Contains(text, want) {
				return fmt.Errorf("%s, want %s", text, want)
			}
			return nil
		})
	}
	slice("{ready: true, serving: false}") // as the controller writes what is published not ready
	eventually(t, 2*yes, "from the node of the backend", func() error { _, err := fetch(near.NS, vip, 8000, no); return err })
	if _, err := fetch(far.NS, vip, 8000, no); err == nil {
		t.Error("another node has no backend of its own and sends on")
	}
	healthy(0, `"localEndpoints": 1`)
	healthy(1, "503")
	slice("{ready: false}")
	healthy(0, "503")
	k.api.Delete(t, "v1", "Service", "shop", "near")
	k.api.Delete(t, "discovery.k8s.io/v1", "EndpointSlice", "shop", "near-1")
}

// away takes the API server away for a while.
func (k *kube) away(web, near, far, stranger *cluster.Pod) {
	t := k.t
	t.Helper()
	k.api.Apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: late, namespace: shop, labels: {app: unheard}}, spec: {nodeName: node1, containers: [{name: c, image: i}]}}`)
	k.front.Close()
	as := func(what string) {
		t.Helper()
		k.reach(what+": a client", near, web, true)
		k.reach(what+": a client no more", far, web, false)
		k.reach(what+": of a team", stranger, web, true)
	}
	eventually(t, 2*yes, "status", func() error {
		out, err := k.Hypha(t.Context(), k.Nodes[0], "status")
		if !strings.Contains(out, "last known state stays in force") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	as("away")
	late, err := k.Prepare(cluster.PodSpec{Name: "late", Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	if err := k.Attach(ctx, late); err == nil || time.Since(begun) > 6*time.Second {
		t.Errorf("a new pod of new labels, after %s: %v", time.Since(begun), err)
	}
	if err := k.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	as("without the agent")
	if err := k.Nodes[0].Launch(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*yes, "an agent starts without the API server", func() error {
		_, err := k.Nodes[0].Status(t.Context())
		return err
	})
	as("an agent that starts")
	l, err := k.World.Listen("tcp", frontAddr)
	if err != nil {
		t.Fatal(err)
	}
	k.front.Open(l)
	if err := k.Nodes[0].WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	as("back")
	eventually(t, 3*yes, "the new pod", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return k.Attach(ctx, late)
	})
	k.api.Delete(t, "cilium.io/v2", "CiliumNetworkPolicy", "shop", "teams")
	k.reach("a policy less", stranger, web, false)
}
