package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/operator/every"
)

// look is how often it is looked whether agents still read slices.
const look = 5 * time.Second

// finish ends a time in which slices were kept. Agents that have not been restarted since read nothing else: the slices are kept for as long
// as there are such, and deleted then. Nobody would bring them up to date, identities that they name would stay in use, and agents that read
// them again would believe them.
func (k *keeper) finish(ctx context.Context) error {
	if k.readers(ctx) > 0 {
		while, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			defer stop()
			for k.readers(while) > 0 {
				select {
				case <-while.Done():
				case <-time.After(look):
				}
			}
		}()
		if err := k.run(while); err != nil {
			return err
		}
		for _, kind := range []client.Object{&ciliumv2.CiliumEndpoint{}, &ciliumv2alpha1.CiliumEndpointSlice{}} {
			if err := k.cache.RemoveInformer(ctx, kind); err != nil {
				return fmt.Errorf("stop watching %T: %w", kind, err)
			}
		}
	}
	_ = retry(ctx, k.fault, func() error { // it ends without success only when the manager does
		n, err := k.sweep(ctx)
		if n > 0 {
			k.log.Info("endpoint slices deleted: they are not kept", "deleted", n)
		}
		return err
	})
	return nil
}

// readers is on how many nodes the agent reads slices, by its own word; 0 when the context ends, too.
func (k *keeper) readers(ctx context.Context) (n int) {
	_ = retry(ctx, k.fault, func() error {
		n = 0
		nodes := &metav1.PartialObjectMetadataList{}
		nodes.SetGroupVersionKind(ciliumv2.GroupVersion.WithKind("CiliumNodeList"))
		return every.Page(ctx, k.server, nodes, func() {
			for i := range nodes.Items {
				if nodes.Items[i].Annotations[ciliumv2alpha1.AnnotationSlices] == "true" {
					n++
				}
			}
		})
	})
	if ctx.Err() != nil {
		return 0
	}
	if n > 0 && !k.told {
		k.log.Info("endpoint slices are kept until no agent reads them any more: restart the agents", "agents", n)
		k.told = true
	}
	return n
}

// sweep deletes all slices.
func (k *keeper) sweep(ctx context.Context) (deleted int, err error) {
	var names []string
	var all ciliumv2alpha1.CiliumEndpointSliceList
	if err := every.Page(ctx, k.server, &all, func() {
		for i := range all.Items {
			names = append(names, all.Items[i].Name)
		}
	}); err != nil {
		return 0, fmt.Errorf("list endpoint slices: %w", err)
	}
	var errs []error
	for _, name := range names {
		s := &ciliumv2alpha1.CiliumEndpointSlice{}
		s.Name = name
		if err := client.IgnoreNotFound(k.c.Delete(ctx, s)); err != nil {
			errs = append(errs, err)
			continue
		}
		deleted++
	}
	return deleted, errors.Join(errs...)
}
