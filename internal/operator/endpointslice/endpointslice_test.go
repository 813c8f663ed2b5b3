package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/slicing"
)

// server is what an API server lists.
type server struct {
	client.Reader
	slices    []ciliumv2alpha1.CiliumEndpointSlice
	endpoints []ciliumv2.CiliumEndpoint
}

func (s *server) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch l := list.(type) {
	case *ciliumv2alpha1.CiliumEndpointSliceList:
		l.Items = s.slices
	case *ciliumv2.CiliumEndpointList:
		l.Items = s.endpoints
	default:
		return fmt.Errorf("list of %T", list)
	}
	return nil
}

// boss is the manager, of which a keeper asks this.
type boss struct {
	ctrl.Manager
	server *server
}

func (m *boss) GetClient() client.Client    { return nil }
func (m *boss) GetAPIReader() client.Reader { return m.server }
func (m *boss) GetCache() ctrlcache.Cache   { return nil }

func keeperOf(t *testing.T, s *server) *keeper {
	k := newKeeper(&boss{server: s}, Config{Most: 2, Rates: slicing.Rates{{Limit: 10, Burst: 20}, {Nodes: 2, Limit: 50, Burst: 100}}}, slog.New(slog.DiscardHandler))
	t.Cleanup(k.queue.ShutDown)
	return k
}

func endpointOf(name string, id int64) *ciliumv2.CiliumEndpoint {
	e := &ciliumv2.CiliumEndpoint{Status: ciliumv2.EndpointStatus{Identity: &ciliumv2.EndpointIdentity{ID: id},
		Networking: &ciliumv2.EndpointNetworking{Node: "192.0.2.1", Addressing: []ciliumv2.AddressPair{{IPv4: "10.0.0.1"}}}}}
	e.Namespace, e.Name = "a", name
	return e
}

func sliceOf(name string, version int, uid types.UID, endpoints ...*ciliumv2.CiliumEndpoint) *ciliumv2alpha1.CiliumEndpointSlice {
	s := &ciliumv2alpha1.CiliumEndpointSlice{Namespace: "a"}
	s.Name, s.ResourceVersion, s.UID = name, fmt.Sprint(version), uid
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, *entry(e))
	}
	return s
}

func names(o order) (out []string) {
	if o.want == nil {
		return nil
	}
	for n := range o.want.Entries {
		out = append(out, n)
	}
	return out
}

// A new leader takes nothing out of slices that only its cache does not know, and begins from the slices that the API server has.
func TestAdopt(t *testing.T) {
	s := &server{slices: []ciliumv2alpha1.CiliumEndpointSlice{*sliceOf("s", 5, "u", endpointOf("e", 300))}, endpoints: []ciliumv2.CiliumEndpoint{*endpointOf("e", 300)}}
	k := keeperOf(t, s)
	k.slice(sliceOf("s", 4, "u", endpointOf("older", 300)))
	if err := k.adopt(t.Context()); !errors.Is(err, errBehind) {
		t.Errorf("the cache is behind: %v", err)
	}
	if len(k.asked) != 0 {
		t.Errorf("to be written before it is known what there is: %v", k.asked)
	}
	k.endpoint(endpointOf("e", 300), false)
	if err := k.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, change := k.order("s"); change {
		t.Error("what is in order is written")
	}

	gone := keeperOf(t, &server{slices: s.slices})
	if err := gone.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o, change := gone.order("s"); !change || o.want != nil {
		t.Errorf("a slice without endpoints that are there: %+v %v", o.want, change)
	}
}

// What is older than what is known is passed over, and so is the end of another slice of the same name.
func TestNewest(t *testing.T) {
	k := keeperOf(t, &server{})
	k.endpoint(endpointOf("e", 300), false)
	if err := k.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	var name string
	for name = range k.asked {
	}
	o, change := k.order(name)
	if d := cmp.Diff([]string{"e"}, names(o)); d != "" || !change {
		t.Fatal(d, change)
	}
	settled := func(what string, want bool) {
		t.Helper()
		if _, change := k.order(name); change == want {
			t.Errorf("%s: to be written: %v", what, change)
		}
	}
	k.slice(sliceOf(name, 7, "new", endpointOf("e", 300)))
	settled("written", true)
	k.slice(sliceOf(name, 6, "new"))
	settled("an older version", true)
	k.noSlice(name, "old")
	settled("the end of an older one", true)
	k.slice(sliceOf(name, 8, "new", endpointOf("e", 1)))
	settled("meddled with", false)
	k.noSlice(name, "new")
	settled("deleted", false)
}

// An endpoint that nobody could do anything with is in no slice.
func TestEntry(t *testing.T) {
	for what, spoil := range map[string]func(*ciliumv2.CiliumEndpoint){
		"no identity":   func(e *ciliumv2.CiliumEndpoint) { e.Status.Identity = nil },
		"no number":     func(e *ciliumv2.CiliumEndpoint) { e.Status.Identity.ID = 0 },
		"no networking": func(e *ciliumv2.CiliumEndpoint) { e.Status.Networking = nil },
		"no address":    func(e *ciliumv2.CiliumEndpoint) { e.Status.Networking.Addressing[0].IPv4 = "" },
	} {
		e := endpointOf("e", 300)
		if entry(e) == nil {
			t.Fatal("a good one")
		}
		if spoil(e); entry(e) != nil {
			t.Errorf("%s: %+v", what, entry(e))
		}
	}
	e := endpointOf("e", 300)
	e.Labels, e.Status.Identity.Labels, e.Status.State = map[string]string{"a": "b"}, []string{"k8s:a=b"}, "ready"
	want := entry(e)
	kept, err := trim(e.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	got := kept.(*ciliumv2.CiliumEndpoint)
	if d := cmp.Diff(want, entry(got)); d != "" || got.Labels != nil || got.Status.Identity.Labels != nil {
		t.Errorf("%s%+v", d, got)
	}
}

// The more nodes, the faster slices are written.
func TestLimit(t *testing.T) {
	k := keeperOf(t, &server{})
	for _, c := range []struct {
		more  int
		limit float64
		burst int
	}{{0, 10, 20}, {1, 10, 20}, {1, 50, 100}, {-1, 10, 20}} {
		k.node(c.more)
		if float64(k.limit.Limit()) != c.limit || k.limit.Burst() != c.burst {
			t.Errorf("%d nodes: %v %d", k.nodes, k.limit.Limit(), k.limit.Burst())
		}
	}
}
