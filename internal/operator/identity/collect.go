// Package identity removes CiliumIdentities that no workload has. An identity that was unused for long is marked, and removed the next
// time if it is unused still and nobody has touched it.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/garbage"
	"github.com/hypha-net/hypha/internal/operator/every"
	"github.com/hypha-net/hypha/internal/operator/metric"
)

// Config of it.
type Config struct {
	Interval time.Duration // between two looks
	Timeout  time.Duration // unused that long it goes
	// Limit is how many are removed in RateInterval at most.
	Limit        int
	RateInterval time.Duration
}

// Add runs it with the manager.
func Add(mgr ctrl.Manager, cfg Config, log *slog.Logger) error {
	if cfg.Interval <= 0 || cfg.Limit <= 0 || cfg.RateInterval <= 0 {
		return errors.New("collect identities: interval and rate limit have to be more than nothing")
	}
	g := &collector{c: mgr.GetClient(), server: mgr.GetAPIReader(), log: log, watch: garbage.NewIdentities(cfg.Timeout), metrics: metric.Get(),
		limit: rate.NewLimiter(rate.Limit(float64(cfg.Limit)/cfg.RateInterval.Seconds()), cfg.Limit)}
	return every.Add(mgr, cfg.Interval, log, "identities not collected", func(ctx context.Context) error {
		err := g.collect(ctx)
		outcome := "success"
		if err != nil {
			outcome = "fail"
		}
		g.metrics.IdentityGCRuns.WithLabelValues(outcome).Inc()
		return err
	})
}

type collector struct {
	c       client.Client
	server  client.Reader // the API server itself: a cache may not know yet that an identity is in use
	log     *slog.Logger
	watch   *garbage.Identities
	limit   *rate.Limiter
	metrics *metric.Metrics
}

// collect looks once. The identities are read before what uses them: what is newer than both is not looked at.
func (g *collector) collect(ctx context.Context) error {
	objects := map[string]*ciliumv2.CiliumIdentity{}
	var all []garbage.Identity
	var identities ciliumv2.CiliumIdentityList
	if err := every.Page(ctx, g.server, &identities, func() {
		for i := range identities.Items {
			d := &identities.Items[i]
			_, marked := d.Annotations[ciliumv2.IdentityMark]
			all = append(all, garbage.Identity{Name: d.Name, Marked: marked})
			objects[d.Name] = &ciliumv2.CiliumIdentity{ObjectMeta: d.ObjectMeta}
		}
	}); err != nil {
		return fmt.Errorf("list identities: %w", err)
	}
	used, err := g.used(ctx)
	if err != nil {
		return err
	}
	sweep := g.watch.Look(time.Now(), all, used)
	var errs []error
	for _, name := range sweep.Unmark {
		errs = append(errs, g.mark(ctx, objects[name], false))
	}
	for _, name := range sweep.Mark {
		errs = append(errs, g.mark(ctx, objects[name], true))
	}
	deleted := 0
	for _, name := range sweep.Delete {
		if err := g.limit.Wait(ctx); err != nil {
			return err
		}
		gone, err := g.remove(ctx, objects[name])
		errs = append(errs, err)
		if gone {
			deleted++
		}
	}
	g.metrics.IdentityGCEntries.WithLabelValues("alive").Set(float64(len(all) - deleted))
	g.metrics.IdentityGCEntries.WithLabelValues("deleted").Set(float64(deleted))
	if deleted > 0 || len(sweep.Mark) > 0 {
		g.log.Info("identities collected", "removed", deleted, "marked", len(sweep.Mark), "left", len(all)-deleted)
	}
	return errors.Join(errs...)
}

// used are the identities that workloads have.
func (g *collector) used(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	var endpoints ciliumv2.CiliumEndpointList
	if err := every.Page(ctx, g.server, &endpoints, func() {
		for i := range endpoints.Items {
			if d := endpoints.Items[i].Status.Identity; d != nil {
				out[strconv.FormatInt(d.ID, 10)] = true
			}
		}
	}); err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	var slices ciliumv2alpha1.CiliumEndpointSliceList
	if err := every.Page(ctx, g.server, &slices, func() {
		for i := range slices.Items {
			for _, e := range slices.Items[i].Endpoints {
				out[strconv.FormatInt(e.IdentityID, 10)] = true
			}
		}
	}); err != nil {
		return nil, fmt.Errorf("list endpoint slices: %w", err)
	}
	return out, nil
}

// mark marks an identity, or takes the mark away. One that changed meanwhile is for the next look.
func (g *collector) mark(ctx context.Context, d *ciliumv2.CiliumIdentity, on bool) error {
	old := d.DeepCopy()
	if on {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ciliumv2.IdentityMark] = time.Now().Format(time.RFC3339) // for people: what counts is what this process saw
	} else {
		delete(d.Annotations, ciliumv2.IdentityMark)
	}
	err := g.c.Patch(ctx, d, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// remove deletes an identity if it is as it was when it was looked at.
func (g *collector) remove(ctx context.Context, d *ciliumv2.CiliumIdentity) (gone bool, err error) {
	uid, version := d.UID, d.ResourceVersion
	err = g.c.Delete(ctx, d, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
