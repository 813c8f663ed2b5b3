package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

const limit = 30 * time.Second

// open makes a node's store.
func open(t *testing.T, srv *kubeapi.Server, node, addr string) *Store {
	t.Helper()
	return openWith(t, srv.Kubeconfig, node, addr)
}

func openWith(t *testing.T, kubeconfig, node, addr string, more ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{NodeName: node, ClusterName: "default", Kubeconfig: kubeconfig, IPAM: IPAMKubernetes, Paths: paths.For(t.TempDir(), node),
		Addrs: []netip.Addr{netip.MustParseAddr(addr)}, IPv4: true, QPS: 200}
	for _, set := range more {
		set(&cfg)
	}
	s, err := Open(t.Context(), cfg, Deps{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	kubeapi.Eventually(t, limit, what, func() error {
		if !ok() {
			return errors.New("not so")
		}
		return nil
	})
}

// Everything against a real API server, which takes seconds to start: so it is started once.
func TestStore(t *testing.T) {
	srv := kubeapi.Start(t)
	n1, n2 := open(t, srv, "n1", "192.0.2.1"), open(t, srv, "n2", "192.0.2.2")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := n1.Ready(short); err == nil {
		t.Error("ready without the resources")
	}
	if n1.policies.Snapshot().Complete || n1.identities.Table().Snapshot().Complete() {
		t.Error("complete without the resources")
	}
	srv.Install(t)
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := errors.Join(n1.Ready(ready), n2.Ready(ready)); err != nil {
		t.Fatal(err)
	}
	t.Run("nodes", func(t *testing.T) { testNodes(t, srv, n1, n2) })
	t.Run("cluster pool", func(t *testing.T) { testClusterPool(t, srv) })
	t.Run("identities", func(t *testing.T) { testIdentities(t, srv, n1, n2) })
	t.Run("endpoints", func(t *testing.T) { testEndpoints(t, srv, n1, n2) })
	t.Run("policies", func(t *testing.T) { testPolicies(t, srv, n1, n2) })
	t.Run("services", func(t *testing.T) { testServices(t, srv, n1, n2) })
	t.Run("pods", func(t *testing.T) { testPods(t, srv, n1) })
	t.Run("watches", func(t *testing.T) { testWatches(t, srv) })
	t.Run("node config", func(t *testing.T) { testNodeConfig(t, srv) })
	t.Run("gap", func(t *testing.T) { testGap(t, srv) })
	t.Run("away", func(t *testing.T) { testAway(t, srv, n1) })
}

func testNodes(t *testing.T, srv *kubeapi.Server, n1, n2 *Store) {
	if _, err := n1.PodCIDRs(t.Context()); !errors.Is(err, state.ErrUnreachable) {
		t.Errorf("pod ranges without a Node: %v", err)
	}
	srv.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}, spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, "fd00:1::/64"]}}`)
	eventually(t, "pod ranges", func() bool {
		got, err := n1.PodCIDRs(t.Context())
		return err == nil && slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")})
	})
	self := model.Node{Name: "n1", Cluster: "default", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		Routers: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, FlowAddr: "192.0.2.1:4244", BootID: "b"}
	if err := n1.Nodes().Publish(self); err != nil {
		t.Fatal(err)
	}
	want := self
	want.Labels = model.NewLabels(model.Label{Source: model.SourceNode, Key: "zone", Value: "a"})
	there := func() error {
		got, _ := n2.Nodes().Table().Get("n1")
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			return errors.New(d)
		}
		return nil
	}
	kubeapi.Eventually(t, limit, "published node", there)
	o, err := srv.Get(t, "cilium.io/v2", "CiliumNode", "", "n1")
	if err != nil || len(o.GetOwnerReferences()) != 1 || o.GetOwnerReferences()[0].Kind != "Node" {
		t.Errorf("%v %v", o, err)
	}
	srv.Delete(t, "cilium.io/v2", "CiliumNode", "", "n1")
	eventually(t, "deleted node is back", func() bool {
		n, err := srv.Get(t, "cilium.io/v2", "CiliumNode", "", "n1")
		return err == nil && n.GetUID() != o.GetUID()
	})
	kubeapi.Eventually(t, limit, "deleted node is back", there)
	srv.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: b}}, spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, "fd00:1::/64"]}}`)
	want.Labels = model.NewLabels(model.Label{Source: model.SourceNode, Key: "zone", Value: "b"})
	kubeapi.Eventually(t, limit, "changed labels", there)
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: greedy}, spec: {addresses: [{type: InternalIP, ip: 192.0.2.9}], ipam: {podCIDRs: [0.0.0.0/0]}}}`)
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: other}, spec: {addresses: [{type: InternalIP, ip: 192.0.2.8}]}}`)
	eventually(t, "another node", func() bool { _, ok := n1.Nodes().Table().Get("other"); return ok })
	if n, ok := n1.Nodes().Table().Get("greedy"); ok {
		t.Errorf("a node that claims everything: %+v", n)
	}
}

