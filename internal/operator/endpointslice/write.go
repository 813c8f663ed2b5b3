package endpointslice

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/slicing"
)

// order is what is to be done with a slice.
type order struct {
	want   *slicing.Slice[*ciliumv2alpha1.CoreEndpoint] // nil: it is to go
	stored *ciliumv2alpha1.CiliumEndpointSlice          // nil: it is new
}

func (k *keeper) order(name string) (order, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	want, change := k.book.Order(name)
	return order{want, k.stored[name]}, change
}

// settle brings one slice in order. What is written is decided when the limit lets it through, not when it was asked for.
func (k *keeper) settle(ctx context.Context, name string) error {
	_, change := k.order(name)
	if change {
		if err := k.limit.Wait(ctx); err != nil {
			return err
		}
	}
	k.mu.Lock()
	asked := k.asked[name]
	delete(k.asked, name)
	k.mu.Unlock()
	o, change := k.order(name)
	if !change {
		return nil
	}
	if !asked.IsZero() {
		k.metrics.SliceDelay.WithLabelValues("standard").Observe(time.Since(asked).Seconds())
	}
	err := k.write(ctx, name, o)
	if err == nil {
		k.count(o)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return k.look(ctx, name, o.stored) // it is not what was known; if it is not in order now, it is asked for again
	}
	return err
}

// note tells how a write went, and has it tried again.
func (k *keeper) note(name string, err error) {
	k.fault.Note(err, "slice", name)
	if err == nil {
		k.queue.Forget(name)
		k.metrics.SliceSync.WithLabelValues("success").Inc()
		return
	}
	k.metrics.SliceSync.WithLabelValues("fail").Inc()
	k.queue.AddRateLimited(name)
}

// write makes a slice as it is to be, if it is as it was known.
func (k *keeper) write(ctx context.Context, name string, o order) error {
	if o.want == nil {
		err := k.c.Delete(ctx, o.stored, client.Preconditions{UID: &o.stored.UID, ResourceVersion: &o.stored.ResourceVersion})
		if err == nil {
			k.noSlice(name, o.stored.UID)
		}
		return err
	}
	s := &ciliumv2alpha1.CiliumEndpointSlice{}
	var do func(context.Context, *ciliumv2alpha1.CiliumEndpointSlice) error
	if o.stored == nil {
		s.Name = name
		do = func(ctx context.Context, s *ciliumv2alpha1.CiliumEndpointSlice) error { return k.c.Create(ctx, s) }
	} else {
		s.ObjectMeta = *o.stored.ObjectMeta.DeepCopy()
		do = func(ctx context.Context, s *ciliumv2alpha1.CiliumEndpointSlice) error { return k.c.Update(ctx, s) }
	}
	s.Namespace = o.want.Namespace
	for _, n := range slices.Sorted(maps.Keys(o.want.Entries)) {
		s.Endpoints = append(s.Endpoints, *o.want.Entries[n].DeepCopy())
	}
	if err := do(ctx, s); err != nil {
		return err
	}
	k.slice(s)
	return nil
}

// look takes in what a slice is, as the API server itself has it.
func (k *keeper) look(ctx context.Context, name string, was *ciliumv2alpha1.CiliumEndpointSlice) error {
	s := &ciliumv2alpha1.CiliumEndpointSlice{}
	err := k.server.Get(ctx, client.ObjectKey{Name: name}, s)
	switch {
	case err == nil:
		k.slice(s)
	case apierrors.IsNotFound(err) && was != nil:
		k.noSlice(name, was.UID)
	default:
		return fmt.Errorf("look at slice %s: %w", name, err)
	}
	return nil
}

// count tells what was written.
func (k *keeper) count(o order) {
	added, had := 0, map[string]bool{}
	if o.stored != nil {
		for i := range o.stored.Endpoints {
			had[o.stored.Endpoints[i].Name] = true
		}
	}
	if o.want != nil {
		k.metrics.SliceSize.Observe(float64(len(o.want.Entries)))
		for n := range o.want.Entries {
			if !had[n] {
				added++
			}
			delete(had, n)
		}
	}
	k.metrics.SliceChanges.WithLabelValues("cepinserted").Observe(float64(added))
	k.metrics.SliceChanges.WithLabelValues("cepremoved").Observe(float64(len(had)))
}
