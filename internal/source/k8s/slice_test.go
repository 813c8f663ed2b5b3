package k8s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
)

// reader is what reads slices, without an API server; nothing is written.
func reader() *sliced {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := &Store{cfg: Config{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, EndpointSlices: true}, log: slog.New(slog.DiscardHandler), clients: &clients{}, ctx: ctx}
	s.endpoints = newEndpoints(s)
	return s.endpoints.sliced
}

// core is an entry of a slice.
func core(n string, id int64, node string, addrs ...string) ciliumv2alpha1.CoreEndpoint {
	c := ciliumv2alpha1.CoreEndpoint{Name: n, IdentityID: id, Networking: &ciliumv2.EndpointNetworking{Node: node}}
	for _, a := range addrs {
		c.Networking.Addressing = append(c.Networking.Addressing, ciliumv2.AddressPair{IPv4: a})
	}
	return c
}

func ces(n string, written int, endpoints ...ciliumv2alpha1.CoreEndpoint) *ciliumv2alpha1.CiliumEndpointSlice {
	s := &ciliumv2alpha1.CiliumEndpointSlice{Namespace: "default", Endpoints: endpoints}
	s.Name, s.ResourceVersion = n, fmt.Sprint(written)
	return s
}

// identities are those of the addresses that are believed.
func (k *sliced) identities() map[string]int64 {
	out := map[string]int64{}
	for p, e := range k.p.tab.Snapshot().All() {
		out[p.Addr().String()] = int64(e.Identity)
	}
	return out
}

const elsewhere = "192.0.2.9"

// No slice says that a workload is what no workload is.
func TestSliceBelief(t *testing.T) {
	k := reader()
	noAddr, noNode := core("no-net", 300, ""), core("no-node", 300, "", "10.0.0.9")
	noAddr.Networking = nil
	s := ces("s", 1, core("host", 1, elsewhere, "10.0.0.1"), core("world", 2, elsewhere, "10.0.0.2"), core("none", 0, elsewhere, "10.0.0.3"),
		core("cidr", 1<<24+1, elsewhere, "10.0.0.4"), core("negative", -1, elsewhere, "10.0.0.5"), core("large", 1<<32+300, elsewhere, "10.0.0.6"),
		core("mapped", 300, elsewhere, "::ffff:10.0.0.7"), core("text", 300, elsewhere, "10.0.0.8", "x"), noAddr, noNode, core("zone", 300, "fe80::1%eth0", "10.0.0.10"),
		core("", 300, elsewhere, "10.0.0.11"), core("api", 7, elsewhere, "10.0.0.12"), core("own", 300, "192.0.2.1", "10.0.0.13"),
		core("health", 4, elsewhere, "10.0.0.14"), core("init", 5, elsewhere, "10.0.0.15"), core("good", 300, elsewhere, "10.0.0.16"))
	k.take(nil, s)
	want := map[string]int64{"10.0.0.14": 4, "10.0.0.15": 5, "10.0.0.16": 300}
	if d := cmp.Diff(want, k.identities()); d != "" {
		t.Error(d)
	}
	nobody := ces("n", 2, core("e", 300, elsewhere, "10.0.0.17"))
	nobody.Namespace = ""
	k.take(nil, nobody)
	if d := cmp.Diff(want, k.identities()); d != "" {
		t.Error(d)
	}
	// What was believed, and no longer can be, is not believed either.
	k.take(nil, ces("s", 3, core("good", 1, elsewhere, "10.0.0.16")))
	if d := cmp.Diff(map[string]int64{}, k.identities()); d != "" {
		t.Error(d)
	}
}