// testClusterPool: the operator answers a CiliumNode that the agent has made, and the agent leaves the answer there.
func testClusterPool(t *testing.T, srv *kubeapi.Server) {
	n4 := openWith(t, srv.Kubeconfig, "n4", "192.0.2.4")
	n4.cfg.IPAM = IPAMClusterPool
	srv.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: n4}, spec: {podCIDR: 10.4.0.0/24, podCIDRs: [10.4.0.0/24]}}`)
	if got, err := n4.PodCIDRs(t.Context()); !errors.Is(err, state.ErrUnreachable) {
		t.Errorf("before the operator has answered: %v %v", got, err)
	}
	eventually(t, "the question", func() bool { _, err := srv.Get(t, "cilium.io/v2", "CiliumNode", "", "n4"); return err == nil })
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: n4}, spec: {ipam: {podCIDRs: [10.44.0.0/24]}}}`)
	want := []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24")}
	eventually(t, "the answer", func() bool { got, err := n4.PodCIDRs(t.Context()); return err == nil && slices.Equal(got, want) })
	if err := n4.Nodes().Publish(model.Node{Name: "n4", Addrs: n4.cfg.Addrs, PodCIDRs: want, Routers: []netip.Addr{netip.MustParseAddr("10.44.0.1")}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published with what the operator said", func() bool {
		n, _ := n4.Nodes().Table().Get("n4")
		return slices.Equal(n.PodCIDRs, want) && len(n.Routers) == 1
	})
}

