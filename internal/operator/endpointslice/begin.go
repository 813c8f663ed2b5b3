package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/slicing"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/operator/every"
)

// errBehind says that the cache does not know all endpoints yet that slices have.
var errBehind = errors.New("the cache is behind")

// begin learns what there is, and has nothing written before it knows.
func (k *keeper) begin(ctx context.Context) error {
	if err := k.watch(ctx, &corev1.Node{}, cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { k.node(1) }, DeleteFunc: func(any) { k.node(-1) }}); err != nil {
		return err
	}
	if err := k.watch(ctx, &ciliumv2.CiliumEndpoint{}, handler(func(e *ciliumv2.CiliumEndpoint, gone bool) { k.endpoint(e, gone) })); err != nil {
		return err
	}
	if err := k.watch(ctx, &ciliumv2alpha1.CiliumEndpointSlice{}, handler(func(s *ciliumv2alpha1.CiliumEndpointSlice, gone bool) {
		if gone {
			k.noSlice(s.Name, s.UID)
		} else {
			k.slice(s)
		}
	})); err != nil {
		return err
	}
	return retry(ctx, k.fault, func() error { return k.adopt(ctx) })
}

// retry tries until it works or the context ends, slower and slower.
func retry(ctx context.Context, trouble *fault.Fault, try func() error) error {
	for pause := minRetry; ; pause = min(2*pause, maxRetry) {
		err := try()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if trouble.Note(err); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// handler tells of objects of a kind.
func handler[T client.Object](tell func(o T, gone bool)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { tell(o.(T), false) },
		UpdateFunc: func(_, o any) { tell(o.(T), false) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			tell(o.(T), true)
		},
	}
}

// watch returns once the handler has been told of all objects of a kind.
func (k *keeper) watch(ctx context.Context, kind client.Object, h cache.ResourceEventHandler) error {
	informer, err := k.cache.GetInformer(ctx, kind)
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	told, err := informer.AddEventHandler(h)
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	for !told.HasSynced() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// adopt begins from the slices as the API server itself has them, which is what the last leader wrote. No endpoint is taken out of them
// that the cache only does not know yet.
func (k *keeper) adopt(ctx context.Context) error {
	var all ciliumv2alpha1.CiliumEndpointSliceList
	if err := every.Page(ctx, k.server, &all, func() {
		for i := range all.Items {
			k.slice(all.Items[i].DeepCopy())
		}
	}); err != nil {
		return fmt.Errorf("list endpoint slices: %w", err)
	}
	k.mu.Lock()
	unknown := k.book.Unknown()
	k.mu.Unlock()
	if len(unknown) > 0 {
		behind := false
		var there ciliumv2.CiliumEndpointList
		if err := every.Page(ctx, k.server, &there, func() {
			for i := range there.Items {
				e := &there.Items[i]
				behind = behind || entry(e) != nil && unknown[slicing.Key{Namespace: e.Namespace, Name: e.Name}]
			}
		}); err != nil {
			return fmt.Errorf("list endpoints: %w", err)
		}
		if behind {
			return errBehind
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.book.Begin()
	k.ask()
	return nil
}