// The younger of two has an address: the one that came when the other was there. Of two that came together nobody has it.
func TestSliceRivals(t *testing.T) {
	const at = "10.0.0.1"
	old, next := core("old", 300, elsewhere, at), core("next", 301, elsewhere, at)
	has := func(k *sliced, what string, want int64) {
		t.Helper()
		if got := k.identities()[at]; got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	for _, two := range []bool{false, true} {
		k := reader()
		say := func(old, next []ciliumv2alpha1.CoreEndpoint) {
			if two {
				k.take(nil, ces("b", 1, next...), ces("a", 1, old...))
			} else {
				k.take(nil, ces("a", 1, append(old, next...)...))
			}
		}
		is := func(c ...ciliumv2alpha1.CoreEndpoint) []ciliumv2alpha1.CoreEndpoint { return c }
		say(is(old), nil)
		say(is(old), is(next))
		has(k, "the next one", 301)
		relabelled := old
		relabelled.IdentityID = 302
		say(is(relabelled), is(next))
		has(k, "the older one is relabelled", 301)
		say(nil, is(next))
		has(k, "the older one goes", 301)
		say(is(old), is(next))
		say(is(old), nil)
		has(k, "the younger one goes", 300)

		k = reader()
		say(is(old), is(next))
		has(k, "both at once", 0)
		say(is(core("old", 300, elsewhere, "10.0.0.2")), is(next))
		has(k, "one has another address", 301)
		say(is(old), is(next))
		has(k, "it comes back", 300)
	}
}

// This node's endpoints are none of the table's, and what is said of them is noted once it is otherwise.
func TestSliceOwn(t *testing.T) {
	k := reader()
	n := name{"default", "own"}
	disturbed := func() bool {
		w := k.p.writer
		w.mu.Lock()
		defer w.mu.Unlock()
		defer func() { w.done[n] = w.want[n] }()
		return w.done[n] == nil
	}
	if err := k.p.writer.put(n, "x"); err != nil {
		t.Fatal(err)
	}
	disturbed()
	first, next, other := core("own", 300, "192.0.2.1", "10.0.0.1"), core("own", 301, "192.0.2.1", "10.0.0.1"), core("other", 300, elsewhere, "10.0.0.2")
	for _, c := range []struct {
		what      string
		tell      func()
		disturbed bool
	}{
		{"first seen", func() { k.take(nil, ces("a", 1, first)) }, false},
		{"another entry", func() { k.take(nil, ces("a", 2, first, other)) }, false},
		{"the same again, after a gap", func() { k.begun = true; k.replace([]*ciliumv2alpha1.CiliumEndpointSlice{ces("a", 2, first, other)}) }, false},
		{"another value", func() { k.take(nil, ces("a", 3, next, other)) }, true},
		{"that again", func() { k.take(nil, ces("a", 4, next)) }, false},
		{"in two slices", func() { k.take(nil, ces("b", 5, next)) }, false},
		{"in one again", func() { k.take([]string{"a"}) }, false},
		{"of another node", func() { k.take(nil, ces("b", 6, core("own", 300, elsewhere, "10.0.0.3"))) }, true},
		{"still, beside another", func() { k.take(nil, ces("b", 7, core("own", 300, elsewhere, "10.0.0.3"), other)) }, false},
		{"in none", func() { k.take([]string{"b"}) }, true},
	} {
		c.tell()
		if got := disturbed(); got != c.disturbed {
			t.Errorf("%s: %v", c.what, got)
		}
		if _, ok := k.identities()["10.0.0.1"]; ok {
			t.Errorf("%s: its address is in the table of others'", c.what)
		}
	}
}

// Whatever slices say, together and one after the other: of each endpoint that counts which was written last, and it is gone when none
// has it. Nothing is kept of what is gone.
func TestSliceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := reader()
		k.begun = true // there is nobody to ask what else there is
		said, version := map[string]*ciliumv2alpha1.CiliumEndpointSlice{}, 0
		say := func(t *rapid.T) *ciliumv2alpha1.CiliumEndpointSlice {
			version++
			var all []ciliumv2alpha1.CoreEndpoint
			for n := range 5 {
				if rapid.Bool().Draw(t, "there") {
					// An endpoint has one of two addresses that are its own alone: who has one that two claim is another test's.
					all = append(all, core(fmt.Sprint("e", n), rapid.Int64Range(299, 301).Draw(t, "identity"), rapid.SampledFrom([]string{elsewhere, "192.0.2.1"}).Draw(t, "node"),
						fmt.Sprintf("10.0.%d.%d", n, rapid.IntRange(0, 1).Draw(t, "address"))))
				}
			}
			s := ces(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "slice"), version, all...)
			said[s.Name] = s
			return s
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { k.take(nil, say(t)) },
			"remove": func(t *rapid.T) {
				n := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "slice")
				delete(said, n)
				k.take([]string{n})
			},
			"gap": func(t *rapid.T) {
				for range rapid.IntRange(0, 3).Draw(t, "changes") {
					if n := rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "gone"); n != "" {
						delete(said, n)
					} else {
						say(t)
					}
				}
				k.replace(rapid.Permutation(slices.Collect(maps.Values(said))).Draw(t, "order"))
			},
			"": func(t *rapid.T) {
				want, last := map[string]int64{}, map[string]ciliumv2alpha1.CoreEndpoint{}
				for _, s := range slices.SortedFunc(maps.Values(said), func(a, b *ciliumv2alpha1.CiliumEndpointSlice) int {
					return int(written(a)) - int(written(b))
				}) {
					for _, e := range s.Endpoints {
						last[e.Name] = e
					}
				}
				for _, e := range last {
					if e.Networking.Node == elsewhere {
						want[e.Networking.Addressing[0].IPv4] = e.IdentityID
					}
				}
				if d := cmp.Diff(want, k.identities()); d != "" {
					t.Fatal(d)
				}
				if err := k.sound(last); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// sound says whether exactly what is needed of these endpoints is kept.
func (k *sliced) sound(last map[string]ciliumv2alpha1.CoreEndpoint) error {
	if len(k.at) != len(last) || len(k.p.has) != len(last) || len(k.p.rivals) != 0 {
		return fmt.Errorf("kept of %d endpoints: %v %v %v", len(last), k.at, k.p.has, k.p.rivals)
	}
	in := map[name]int{}
	for _, names := range k.names {
		for _, n := range names {
			in[n]++
		}
	}
	var errs []error
	for n, times := range in {
		if len(k.more[n]) != times-1 || slices.ContainsFunc(k.more[n], func(s saying) bool { return s.slice == k.at[n] }) {
			errs = append(errs, fmt.Errorf("%s is in %d slices: %s and %v", n, times, k.at[n], k.more[n]))
		}
	}
	for n := range k.more {
		if in[n] == 0 {
			errs = append(errs, fmt.Errorf("%s is kept", n))
		}
	}
	return errors.Join(errs...)
}