func labels(t *testing.T, ss ...string) model.Labels {
	t.Helper()
	ls, err := model.ParseLabels(ss, model.SourceK8s)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func testIdentities(t *testing.T, srv *kubeapi.Server, n1, n2 *Store) {
	// Both nodes ask for the same twenty sets at once.
	got := [2][20]model.IdentityID{}
	var wg sync.WaitGroup
	for i, s := range []*Store{n1, n2} {
		for j := range got[i] {
			wg.Go(func() {
				id, _, err := s.Identities().AllocateHint(t.Context(), labels(t, fmt.Sprintf("app=%d", j), "io.kubernetes.pod.namespace=ns"), 0)
				if err != nil {
					t.Error(err)
				}
				got[i][j] = id
			})
		}
	}
	wg.Wait()
	seen := map[model.IdentityID]bool{}
	for j := range got[0] {
		if got[0][j] != got[1][j] || seen[got[0][j]] || got[0][j] < model.IdentityClusterMin || got[0][j] > model.IdentityClusterMax {
			t.Errorf("set %d: %d and %d", j, got[0][j], got[1][j])
		}
		seen[got[0][j]] = true
	}
	id := got[0][0]
	o, err := srv.Get(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id))
	if err != nil {
		t.Fatal(err)
	}
	if m, _, _ := unstructured.NestedStringMap(o.Object, "security-labels"); m["k8s:app"] != "0" || o.GetLabels()["io.kubernetes.pod.namespace"] != "ns" {
		t.Errorf("%v %v", m, o.GetLabels())
	}
	srv.Delete(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id))
	eventually(t, "number in use that was deleted is back", func() bool {
		n, err := srv.Get(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id))
		return err == nil && n.GetUID() != o.GetUID()
	})
	if _, ok := n1.Identities().Table().Get(id); !ok {
		t.Error("its row was gone")
	}
	mark := func(id model.IdentityID) {
		srv.Apply(t, fmt.Sprintf(`{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "%d", annotations: {io.cilium.heartbeat: now}}, security-labels: {"k8s:app": x%d}}`, id, id))
	}
	kept := func(id model.IdentityID) {
		t.Helper()
		eventually(t, "the mark of a number in use is gone", func() bool {
			o, err := srv.Get(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(id))
			return err == nil && o.GetAnnotations()["io.cilium.heartbeat"] == ""
		})
	}
	mark(60000)
	eventually(t, "a marked number", func() bool { _, ok := n1.Identities().Table().Get(60000); return ok })
	if id, _, err := n1.Identities().AllocateHint(t.Context(), labels(t, "app=x60000"), 0); id != 60000 || err != nil {
		t.Errorf("a marked number: %d %v", id, err)
	}
	kept(60000)
	mark(60000)
	kept(60000)
	if err := srv.Try(t.Context(), `{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "60000"}, security-labels: {"k8s:app": other}}`); err == nil {
		t.Error("an identity gets other labels")
	}
	last := got[0][19]
	for _, s := range []*Store{n1, n2} {
		if err := s.Identities().Release(last); err != nil {
			t.Error(err)
		}
	}
	if err := n1.Identities().Release(last); !errors.Is(err, ErrNotHeld) {
		t.Errorf("released twice: %v", err)
	}
	srv.Delete(t, "cilium.io/v2", "CiliumIdentity", "", fmt.Sprint(last))
	eventually(t, "unused number is gone", func() bool { _, ok := n1.Identities().Table().Get(last); return !ok })
	for number, security := range map[string]string{"1": `{"k8s:a": b}`, "70000": `{"k8s:a": b}`, "300": `{"reserved:host": ""}`, "301": `{"k8s:a": "b;k8s:c=d"}`, "302": `{"a": b}`, "x": `{"k8s:a": b}`} {
		srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "`+number+`"}, security-labels: `+security+`}`)
	}
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "303"}, security-labels: {"k8s:a": good}}`)
	eventually(t, "somebody else's number", func() bool { _, ok := n1.Identities().Table().Get(303); return ok })
	for _, bad := range []model.IdentityID{1, 70000, 300, 301, 302} {
		if row, ok := n1.Identities().Table().Get(bad); ok {
			t.Errorf("believed: %+v", row)
		}
	}
	if id, isNew, err := n1.Identities().AllocateHint(t.Context(), labels(t, "a=good"), 400); id != 303 || isNew || err != nil {
		t.Errorf("known labels: %d %v %v", id, isNew, err)
	}
	if id, isNew, err := n1.Identities().AllocateHint(t.Context(), labels(t, "a=hinted"), 400); id != 400 || !isNew || err != nil {
		t.Errorf("hint: %d %v %v", id, isNew, err)
	}
	if id, _, err := n1.Identities().AllocateHint(t.Context(), labels(t, "a=late"), 303); id == 303 || err != nil {
		t.Errorf("a hint that is others': %d %v", id, err)
	}
}

