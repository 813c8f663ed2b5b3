package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/operator"
	"github.com/hypha-net/hypha/internal/operator/option"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// startPools is a cluster whose pods have their addresses of CiliumPodIPPools, which an operator gives nodes blocks of.
func startPools(t *testing.T) (*kube, func()) {
	t.Helper()
	require(t)
	k := &kube{t: t, api: kubeapi.Start(t)}
	k.api.Install(t)
	k.api.Apply(t, "{apiVersion: v1, kind: Node, metadata: {name: node1}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: node2}}")
	stop := k.operate(poolOptions...)
	conf := filepath.Join(t.TempDir(), "kubeconfig")
	k.Cluster = startConfig(t, cluster.Config{Nodes: 2, IPv4: true, IPv6: true, Kubeconfig: conf, Options: map[string]any{"ipam": "multi-pool"},
		Prepare: func(c *cluster.Cluster) error {
			l, err := c.World.Listen("tcp", frontAddr)
			if err == nil {
				k.front = k.api.Front(t, l, conf)
			}
			return err
		}})
	return k, stop
}

// poolOptions are those of an operator that gives nodes blocks.
var poolOptions = []string{"--ipam=multi-pool", "--auto-create-cilium-pod-ip-pools=default=ipv4-cidrs:10.30.0.0/24;ipv4-mask-size:28;ipv6-cidrs:fd30::/112;ipv6-mask-size:124"}

// operate runs an operator, with more options, until it is stopped.
func (k *kube) operate(more ...string) (stop func()) {
	k.t.Helper()
	o, err := option.Load(append([]string{"--k8s-kubeconfig-path=" + k.api.Kubeconfig, "--operator-prometheus-serve-addr=", "--operator-api-serve-addr=", "--enable-ipv6"}, more...),
		func(string) string { return "" })
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- operator.Run(ctx, o, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			k.t.Errorf("operator: %v", err)
		}
	})
	k.t.Cleanup(stop)
	return stop
}

// blocks are what a node's object says that it has of a pool.
func (k *kube) blocks(node, pool string) (out []netip.Prefix) {
	k.t.Helper()
	o, err := k.api.Get(k.t, "cilium.io/v2", "CiliumNode", "", node)
	if err != nil {
		k.t.Fatal(err)
	}
	all, _, _ := unstructured.NestedSlice(o.Object, "spec", "ipam", "pools", "allocated")
	for _, a := range all {
		if a := a.(map[string]any); a["pool"] == pool {
			texts, _, _ := unstructured.NestedStringSlice(a, "cidrs")
			for _, s := range texts {
				out = append(out, netip.MustParsePrefix(s))
			}
		}
	}
	return out
}

func within(p *cluster.Pod, blocks []netip.Prefix) bool {
	for _, v6 := range []bool{false, true} {
		if !slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Contains(p.Addr(v6)) }) {
			return false
		}
	}
	return true
}

