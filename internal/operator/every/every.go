// Package every runs what is done from time to time, on objects as the API server itself has them.
package every

import (
	"context"
	"log/slog"
	"slices"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Add makes the manager run f at once and each interval after that, for as long as it leads. failed is what the log says of an error.
func Add(mgr ctrl.Manager, interval time.Duration, log *slog.Logger, failed string, f func(context.Context) error) error {
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		t := time.NewTicker(interval)
		defer t.Stop()
		for ctx.Err() == nil {
			if err := f(ctx); err != nil {
				log.Error(failed, "err", err)
			}
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		}
		return nil
	}))
}

// pageSize is how many objects are asked for at once.
const pageSize = 500

// Page reads all objects of a kind, page by page, into the list, and calls f for each. They are those of one moment.
func Page(ctx context.Context, c client.Reader, list client.ObjectList, f func(), opts ...client.ListOption) error {
	opts = append(opts, client.Limit(pageSize))
	for next := ""; ; {
		if err := c.List(ctx, list, append(slices.Clip(opts), client.Continue(next))...); err != nil {
			return err
		}
		f()
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}