func testEndpoints(t *testing.T, srv *kubeapi.Server, n1, n2 *Store) {
	e := model.Endpoint{ID: 7, Name: "web-0", Namespace: "default", ContainerID: "c", IfName: "eth0", IPv4: netip.MustParseAddr("10.1.0.5"), IPv6: netip.MustParseAddr("fd00::5"),
		Labels: labels(t, "app=web"), Identity: 400, NamedPorts: []model.NamedPort{{Name: "http", Port: 80, Proto: 6}}}
	if err := n1.Endpoints().Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParsePrefix("10.1.0.5/32")
	want := model.IPEntry{Prefix: at, Identity: 400, Tunnel: netip.MustParseAddr("192.0.2.1"), Source: model.IPSourceCustomResource, NoMasq: true,
		Name: "web-0", Namespace: "default", NamedPorts: e.NamedPorts}
	is := func(want *model.IPEntry) func() bool {
		return func() bool {
			got, ok := n2.Endpoints().Table().Get(at)
			if want == nil {
				return !ok
			}
			return cmp.Equal(*want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
		}
	}
	eventually(t, "published address", is(&want))
	if _, ok := n2.Endpoints().Table().Get(netip.MustParsePrefix("fd00::5/128")); !ok {
		t.Error("no IPv6 address")
	}
	if _, ok := n1.Endpoints().Table().Get(at); ok {
		t.Error("own address in the table of others'")
	}
	srv.Delete(t, "cilium.io/v2", "CiliumEndpoint", "default", "web-0")
	eventually(t, "deleted endpoint is back", func() bool {
		_, err := srv.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web-0")
		return err == nil
	})
	eventually(t, "deleted endpoint is back", is(&want))
	e.Identity, want.Identity = 303, 303
	if err := n1.Endpoints().Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another identity", is(&want))

	// Another pod gets the address before the old one's object is gone: it has it, and keeps it.
	time.Sleep(time.Second) // ages are in seconds
	next := e
	next.Name, next.Identity = "web-1", 400
	if err := n1.Endpoints().Publish(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	wantNext := want
	wantNext.Name, wantNext.Identity = "web-1", 400
	eventually(t, "the younger one", is(&wantNext))
	n1.Endpoints().Withdraw(e)
	eventually(t, "the older one is withdrawn", func() bool {
		_, err := srv.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web-0")
		return err != nil
	})
	if !is(&wantNext)() {
		t.Error("with the older one the address is gone")
	}

	// A pod of the same name starts on the other node before this one has taken its back.
	moved := next
	moved.IPv4, moved.IPv6 = netip.MustParseAddr("10.2.0.5"), netip.Addr{}
	if err := n2.Endpoints().Publish(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	eventually(t, "moved", func() bool {
		r, _ := n1.Endpoints().Table().Get(netip.MustParsePrefix("10.2.0.5/32"))
		return r.Tunnel == netip.MustParseAddr("192.0.2.2")
	})
	n1.Endpoints().Withdraw(next)
	eventually(t, "nothing pending", func() bool { return n1.Status().Pending == 0 && n2.Status().Pending == 0 })
	if _, err := srv.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web-1"); err != nil {
		t.Errorf("the other node's: %v", err)
	}

	// An agent that starts again finds out what is left of it.
	if err := n1.Endpoints().Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published again", is(&want))
	again := open(t, srv, "n1", "192.0.2.1")
	keep := e
	keep.Name, keep.IPv4, keep.IPv6 = "kept", netip.MustParseAddr("10.1.0.9"), netip.Addr{}
	n1.Endpoints().writer.mu.Lock()
	clear(n1.Endpoints().writer.want)
	n1.Endpoints().writer.mu.Unlock()
	if err := again.Endpoints().Replace([]model.Endpoint{keep}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is left is withdrawn", is(nil))
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: liar, namespace: default}, status: {identity: {id: 1}, networking: {node: 192.0.2.9, addressing: [{ipv4: 10.9.0.1}]}}}`)
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: other, namespace: default}, status: {identity: {id: 303}, networking: {node: 192.0.2.9, addressing: [{ipv4: 10.9.0.2}]}}}`)
	eventually(t, "somebody else's", func() bool { _, ok := n2.Endpoints().Table().Get(netip.MustParsePrefix("10.9.0.2/32")); return ok })
	if e, ok := n2.Endpoints().Table().Get(netip.MustParsePrefix("10.9.0.1/32")); ok {
		t.Errorf("believed to be the host: %+v", e)
	}
}

