// Package lb gives services of type LoadBalancer their addresses out of CiliumLoadBalancerIPPools. Without any pool it is asleep:
// services are somebody else's then, but for those that it has served.
package lb

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/lbipam"
	"github.com/hypha-net/hypha/internal/operator/metric"
	"github.com/hypha-net/hypha/internal/operator/round"
)

// Config of it.
type Config struct {
	IPv4, IPv6 bool
	// Default says whether services without a class are served.
	Default bool
}

// Add runs it with the manager.
func Add(mgr ctrl.Manager, cfg Config) error {
	b := &balancer{cfg: cfg, c: mgr.GetClient(), server: mgr.GetAPIReader(), given: map[client.ObjectKey][]netip.Addr{}, metrics: metric.Get()}
	return round.Add(mgr, "lbipam", b.round, &corev1.Service{}, &ciliumv2.CiliumLoadBalancerIPPool{})
}

// balancer gives addresses. What it gave it knows before the cache does.
type balancer struct {
	cfg     Config
	c       client.Client
	server  client.Reader // the API server itself, not the cache
	metrics *metric.Metrics
	adopted bool
	given   map[client.ObjectKey][]netip.Addr
}

func (b *balancer) round(ctx context.Context) error {
	pools, services, err := b.read(ctx)
	if err != nil {
		return err
	}
	var asked []lbipam.Pool
	for i := range pools {
		asked = append(asked, poolOf(&pools[i]))
	}
	var mine []*corev1.Service
	var wanted []lbipam.Service
	var errs []error
	for i := range services {
		s := &services[i]
		key := client.ObjectKeyFromObject(s)
		switch {
		case !b.serves(s):
			errs = append(errs, b.leave(ctx, s))
			delete(b.given, key)
		case len(pools) > 0 || served(s):
			has, ok := b.given[key]
			if !ok {
				has = addresses(s)
			}
			mine, wanted = append(mine, s), append(wanted, b.serviceOf(s, has))
		}
	}
	answers, states := lbipam.Decide(asked, wanted)
	lacking := 0
	for i, s := range mine {
		a := answers[wanted[i].Key()]
		if !a.Satisfied() {
			lacking++
		}
		b.given[client.ObjectKeyFromObject(s)] = a.IPs
	}
	for i, s := range mine { // all is noted before anything is written
		errs = append(errs, b.write(ctx, s, answers[wanted[i].Key()]))
	}
	for i := range pools {
		errs = append(errs, b.writePool(ctx, &pools[i], states[pools[i].Name]))
	}
	b.count(states, len(mine), lacking)
	return round.Join(errs)
}

// read gets all pools and services: at first from the API server itself, since a cache may be older than what the last leader gave.
func (b *balancer) read(ctx context.Context) ([]ciliumv2.CiliumLoadBalancerIPPool, []corev1.Service, error) {
	var pools ciliumv2.CiliumLoadBalancerIPPoolList
	var services corev1.ServiceList
	var from client.Reader = b.c
	if !b.adopted {
		from = b.server
	}
	if err := from.List(ctx, &pools); err != nil {
		return nil, nil, fmt.Errorf("list pools: %w", err)
	}
	if err := from.List(ctx, &services); err != nil {
		return nil, nil, fmt.Errorf("list services: %w", err)
	}
	b.adopted = true
	lost, err := b.lost(ctx, services.Items)
	return pools.Items, append(services.Items, lost...), err
}

// lost are services that were given addresses and that the cache does not have, but the API server still, or already, has. The
// addresses of the others are free.
func (b *balancer) lost(ctx context.Context, there []corev1.Service) (out []corev1.Service, err error) {
	keys := make(map[client.ObjectKey]bool, len(there))
	for i := range there {
		keys[client.ObjectKeyFromObject(&there[i])] = true
	}
	for key := range b.given {
		if keys[key] {
			continue
		}
		var s corev1.Service
		err := b.server.Get(ctx, key, &s)
		switch {
		case err == nil:
			out = append(out, s)
		case apierrors.IsNotFound(err):
			delete(b.given, key)
		default:
			return nil, fmt.Errorf("look for service %s: %w", key, err)
		}
	}
	return out, nil
}

func (b *balancer) count(states map[string]lbipam.PoolState, services, lacking int) {
	b.metrics.Services.Set(float64(services))
	b.metrics.ServicesLacking.Set(float64(lacking))
	b.metrics.PoolAvailable.Reset()
	b.metrics.PoolUsed.Reset()
	conflicts := 0
	for name, s := range states {
		if s.Conflict() {
			conflicts++
		}
		available, _ := s.Available.Float64()
		used, _ := s.Used.Float64()
		b.metrics.PoolAvailable.WithLabelValues(name).Set(available)
		b.metrics.PoolUsed.WithLabelValues(name).Set(used)
	}
	b.metrics.PoolsConflicting.Set(float64(conflicts))
}
