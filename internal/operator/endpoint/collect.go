// Package endpoint removes CiliumEndpoints whose pod is gone: those of a node that went away before it could.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/operator/every"
	"github.com/hypha-net/hypha/internal/operator/metric"
)

// Add runs it with the manager, each interval.
func Add(mgr ctrl.Manager, interval time.Duration, log *slog.Logger) error {
	g := &collector{c: mgr.GetClient(), server: mgr.GetAPIReader(), log: log, metrics: metric.Get()}
	return every.Add(mgr, interval, log, "endpoints not collected", g.collect)
}

type collector struct {
	c       client.Client
	server  client.Reader // the API server itself
	log     *slog.Logger
	metrics *metric.Metrics
}

// collect looks once. The endpoints are read before the pods: of each endpoint the pod was there first.
func (g *collector) collect(ctx context.Context) error {
	var all []metav1.ObjectMeta
	var endpoints ciliumv2.CiliumEndpointList
	if err := every.Page(ctx, g.server, &endpoints, func() {
		for i := range endpoints.Items {
			if ofPod(&endpoints.Items[i].ObjectMeta) {
				all = append(all, endpoints.Items[i].ObjectMeta)
			}
		}
	}); err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	pods, err := g.pods(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range all {
		if pods[client.ObjectKey{Namespace: all[i].Namespace, Name: all[i].Name}] {
			continue
		}
		err := g.remove(ctx, &all[i])
		outcome := "success"
		if err != nil {
			outcome = "fail"
		}
		g.metrics.EndpointGC.WithLabelValues(outcome).Inc()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ofPod says whether an endpoint goes with a pod: not those that somebody else owns.
func ofPod(m *metav1.ObjectMeta) bool {
	return !slices.ContainsFunc(m.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind != "Pod" })
}

// pods are the names of all.
func (g *collector) pods(ctx context.Context) (map[client.ObjectKey]bool, error) {
	out := map[client.ObjectKey]bool{}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := every.Page(ctx, g.server, list, func() {
		for i := range list.Items {
			out[client.ObjectKey{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}] = true
		}
	}); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	return out, nil
}

// remove deletes an endpoint if it is the one that was seen and there is no pod of its name by now either.
func (g *collector) remove(ctx context.Context, m *metav1.ObjectMeta) error {
	pod := &metav1.PartialObjectMetadata{}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err := g.server.Get(ctx, client.ObjectKey{Namespace: m.Namespace, Name: m.Name}, pod)
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for pod %s/%s: %w", m.Namespace, m.Name, err)
	}
	e := &ciliumv2.CiliumEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name}}
	err = g.c.Delete(ctx, e, client.Preconditions{UID: &m.UID, ResourceVersion: &m.ResourceVersion})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		g.log.Info("endpoint of a pod that is gone removed", "namespace", m.Namespace, "name", m.Name)
	}
	return err
}