func testPolicies(t *testing.T, srv *kubeapi.Server, n1, n2 *Store) {
	keys := func(s *Store) (out []string) {
		for _, p := range s.Policies().Snapshot().Policies.All() {
			out = append(out, p.Key)
		}
		return out
	}
	are := func(want ...string) {
		t.Helper()
		for _, s := range []*Store{n1, n2} {
			kubeapi.Eventually(t, limit, "policies", func() error {
				if d := cmp.Diff(want, keys(s)); d != "" {
					return errors.New(d)
				}
				return nil
			})
		}
	}
	if n1.Policies().Snapshot().Revision == 0 {
		t.Error("no revision")
	}
	srv.Apply(t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np, namespace: default}, spec: {podSelector: {}}}
---
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: good, namespace: default}, spec: {endpointSelector: {}, ingress: [{fromEndpoints: []}], egress: []}}
---
{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: wide}, specs: [{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: 8}, {type: EchoReply}]}]}]}]}
---
{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: g, labels: {a: b}}, spec: {externalCIDRs: [192.0.2.0/24]}}
---
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: l7, namespace: default}, spec: {endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: /}]}}]}]}}
---
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: typo, namespace: default}, spec: {endpointSelector: {matchLabel: {a: b}}, ingress: [{}]}}`)
	all := []string{"CiliumCIDRGroup/g", "CiliumClusterwideNetworkPolicy/wide", "CiliumNetworkPolicy/default/good", "NetworkPolicy/default/np"}
	are(all...)
	// What an absent list says and what an empty one is kept apart all the way.
	for _, p := range n1.Policies().Snapshot().Policies.All() {
		if p.Key != "CiliumNetworkPolicy/default/good" {
			continue
		}
		pol, err := parse.Read(p.Raw)
		if text, _ := json.Marshal(pol); err != nil || !strings.Contains(string(text), `"ingress":[{"fromEndpoints":[]}],"egress":[]`) {
			t.Errorf("%v %s", err, text)
		}
	}
	for _, refused := range []string{
		`{endpointSelector: {}, ingress: [{fromEntities: [nobody]}]}`, `{endpointSelector: [], ingress: []}`, `{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 80}]}]}]}`,
		`{endpointSelector: {matchExpressions: [{key: a, operator: Is}]}, ingress: []}`,
	} {
		if err := srv.Try(t.Context(), `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: refused, namespace: default}, spec: `+refused+`}`); err == nil {
			t.Errorf("the API server takes %s", refused)
		}
	}
	// A version that is not understood leaves the one before it in force.
	before := n1.Policies().Snapshot()
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: good, namespace: default}, spec: {endpointSelector: {}, ingress: [{fromCIDR: [nonsense]}]}}`)
	are(all...)
	if now := n1.Policies().Snapshot(); now.Revision != before.Revision {
		t.Errorf("revision %d, was %d", now.Revision, before.Revision)
	}
	srv.Apply(t, `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: good, namespace: default}, spec: {endpointSelector: {}, ingress: [{fromCIDR: [192.0.2.0/24]}]}}`)
	if err := n1.Policies().WaitRevision(t.Context(), before.Revision+1); err != nil {
		t.Error(err)
	}
	srv.Delete(t, "cilium.io/v2", "CiliumNetworkPolicy", "default", "good")
	srv.Delete(t, "networking.k8s.io/v1", "NetworkPolicy", "default", "np")
	are("CiliumCIDRGroup/g", "CiliumClusterwideNetworkPolicy/wide")
}

