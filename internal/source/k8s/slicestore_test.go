package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// sliceServer is an API server on which a test does what the operator does.
type sliceServer struct {
	*kubeapi.Server
	t *testing.T
}

// slice writes a slice of the namespace default.
func (s *sliceServer) slice(name string, endpoints ...ciliumv2alpha1.CoreEndpoint) {
	s.t.Helper()
	if endpoints == nil {
		endpoints = []ciliumv2alpha1.CoreEndpoint{}
	}
	body, err := json.Marshal(endpoints)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Apply(s.t, fmt.Sprintf(`{apiVersion: cilium.io/v2alpha1, kind: CiliumEndpointSlice, metadata: {name: %s}, namespace: default, endpoints: %s}`, name, body))
}

func (s *sliceServer) noSlice(name string) {
	s.t.Helper()
	s.Delete(s.t, "cilium.io/v2alpha1", "CiliumEndpointSlice", "", name)
}

// endpoint writes a CiliumEndpoint of the namespace default, as its agent does.
func (s *sliceServer) endpoint(c ciliumv2alpha1.CoreEndpoint) {
	s.t.Helper()
	body, err := json.Marshal(ciliumv2.EndpointStatus{Identity: &ciliumv2.EndpointIdentity{ID: c.IdentityID}, Networking: c.Networking})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Apply(s.t, fmt.Sprintf(`{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: %s, namespace: default}, status: %s}`, c.Name, body))
}

// published waits until a CiliumEndpoint is there, and returns what a slice says of it.
func (s *sliceServer) published(name string, id int64) (c ciliumv2alpha1.CoreEndpoint) {
	s.t.Helper()
	kubeapi.Eventually(s.t, limit, "CiliumEndpoint "+name, func() error {
		o, err := s.Get(s.t, "cilium.io/v2", "CiliumEndpoint", "default", name)
		if err != nil {
			return err
		}
		status, _, _ := unstructured.NestedMap(o.Object, "status")
		body, err := json.Marshal(status)
		if err != nil {
			return err
		}
		var st ciliumv2.EndpointStatus
		if err := json.Unmarshal(body, &st); err != nil {
			return err
		}
		if st.Identity.ID != id {
			return fmt.Errorf("identity %d", st.Identity.ID)
		}
		c = ciliumv2alpha1.CoreEndpoint{Name: name, IdentityID: st.Identity.ID, Networking: st.Networking, NamedPorts: st.NamedPorts}
		return nil
	})
	return c
}

