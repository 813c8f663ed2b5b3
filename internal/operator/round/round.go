// Package round runs controllers that look at all objects of some kinds at once, whenever one of them changes: what one object
// shall have depends on what all others have.
package round

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Bounds of the wait after a failed round.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
)

// Add makes the manager run a round, one at a time, at first and whenever an object of kinds changes, for as long as it leads. What
// changes while it runs is for the next. A failed round runs again.
func Add(mgr ctrl.Manager, name string, run func(context.Context) error, kinds ...client.Object) error {
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(controller.Options{
		MaxConcurrentReconciles: 1,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](minRetry, maxRetry),
	})
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{{}} })
	for _, k := range kinds {
		b = b.Watches(k, one)
	}
	return b.Complete(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
		err := run(ctx)
		if apierrors.IsConflict(err) { // it changed meanwhile: that was to be expected, and will be told
			return reconcile.Result{RequeueAfter: minRetry}, nil
		}
		return reconcile.Result{}, err
	}))
}

// Join is the error of a round of several: a conflict only when there is nothing worse.
func Join(errs []error) error {
	var conflict error
	for _, err := range errs {
		switch {
		case err == nil:
		case apierrors.IsConflict(err):
			conflict = err
		default:
			return errors.Join(errs...)
		}
	}
	return conflict
}