func testServices(t *testing.T, srv *kubeapi.Server, n1, n2 *Store) {
	rows := func(s *Store) map[string]model.ServiceID {
		out := map[string]model.ServiceID{}
		for id, v := range s.Services().Table().Snapshot().All() {
			if v.ID != id {
				t.Errorf("row %d is about %d", id, v.ID)
			}
			if v.Name != "kubernetes" {
				out[line(&v.Service)] = id
			}
		}
		return out
	}
	are := func(want ...string) {
		t.Helper()
		kubeapi.Eventually(t, limit, "services", func() error {
			a, b := rows(n1), rows(n2)
			var got []string
			for l := range a {
				got = append(got, l)
			}
			slices.Sort(got)
			slices.Sort(want)
			if d := cmp.Diff(want, got) + cmp.Diff(a, b); d != "" {
				return errors.New(d)
			}
			return nil
		})
	}
	servers := func(want ...string) {
		t.Helper()
		kubeapi.Eventually(t, limit, "API servers", func() error {
			var got []string
			for a := range n1.Services().APIServers().Snapshot().All() {
				got = append(got, a.String())
			}
			slices.Sort(got)
			return differ(want, got)
		})
	}
	if !n1.Services().APIServers().Snapshot().Complete() {
		t.Error("it is not known that there is no API server")
	}
	for _, addrs := range [][]string{{"192.0.2.100", "192.0.2.101"}, {"192.0.2.101"}} {
		ends := ""
		for _, a := range addrs {
			ends += "{addresses: [" + a + "], conditions: {ready: false}}, "
		}
		srv.Apply(t, `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, ports: [{name: https, port: 6443}], endpoints: [`+ends+`]}`)
		servers(addrs...)
	}
	srv.Delete(t, "discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes")
	servers()
	srv.Apply(t, `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: not-ours, namespace: default, labels: {service.kubernetes.io/service-proxy-name: x}}, spec: {clusterIP: 10.96.1.2, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: default}, spec: {clusterIP: None, ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.1], nodeName: n1}]}`)
	are("ClusterIP 10.96.1.1:80/TCP 10.1.0.1:8080/TCP@n1")
	srv.Apply(t, `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.2.0.1], nodeName: n2}]}
---
{apiVersion: v1, kind: Service, metadata: {name: later, namespace: default}, spec: {clusterIP: 10.96.1.3, externalIPs: [198.51.100.1], ports: [{name: http, port: 80}]}}`)
	are("ClusterIP 10.96.1.1:80/TCP 10.1.0.1:8080/TCP@n1 10.2.0.1:8080/TCP@n2", "ClusterIP 10.96.1.3:80/TCP", "ExternalIPs 198.51.100.1:80/TCP")
	// Another one wants the same address, and waits for it.
	time.Sleep(time.Second)
	srv.Apply(t, `{apiVersion: v1, kind: Service, metadata: {name: a-thief, namespace: default}, spec: {clusterIP: 10.96.1.4, externalIPs: [198.51.100.1], sessionAffinity: ClientIP, ports: [{name: http, port: 80}]}}`)
	are("ClusterIP 10.96.1.1:80/TCP 10.1.0.1:8080/TCP@n1 10.2.0.1:8080/TCP@n2", "ClusterIP 10.96.1.3:80/TCP", "ExternalIPs 198.51.100.1:80/TCP", "ClusterIP 10.96.1.4:80/TCP affinity 3h0m0s")
	srv.Delete(t, "v1", "Service", "default", "later")
	are("ClusterIP 10.96.1.1:80/TCP 10.1.0.1:8080/TCP@n1 10.2.0.1:8080/TCP@n2", "ExternalIPs 198.51.100.1:80/TCP affinity 3h0m0s", "ClusterIP 10.96.1.4:80/TCP affinity 3h0m0s")
	// A slice of one service becomes another's.
	srv.Apply(t, `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: a-thief}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.2.0.1], nodeName: n2}]}`)
	are("ClusterIP 10.96.1.1:80/TCP 10.1.0.1:8080/TCP@n1", "ExternalIPs 198.51.100.1:80/TCP 10.2.0.1:8080/TCP@n2 affinity 3h0m0s", "ClusterIP 10.96.1.4:80/TCP 10.2.0.1:8080/TCP@n2 affinity 3h0m0s")
	srv.Delete(t, "v1", "Service", "default", "a-thief")
	srv.Delete(t, "discovery.k8s.io/v1", "EndpointSlice", "default", "web-1")
	are("ClusterIP 10.96.1.1:80/TCP")
}