// are waits until these addresses are believed, with their identities.
func (s *sliceServer) are(at *Store, want map[string]int64) {
	s.t.Helper()
	kubeapi.Eventually(s.t, limit, "addresses", func() error {
		if d := cmp.Diff(want, at.endpoints.sliced.identities()); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

// TestSliceStore is what testEndpoints is, with slices.
func TestSliceStore(t *testing.T) {
	s := &sliceServer{kubeapi.Start(t), t}
	s.Install(t)
	on := func(c *Config) { c.EndpointSlices = true }
	url, passed := counted(t, s.Server)

	// Endpoints, and no slice: the operator has not written them. None is missed once they are all there.
	a, b := core("a", 300, elsewhere, "10.9.0.1"), core("b", 301, elsewhere, "10.9.0.2")
	s.endpoint(a)
	s.endpoint(core("own", 300, "192.0.2.1", "10.1.0.1"))
	s.endpoint(core("liar", 1, elsewhere, "10.9.0.9"))
	n1 := openWith(t, "", "n1", "192.0.2.1", on, func(c *Config) { c.Server = url })
	incomplete := func(what string) {
		t.Helper()
		short, cancel := context.WithTimeout(t.Context(), 2*settlePause)
		defer cancel()
		if err := n1.Ready(short); err == nil || n1.endpoints.Table().Snapshot().Complete() || n1.Status().Complete {
			t.Errorf("complete %s: %v", what, err)
		}
	}
	ready := func(n *Store) {
		t.Helper()
		long, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := n.Ready(long); err != nil || !n.endpoints.Table().Snapshot().Complete() {
			t.Fatal(err)
		}
	}
	eventually(t, "what is waited for", func() bool { return n1.Status().Awaited == 1 })
	incomplete("without slices")
	s.slice("s1", b)
	s.are(n1, map[string]int64{"10.9.0.2": 301})
	incomplete("with some of them")
	s.slice("s1", a, b)
	ready(n1)
	if n := n1.Status().Awaited; n != 0 {
		t.Errorf("it waits for %d when it is complete", n)
	}
	s.are(n1, map[string]int64{"10.9.0.1": 300, "10.9.0.2": 301})
	// That of this node, of an earlier run, is withdrawn, with and without a slice that has it.
	if err := n1.Endpoints().Replace(nil); err != nil {
		t.Fatal(err)
	}
	s.slice("s2", core("own", 300, "192.0.2.1", "10.1.0.1"), core("ghost", 300, "192.0.2.1", "10.1.0.2"))
	eventually(t, "what is left is withdrawn", func() bool {
		_, err := s.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "own")
		return err != nil && n1.Status().Pending == 0
	})
	s.noSlice("s2")
	s.endpoint(core("nowhere", 300, elsewhere))
	n2 := openWith(t, s.Kubeconfig, "n2", "192.0.2.2", on)
	ready(n2)

	// It changes, moves, and goes.
	a.IdentityID = 302
	s.slice("s1", a, b)
	s.are(n2, map[string]int64{"10.9.0.1": 302, "10.9.0.2": 301})
	s.slice("s2", a)
	s.slice("s1", b)
	b.IdentityID = 303
	s.slice("s1", b)
	s.are(n2, map[string]int64{"10.9.0.1": 302, "10.9.0.2": 303})
	old := a
	old.IdentityID = 304
	s.slice("s3", old)
	s.are(n2, map[string]int64{"10.9.0.1": 304, "10.9.0.2": 303})
	s.noSlice("s3")
	s.are(n2, map[string]int64{"10.9.0.1": 302, "10.9.0.2": 303})
	s.noSlice("s2")
	s.are(n2, map[string]int64{"10.9.0.2": 303})
	s.Delete(t, "cilium.io/v2", "CiliumEndpoint", "default", "a") // or who starts would wait for it

	s.own(n1, n2, passed)
	s.rivals(n2, on)
	s.gap(on)
}

// own: what a node publishes, another one finds; what somebody does to it is undone, once for each change that is seen.
func (s *sliceServer) own(n1, n2 *Store, passed *watched) {
	t := s.t
	t.Helper()
	s.slice("s1")
	e := model.Endpoint{ID: 7, Name: "web", Namespace: "default", ContainerID: "c", IfName: "eth0", IPv4: netip.MustParseAddr("10.1.0.5"), IPv6: netip.MustParseAddr("fd00::5"),
		Labels: labels(t, "app=web"), Identity: 400, NamedPorts: []model.NamedPort{{Name: "http", Port: 80, Proto: 6}}}
	if err := n1.Endpoints().Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	first := s.published("web", 400)
	s.slice("s1", first)
	s.are(n2, map[string]int64{"10.1.0.5": 400, "fd00::5": 400})
	s.are(n1, map[string]int64{})
	want := model.IPEntry{Prefix: netip.MustParsePrefix("10.1.0.5/32"), Identity: 400, Tunnel: netip.MustParseAddr("192.0.2.1"), Source: model.IPSourceCustomResource, NoMasq: true,
		Name: "web", Namespace: "default", NamedPorts: e.NamedPorts}
	got, _ := n2.Endpoints().Table().Get(want.Prefix)
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	s.Delete(t, "cilium.io/v2", "CiliumEndpoint", "default", "web")
	s.slice("s1")
	s.are(n2, map[string]int64{})
	s.slice("s1", s.published("web", 400))
	s.are(n2, map[string]int64{"10.1.0.5": 400, "fd00::5": 400})
	s.endpoint(core("web", 401, "192.0.2.9", "10.1.0.5"))
	s.slice("s1", core("web", 401, "192.0.2.9", "10.1.0.5"))
	s.are(n2, map[string]int64{"10.1.0.5": 401})
	s.slice("s1", s.published("web", 400))
	s.are(n2, map[string]int64{"10.1.0.5": 400, "fd00::5": 400})

	// The slice lags behind, and changes while it does: nothing is written for that.
	e.Identity = 402
	if err := n1.Endpoints().Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	next := s.published("web", 402)
	eventually(t, "nothing pending", func() bool { return n1.Status().Pending == 0 })
	const path = "/apis/cilium.io/v2/namespaces/default/ciliumendpoints/web"
	before := passed.patched(path)
	for i := range 5 {
		s.slice("s1", first, core("other", int64(500+i), elsewhere, "10.9.0.2"))
		s.are(n1, map[string]int64{"10.9.0.2": int64(500 + i)})
	}
	eventually(t, "nothing pending", func() bool { return n1.Status().Pending == 0 })
	if now := passed.patched(path); now != before {
		t.Errorf("written %d times while the slice lagged", now-before)
	}
	s.slice("s1", next)
	s.are(n2, map[string]int64{"10.1.0.5": 402, "fd00::5": 402})
	eventually(t, "seen, and nothing pending", func() bool {
		n1.endpoints.mu.Lock()
		seen := strings.Contains(n1.endpoints.mine[name{"default", "web"}], `"id":402`)
		n1.endpoints.mu.Unlock()
		return seen && n1.Status().Pending == 0
	})
	if now := passed.patched(path); now > before+1 {
		t.Errorf("written %d times for one change", now-before)
	}

	// A pod of the same name starts on the other node before this one has taken its back.
	moved := e
	moved.IPv4, moved.IPv6 = netip.MustParseAddr("10.2.0.5"), netip.Addr{}
	if err := n2.Endpoints().Publish(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	eventually(t, "moved", func() bool {
		o, err := s.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web")
		if err != nil {
			return false
		}
		node, _, _ := unstructured.NestedString(o.Object, "status", "networking", "node")
		return node == "192.0.2.2"
	})
	n1.Endpoints().Withdraw(e)
	s.slice("s1", s.published("web", 402))
	eventually(t, "nothing pending", func() bool { return n1.Status().Pending == 0 && n2.Status().Pending == 0 })
	if _, err := s.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web"); err != nil {
		t.Errorf("the other node's: %v", err)
	}
	s.are(n1, map[string]int64{"10.2.0.5": 402})
	n2.Endpoints().Withdraw(moved)
	eventually(t, "withdrawn", func() bool {
		_, err := s.Get(t, "cilium.io/v2", "CiliumEndpoint", "default", "web")
		return err != nil
	})
	s.slice("s1")
	s.are(n1, map[string]int64{})
}

// rivals: another pod gets an address before the old one's object is gone.
func (s *sliceServer) rivals(n2 *Store, on func(*Config)) {
	t := s.t
	t.Helper()
	old, next := core("old", 300, elsewhere, "10.9.0.1"), core("next", 301, elsewhere, "10.9.0.1")
	s.slice("s1", old)
	s.are(n2, map[string]int64{"10.9.0.1": 300})
	s.slice("s1", old, next)
	s.are(n2, map[string]int64{"10.9.0.1": 301})
	n3 := openWith(t, s.Kubeconfig, "n3", "192.0.2.3", on)
	if err := n3.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.are(n3, map[string]int64{})
	s.slice("s1", next)
	s.are(n3, map[string]int64{"10.9.0.1": 301})
	s.are(n2, map[string]int64{"10.9.0.1": 301})
}

// gap: what went while a node was cut off, for longer than the API server remembers, is gone when it is back; until then all is there.
func (s *sliceServer) gap(on func(*Config)) {
	t := s.t
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	at, conf := l.Addr().String(), filepath.Join(t.TempDir(), "kubeconfig")
	front := s.Front(t, l, conf)
	kept, moves := core("kept", 300, elsewhere, "10.9.1.1"), core("moves", 301, elsewhere, "10.9.1.2")
	s.slice("s1", kept, moves)
	s.slice("s2", core("gone", 302, elsewhere, "10.9.1.3"))
	s.slice("s3", core("left", 303, elsewhere, "10.9.1.4"))
	n4 := openWith(t, conf, "n4", "192.0.2.4", on)
	if err := n4.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{"10.9.1.1": 300, "10.9.1.2": 301, "10.9.1.3": 302, "10.9.1.4": 303}
	s.are(n4, all)
	front.Close()
	s.slice("s3", moves)
	s.slice("s1", kept)
	s.noSlice("s2")
	s.Stop()
	s.Again(t)
	s.are(n4, all)
	eventually(t, "noticed", func() bool { return !n4.Status().Connected })
	s.are(n4, all)
	front.Open(listen(t, at))
	kubeapi.Eventually(t, 90*time.Second, "behind the gap", func() error {
		if d := cmp.Diff(map[string]int64{"10.9.1.1": 300, "10.9.1.2": 301}, n4.endpoints.sliced.identities()); d != "" {
			return errors.New(d)
		}
		return nil
	})
	eventually(t, "all is well", func() bool { return n4.Status().Connected })
}