// refused attaches a pod that cannot be.
func (k *kube) refused(name, annotations, want string) {
	k.t.Helper()
	k.api.Apply(k.t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: blue, annotations: %s}, spec: {nodeName: node1, containers: [{name: c, image: i}]}}`, name, annotations))
	eventually(k.t, 2*yes, name, func() error {
		p, err := k.Prepare(cluster.PodSpec{Name: name, Namespace: "blue"})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		err = k.Attach(ctx, p)
		_ = k.Delete(context.WithoutCancel(ctx), p)
		if err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("%w, want %q", err, want)
		}
		if took := time.Since(begun); took > 6*time.Second {
			return fmt.Errorf("refused after %s", took)
		}
		return nil
	})
	k.api.Delete(k.t, "v1", "Pod", "blue", name)
}

// TestPools: two pools, of which nodes get blocks as they need them; pods talk whatever pool and node they are of. A pool that is full,
// gone, or was never there refuses pods and says why; an agent that starts anew goes on with what it had; a block that nobody uses goes back.
func TestPools(t *testing.T) {
	k, stop := startPools(t)
	k.api.Apply(t, `{apiVersion: cilium.io/v2alpha1, kind: CiliumPodIPPool, metadata: {name: blue}, spec: {ipv4: {cidrs: [10.40.0.0/28], maskSize: 30}, ipv6: {cidrs: ["fd40::/112"], maskSize: 124}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: blue, annotations: {ipam.cilium.io/ip-pool: blue}}}`)
	plain := k.pod("default", "plain", 0, "{app: plain}")
	b1, b2 := k.pod("blue", "b1", 0, "{app: blue}"), k.pod("blue", "b2", 1, "{app: blue}")
	for node, p := range map[string]*cluster.Pod{"node1": b1, "node2": b2} {
		if blocks := k.blocks(node, "blue"); !within(p, blocks) {
			t.Errorf("%s has %s and %s, of the node's %v", p.Name, p.Addr(false), p.Addr(true), blocks)
		}
	}
	if blocks := k.blocks("node1", "default"); !within(plain, blocks) || within(b1, blocks) {
		t.Errorf("plain has %s, b1 %s, the default pool's blocks are %v", plain.Addr(false), b1.Addr(false), blocks)
	}
	talk := func(when string) {
		t.Helper()
		k.reach(when+": across nodes", b1, b2, true)
		k.reach(when+": back", b2, b1, true)
		k.reach(when+": across pools", plain, b2, true)
		k.reach(when+": on a node", b1, plain, true)
	}
	talk("at first")
	out, err := k.Hypha(t.Context(), k.Nodes[0], "endpoint", "get", "ipv4:"+b1.Addr(false).String(), "-o", "json")
	if err != nil || !strings.Contains(out, `"ipv4Pool": "blue"`) || !strings.Contains(out, `"ipv6Pool": "blue"`) {
		t.Errorf("pools of an endpoint: %v\n%s", err, out)
	}
	k.refused("stray", "{ipam.cilium.io/ip-pool: green}", `no CiliumPodIPPool "green"`)

	// Four blocks of two addresses.
	for i := range 5 {
		k.pod("blue", fmt.Sprint("more", i), 0, "{app: more}")
	}
	k.refused("late", "{}", `10.40.0.0/28 has no free /30 left`)
	out, err = k.Hypha(t.Context(), k.Nodes[0], "status", "--verbose")
	if !strings.Contains(out, "blue 10.40.0.") {
		t.Errorf("status: %v\n%s", err, out)
	}

	k.api.Delete(t, "cilium.io/v2alpha1", "CiliumPodIPPool", "", "blue")
	k.refused("orphan", "{}", `no CiliumPodIPPool "blue"`)
	talk("without their pool")
	if err := k.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	// Who deletes a node's object takes nothing from it.
	k.api.Delete(t, "cilium.io/v2", "CiliumNode", "", "node1")
	stop()
	k.operate(poolOptions...)
	if err := k.Nodes[0].Launch(); err != nil {
		t.Fatal(err)
	}
	if err := k.Nodes[0].WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	talk("after a restart")
	eventually(t, 3*yes, "the blocks of a node whose object was deleted", func() error {
		if blocks := k.blocks("node1", "blue"); !within(b1, blocks) {
			return fmt.Errorf("%v", blocks)
		}
		return nil
	})
	after := k.pod("default", "after", 0, "{app: after}")
	k.reach("a new pod", after, b2, true)

	if err := k.Delete(t.Context(), b2); err != nil {
		t.Fatal(err)
	}
	eventually(t, 90*time.Second, "blocks that nobody uses", func() error {
		if blocks := k.blocks("node2", "blue"); len(blocks) > 0 {
			return fmt.Errorf("node2 still has %v", blocks)
		}
		return nil
	})
	if blocks := k.blocks("node1", "blue"); !within(b1, blocks) {
		t.Errorf("blocks in use: %v", blocks)
	}
}