func testPods(t *testing.T, srv *kubeapi.Server, n1 *Store) {
	srv.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: x}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: clerk, namespace: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {app: web}}, spec: {nodeName: n1, serviceAccountName: clerk, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, hostPort: 8080}]}]}, status: {phase: Running, podIP: 10.1.0.7, podIPs: [{ip: 10.1.0.7}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: elsewhere, namespace: shop}, spec: {nodeName: n9, containers: [{name: c, image: i}]}}`)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	row, err := n1.Pods().Wait(ctx, "shop", "p", "")
	if err != nil {
		t.Fatal(err)
	}
	if row.Labels.Key() != "k8s:app=web;" || len(row.NamedPorts) != 1 || row.NamedPorts[0] != (model.NamedPort{Name: "http", Port: 80, Proto: 6}) ||
		row.Facts.Key() != "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;k8s:io.cilium.k8s.namespace.labels.team=x;k8s:io.cilium.k8s.policy.serviceaccount=clerk;" {
		t.Errorf("%+v", row)
	}
	if _, err := n1.Pods().Wait(ctx, "shop", "p", row.UID); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n1.Pods().Wait(short, "shop", "p", "another"); err == nil {
		t.Error("a pod of the same name that went before")
	}
	if _, ok := n1.Pods().Table().Get("shop/elsewhere"); ok {
		t.Error("a pod of another node")
	}
	hostPort := func() bool {
		for _, v := range n1.Services().Table().Snapshot().All() {
			if line(&v.Service) == "HostPort 0.0.0.0:8080/TCP 10.1.0.7:80/TCP@n1" {
				return true
			}
		}
		return false
	}
	eventually(t, "host port", hostPort)
	srv.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: "y"}}}`)
	eventually(t, "label of the namespace", func() bool {
		row, _ := n1.Pods().Table().Get("shop/p")
		v, _ := row.Facts.Get(model.SourceK8s, model.KeyNamespaceLabels+".team")
		return v == "y"
	})
	srv.Delete(t, "v1", "Pod", "shop", "p")
	eventually(t, "pod is gone", func() bool { _, ok := n1.Pods().Table().Get("shop/p"); return !ok && !hostPort() })
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// testGap: what was deleted while a node was cut off, for longer than the API server remembers changes, is gone when it is back, and
// nothing else; until then all is there.
func testGap(t *testing.T, srv *kubeapi.Server) {
	l := listen(t, "127.0.0.1:0")
	at, conf := l.Addr().String(), filepath.Join(t.TempDir(), "kubeconfig")
	front := srv.Front(t, l, conf)
	for _, name := range []string{"gone", "kept"} {
		srv.Apply(t, strings.ReplaceAll(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: NAME, namespace: default}, spec: {podSelector: {}}}
---
{apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: default}, spec: {ports: [{port: 80}]}}
---
{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: NAME}, spec: {addresses: [{type: InternalIP, ip: 192.0.2.77}]}}`, "NAME", name))
	}
	for i, name := range []string{"gone", "kept"} {
		srv.Apply(t, fmt.Sprintf(`{apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "%d"}, security-labels: {"k8s:gap": %s}}
