package k8s

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// sliced is where CiliumEndpointSlices say which endpoints there are. Of a slice the names of its endpoints are kept, and what it says
// of them only while another one says something of the same. Then that counts which was written last.
type sliced struct {
	p       *Endpoints
	settled chan struct{} // closed once the table is complete
	awaited atomic.Int64  // for how many endpoints it waits to be

	// Of the watch alone, but for at, which is written under p.mu.
	begun bool
	turn  int64 // counts what the watch tells
	names map[string][]name
	at    map[name]string   // the slice that counts
	more  map[name][]saying // what others say, the last written last
}

// saying is what a slice says of an endpoint.
type saying struct {
	slice string
	*heard
}

func newSliced(p *Endpoints) *sliced {
	return &sliced{p: p, settled: make(chan struct{}), names: map[string][]name{}, at: map[name]string{}, more: map[name][]saying{}}
}

func (k *sliced) follow() {
	s := k.p.s
	follow(s, resource{client: s.clients.ciliumAlpha, name: "ciliumendpointslices"}, &ciliumv2alpha1.CiliumEndpointSlice{}, &sink[*ciliumv2alpha1.CiliumEndpointSlice]{
		replace: k.replace,
		put:     func(o *ciliumv2alpha1.CiliumEndpointSlice) { k.take(nil, o) },
		remove:  func(o *ciliumv2alpha1.CiliumEndpointSlice) { k.take([]string{o.Name}) }})
	s.synced = append(s.synced, k.settled)
}

func (k *sliced) replace(all []*ciliumv2alpha1.CiliumEndpointSlice) {
	there := make(map[string]bool, len(all))
	for _, o := range all {
		there[o.Name] = true
	}
	var gone []string
	for name := range k.names {
		if !there[name] {
			gone = append(gone, name)
		}
	}
	k.take(gone, slices.SortedFunc(slices.Values(all), func(a, b *ciliumv2alpha1.CiliumEndpointSlice) int {
		return cmp.Or(cmp.Compare(written(a), written(b)), cmp.Compare(a.Name, b.Name))
	})...)
	k.p.dropLeft()
	if !k.begun {
		k.begun = true
		k.p.s.run(func(ctx context.Context) { k.settle(ctx, len(all) > 0) })
	}
}

// written says which of two slices was written later.
func written(o *ciliumv2alpha1.CiliumEndpointSlice) uint64 {
	n, _ := strconv.ParseUint(o.ResourceVersion, 10, 64) // of one resource they rise
	return n
}

// take takes in slices that are gone, and what others are now, in one change. What moves from one to another does not leave in between.
func (k *sliced) take(gone []string, there ...*ciliumv2alpha1.CiliumEndpointSlice) {
	k.turn++
	changed := map[name]bool{}
	k.p.tab.Update(func(x *table.Txn[netip.Prefix, model.IPEntry]) {
		lost := map[string][]name{}
		for _, s := range gone {
			lost[s] = k.names[s]
			delete(k.names, s)
		}
		for _, o := range there {
			says := k.read(o)
			for n, h := range says {
				if k.hear(x, n, o.Name, h) {
					changed[n] = true
				}
			}
			for _, n := range k.names[o.Name] {
				if says[n] == nil {
					lost[o.Name] = append(lost[o.Name], n)
				}
			}
			k.names[o.Name] = slices.AppendSeq(make([]name, 0, len(says)), maps.Keys(says))
		}
		for s, names := range lost {
			for _, n := range names {
				if k.unhear(x, n, s) {
					changed[n] = true
				}
			}
		}
	})
	for n := range changed {
		k.p.own(n)
	}
}

// read reads a slice's entries as the CiliumEndpoints that they are of.
func (k *sliced) read(o *ciliumv2alpha1.CiliumEndpointSlice) map[name]*heard {
	out := make(map[name]*heard, len(o.Endpoints))
	for i := range o.Endpoints {
		c := &o.Endpoints[i]
		if o.Namespace == "" || c.Name == "" { // nobody's
			continue
		}
		e := &ciliumv2.CiliumEndpoint{Status: ciliumv2.EndpointStatus{Networking: c.Networking, NamedPorts: c.NamedPorts}}
		e.Namespace, e.Name = o.Namespace, c.Name
		if c.IdentityID != 0 {
			e.Status.Identity = &ciliumv2.EndpointIdentity{ID: c.IdentityID}
		}
		out[name{o.Namespace, c.Name}] = k.p.read(e)
	}
	return out
}

