package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// block makes a NetworkPolicy that lets nobody but the peers of one rule reach the web server.
func (k *kube) block(peers string) {
	k.t.Helper()
	k.api.Apply(k.t, fmt.Sprintf(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: blocks, namespace: shop},
		spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [%s]}]}}`, peers))
}

// only is blocks of a pod's addresses.
func only(p *cluster.Pod) string {
	return fmt.Sprintf(`{ipBlock: {cidr: %s/32}}, {ipBlock: {cidr: "%s/128"}}`, p.Addr(false), p.Addr(true))
}

// allBut is blocks of all addresses but a pod's.
func allBut(p *cluster.Pod) string {
	return fmt.Sprintf(`{ipBlock: {cidr: 0.0.0.0/0, except: [%s/32]}}, {ipBlock: {cidr: "::/0", except: ["%s/128"]}}`, p.Addr(false), p.Addr(true))
}

// TestBlocks: ipBlock of NetworkPolicies and networks of ClusterNetworkPolicies mean addresses, of pods and nodes too. Pods of the same
// labels are told apart by where they live, on either node, with and without agents.
func TestBlocks(t *testing.T) {
	k := startKube(t)
	k.api.InstallClusterPolicy(t)
	k.api.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop}}`)
	web := k.pod("shop", "web", 0, "{app: web}")
	near, far, twin := k.pod("shop", "near", 0, "{app: client}"), k.pod("shop", "far", 1, "{app: client}"), k.pod("shop", "twin", 1, "{app: client}")

	k.block(only(far))
	k.reach("the pod of the block", far, web, true)
	k.reach("its like on the other node", near, web, false)
	k.reach("its like on its node", twin, web, false)

	live := startStream(t, far.NS, web.Addr(false))
	if err := live.alive(yes); err != nil {
		t.Fatal(err)
	}
	k.block(allBut(far))
	eventually(t, yes, "the connection of who is cut out ends", func() error {
		if !live.silent(500 * time.Millisecond) {
			return fmt.Errorf("it passes messages")
		}
		return nil
	})
	k.reach("cut out", far, web, false)
	k.reach("in the block, on the node", near, web, true)
	k.reach("in the block, on the other node", twin, web, true)
	come := k.pod("shop", "come", 1, "{app: client}")
	k.reach("comes into the block", come, web, true)
	fresh := k.pod("shop", "fresh", 0, "{app: other}")
	k.reach("comes into the block, of new labels", fresh, web, true)

	as := func(what string) {
		t.Helper()
		k.reach(what+": cut out", far, web, false)
		k.reach(what+": in the block, on the node", near, web, true)
		k.reach(what+": in the block, on the other node", twin, web, true)
	}
	kept := startStream(t, near.NS, web.Addr(true))
	for _, n := range k.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	as("without agents")
	for _, n := range k.Nodes {
		if err := n.Start(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	as("agents that start")
	if err := kept.alive(yes); err != nil {
		t.Errorf("a connection over the restart: %v", err)
	}
	for want, from := range map[string]*cluster.Pod{"denied": far, "allowed": near} {
		out, err := k.Hypha(t.Context(), k.Nodes[0], "policy", "trace", from.Addr(false).String(), web.Addr(false).String(), "--port", "80")
		if !strings.Contains(strings.ToLower(out), want) {
			t.Errorf("policy trace of %s, want %s: %v\n%s", from.Name, want, err, out)
		}
	}

	k.api.Delete(t, "networking.k8s.io/v1", "NetworkPolicy", "shop", "blocks")
	k.reach("no policy", far, web, true)
	k.networks(web, near, far, twin)
}

// networks denies all addresses to clients, which have connections to pods and nodes.
func (k *kube) networks(web, near, far, twin *cluster.Pod) {
	t := k.t
	t.Helper()
	live := startStream(t, near.NS, web.Addr(false))
	node := func(ok bool) {
		t.Helper()
		for _, n := range k.Nodes {
			for _, to := range []netip.Addr{n.IP4, n.IP6} {
				eventually(t, 2*yes, "a node", func() error {
					if err := ping(near.NS, to, no); ok != (err == nil) {
						return fmt.Errorf("ping of %s: %w, want reached: %t", to, err, ok)
					}
					return nil
				})
			}
		}
	}
	node(true)
	k.api.Apply(t, `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: nowhere}, spec: {tier: Admin, priority: 10,
		subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}},
		egress: [{name: nowhere, action: Deny, to: [{networks: ["0.0.0.0/0", "::/0"]}]}]}}`)
	k.reach("to a pod of the node", near, web, false)
	k.reach("to a pod of the other node", near, twin, false)
	k.reach("from the other node", far, web, false)
	k.reach("not by a client", web, near, true)
	node(false)
	if !live.silent(500 * time.Millisecond) {
		t.Error("a connection still passes messages")
	}
	late := k.pod("shop", "late", 1, "{app: late}")
	k.reach("to a pod that comes", near, late, false)
	k.api.Delete(t, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", "nowhere")
	k.reach("allowed again", near, late, true)
	node(true)
	for _, n := range k.Nodes {
		for _, name := range []string{"area_v1", "class_at_v1"} {
			eventually(t, yes, name, func() error {
				if rows, err := n.Rows(t.Context(), name); err != nil || len(rows) > 0 {
					return fmt.Errorf("%v %w", rows, err)
				}
				return nil
			})
		}
	}
}