---
{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: %s, namespace: default}, status: {identity: {id: 303}, networking: {node: 192.0.2.9, addressing: [{ipv4: 10.9.1.%d}]}}}`, 500+i, name, name, i))
	}
	n3 := openWith(t, conf, "n3", "192.0.2.3")
	if err := n3.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	tell := func() (out []string) {
		for _, p := range n3.Policies().Snapshot().Policies.All() {
			if strings.HasSuffix(p.Key, "/gone") || strings.HasSuffix(p.Key, "/kept") {
				out = append(out, p.Key)
			}
		}
		for _, v := range n3.Services().Table().Snapshot().All() {
			if v.Name == "gone" || v.Name == "kept" {
				out = append(out, "service "+v.Name)
			}
		}
		for name := range n3.Nodes().Table().Snapshot().All() {
			if name == "gone" || name == "kept" {
				out = append(out, "node "+name)
			}
		}
		for id := range n3.Identities().Table().Snapshot().All() {
			if id == 500 || id == 501 {
				out = append(out, fmt.Sprint("identity ", id))
			}
		}
		for p := range n3.Endpoints().Table().Snapshot().All() {
			if strings.HasPrefix(p.String(), "10.9.1.") {
				out = append(out, p.String())
			}
		}
		slices.Sort(out)
		return out
	}
	all := []string{"10.9.1.0/32", "10.9.1.1/32", "NetworkPolicy/default/gone", "NetworkPolicy/default/kept", "identity 500", "identity 501", "node gone", "node kept", "service gone", "service kept"}
	kubeapi.Eventually(t, limit, "before", func() error { return differ(all, tell()) })
	front.Close()
	srv.Delete(t, "networking.k8s.io/v1", "NetworkPolicy", "default", "gone")
	srv.Delete(t, "v1", "Service", "default", "gone")
	srv.Delete(t, "cilium.io/v2", "CiliumNode", "", "gone")
	srv.Delete(t, "cilium.io/v2", "CiliumIdentity", "", "500")
	srv.Delete(t, "cilium.io/v2", "CiliumEndpoint", "default", "gone")
	srv.Stop() // it remembers nothing of the time before
	srv.Again(t)
	if err := differ(all, tell()); err != nil {
		t.Errorf("while it is cut off: %v", err)
	}
	front.Open(listen(t, at))
	kept := []string{"10.9.1.1/32", "NetworkPolicy/default/kept", "identity 501", "node kept", "service kept"}
	kubeapi.Eventually(t, 90*time.Second, "behind the gap", func() error { return differ(kept, tell()) })
	eventually(t, "all is well", func() bool { return n3.Status().Connected })
}

func differ(want, got []string) error {
	if d := cmp.Diff(want, got); d != "" {
		return errors.New(d)
	}
	return nil
}

func testAway(t *testing.T, srv *kubeapi.Server, n1 *Store) {
	id, _, err := n1.Identities().AllocateHint(t.Context(), labels(t, "app=1", "io.kubernetes.pod.namespace=ns"), 0)
	if err != nil {
		t.Fatal(err)
	}
	services, policies := n1.Services().Table().Snapshot().Len(), n1.Policies().Snapshot()
	srv.Stop()
	eventually(t, "noticed", func() bool { return !n1.Status().Connected && n1.Status().Err != "" })
	if got, _, err := n1.Identities().AllocateHint(t.Context(), labels(t, "app=1", "io.kubernetes.pod.namespace=ns"), 0); got != id || err != nil {
		t.Errorf("known labels: %d %v", got, err)
	}
	if _, _, err := n1.Identities().AllocateHint(t.Context(), labels(t, "app=unheard"), 0); !errors.Is(err, state.ErrUnreachable) {
		t.Errorf("new labels: %v", err)
	}
	if ranges, err := n1.PodCIDRs(t.Context()); err != nil || len(ranges) != 1 {
		t.Errorf("pod ranges of the last run: %v %v", ranges, err)
	}
	if now := n1.Policies().Snapshot(); now.Revision != policies.Revision || now.Policies.Len() != policies.Policies.Len() || n1.Services().Table().Snapshot().Len() != services {
		t.Error("tables have changed")
	}
	srv.Again(t)
	srv.Apply(t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: back, namespace: default}, spec: {podSelector: {}}}`)
	kubeapi.Eventually(t, 90*time.Second, "news after it is back", func() error {
		for _, p := range n1.Policies().Snapshot().Policies.All() {
			if p.Key == "NetworkPolicy/default/back" {
				return nil
			}
		}
		return errors.New(n1.Status().Err)
	})
	kubeapi.Eventually(t, 90*time.Second, "all is well", func() error {
		if st := n1.Status(); !st.Connected {
			return errors.New(st.Err)
		}
		return nil
	})
}
