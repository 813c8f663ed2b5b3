package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/operator/every"
)

// Clear makes the manager delete, once it leads, the slices that are left from a time when they were kept: nobody would bring them up to
// date, identities that they name would stay in use, and agents that read them again would believe them.
func Clear(mgr ctrl.Manager, log *slog.Logger) error {
	c, server := mgr.GetClient(), mgr.GetAPIReader()
	trouble := fault.New(log, "endpoint slices not deleted", "endpoint slices deleted after all")
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		_ = retry(ctx, trouble, func() error { // it ends without success only when the manager does
			n, err := sweep(ctx, c, server)
			if n > 0 {
				log.Info("endpoint slices deleted: they are not kept", "deleted", n)
			}
			return err
		})
		return nil
	}))
}

// sweep deletes all slices.
func sweep(ctx context.Context, c client.Client, server client.Reader) (deleted int, err error) {
	var names []string
	var all ciliumv2alpha1.CiliumEndpointSliceList
	if err := every.Page(ctx, server, &all, func() {
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
		if err := client.IgnoreNotFound(c.Delete(ctx, s)); err != nil {
			errs = append(errs, err)
			continue
		}
		deleted++
	}
	return deleted, errors.Join(errs...)
}