// hear takes in what a slice says of an endpoint, and says whether that changes what is known of it.
func (k *sliced) hear(x *table.Txn[netip.Prefix, model.IPEntry], n name, slice string, h *heard) bool {
	at, had := k.at[n]
	h.since = k.turn
	if had {
		old := k.p.known(x, n)
		if at != slice {
			k.forget(n, slice)
			k.more[n] = append(k.more[n], saying{at, old})
		}
		if slices.Equal(old.prefixes, h.prefixes) {
			h.since = old.since
		}
		if old.same(h) {
			k.put(n, slice)
			return false
		}
	}
	k.put(n, slice)
	k.p.set(x, n, h)
	return true
}

// unhear takes in that a slice says nothing of an endpoint any more. It is gone when none does.
func (k *sliced) unhear(x *table.Txn[netip.Prefix, model.IPEntry], n name, slice string) bool {
	if k.at[n] != slice {
		k.forget(n, slice)
		return false
	}
	others := k.more[n]
	if len(others) == 0 {
		k.put(n, "")
		k.p.set(x, n, nil)
		return true
	}
	last := others[len(others)-1]
	k.forget(n, last.slice)
	k.put(n, last.slice)
	changed := !k.p.known(x, n).same(last.heard)
	k.p.set(x, n, last.heard)
	return changed
}

// put makes a slice the one that counts for an endpoint; "": none.
func (k *sliced) put(n name, slice string) {
	if k.at[n] == slice {
		return
	}
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	if slice == "" {
		delete(k.at, n)
	} else {
		k.at[n] = slice
	}
}

// forget drops what a slice that does not count says of an endpoint.
func (k *sliced) forget(n name, slice string) {
	k.more[n] = slices.DeleteFunc(k.more[n], func(s saying) bool { return s.slice == slice })
	if len(k.more[n]) == 0 {
		delete(k.more, n)
	}
}

// How often it is looked whether the slices have all endpoints, before the table counts as complete all the same.
const (
	settlePause = time.Second
	settleTries = 30
)

// settle makes the table complete. Where slices have just been turned on, the operator may not have written them all: what is missing in
// them would be taken out of the kernel. So the endpoints of other nodes that are there are waited for: without end where there was no
// slice at all (some), which is as if there were no answer, and for a while where there were some.
func (k *sliced) settle(ctx context.Context, some bool) {
	var awaited map[name]bool
	for try := 0; ; try++ {
		lacking, err := k.lacking(ctx)
		if ctx.Err() != nil {
			return
		}
		k.p.s.health.note("ciliumendpoints", err)
		switch {
		case err != nil:
		case awaited == nil:
			if awaited = lacking; len(awaited) > 0 {
				k.p.s.log.Warn("waiting for the operator: endpoints of other nodes are in no CiliumEndpointSlice yet", "endpoints", len(awaited))
			}
		default:
			maps.DeleteFunc(awaited, func(n name, _ bool) bool { return !lacking[n] })
		}
		k.awaited.Store(int64(len(awaited)))
		if err == nil && len(awaited) == 0 {
			break
		}
		if some && try >= settleTries {
			k.p.s.log.Warn("not waiting any longer for endpoints that are in no CiliumEndpointSlice", "endpoints", len(awaited))
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settlePause):
		}
	}
	k.awaited.Store(0)
	k.p.tab.SetComplete()
	close(k.settled)
}

// lacking are the endpoints of other nodes that are in no slice.
func (k *sliced) lacking(ctx context.Context) (map[name]bool, error) {
	out := map[name]bool{}
	for o := (metav1.ListOptions{Limit: 500}); ; {
		var page ciliumv2.CiliumEndpointList
		if err := list(ctx, k.p.s.clients.cilium, "ciliumendpoints", o, &page); err != nil {
			return nil, fmt.Errorf("list endpoints: %w", err)
		}
		for i := range page.Items {
			e := &page.Items[i]
			n := name{e.Namespace, e.Name}
			k.p.mu.Lock()
			_, there := k.at[n]
			k.p.mu.Unlock()
			if !there && len(k.p.read(e).rows) > 0 {
				out[n] = true
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return out, nil
		}
	}
}
