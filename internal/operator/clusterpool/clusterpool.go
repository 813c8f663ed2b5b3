// Package clusterpool gives each CiliumNode its pod ranges out of the cluster's pools. A range that a node has stays; what cannot be
// given, or is in conflict, is told in the node's status and an event.
package clusterpool

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/operator/metric"
	"github.com/hypha-net/hypha/internal/operator/need"
	"github.com/hypha-net/hypha/internal/operator/round"
)

// Add runs it with the manager.
func Add(mgr ctrl.Manager, pools []ipam.Pool) error {
	cluster, err := ipam.NewCluster(pools)
	if err != nil {
		return err
	}
	g := &giver{c: mgr.GetClient(), server: mgr.GetAPIReader(), events: mgr.GetEventRecorder("cilium-operator"), cluster: cluster, metrics: metric.Get()}
	return round.Add(mgr, "clusterpool", g.round, &ciliumv2.CiliumNode{})
}

// giver gives ranges. What it gave it knows before the cache does.
type giver struct {
	c       client.Client
	server  client.Reader // the API server itself, not the cache
	events  events.EventRecorder
	cluster *ipam.Cluster
	metrics *metric.Metrics
	adopted bool
}

func (g *giver) round(ctx context.Context) error {
	if err := g.adopt(ctx); err != nil {
		return err
	}
	nodes, err := need.Nodes(ctx, g.c)
	if err != nil {
		return err
	}
	if err := g.release(ctx, nodes); err != nil {
		return err
	}
	bad := map[string]error{}
	for i := range nodes {
		if err := g.take(&nodes[i]); err != nil {
			bad[nodes[i].Name] = err
		}
	}
	conflicts := g.cluster.Conflicts()
	lacking := 0
	var errs []error
	for i := range nodes {
		n := &nodes[i]
		why := cmp.Or(bad[n.Name], conflicts[n.Name])
		if bad[n.Name] == nil && n.DeletionTimestamp == nil {
			ranges, err := g.cluster.Give(n.Name)
			why = cmp.Or(why, err)
			errs = append(errs, g.write(ctx, n, ranges))
		}
		if why != nil {
			lacking++
		}
		errs = append(errs, need.Tell(ctx, g.c, g.events, n, why))
	}
	g.metrics.PodRanges.WithLabelValues("assigned").Set(float64(len(nodes) - lacking))
	g.metrics.PodRanges.WithLabelValues("unassigned").Set(float64(lacking))
	return round.Join(errs)
}

// adopt learns once what all nodes have, from the API server itself: a cache may be older than what the last leader gave.
func (g *giver) adopt(ctx context.Context) error {
	if g.adopted {
		return nil
	}
	var list ciliumv2.CiliumNodeList
	if err := g.server.List(ctx, &list); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for i := range list.Items {
		_ = g.take(&list.Items[i]) // told in the round
	}
	g.adopted = true
	return nil
}

// take notes what a node has. With something in it that is no range nothing of it is touched.
func (g *giver) take(n *ciliumv2.CiliumNode) error {
	ranges := make([]netip.Prefix, len(n.Spec.IPAM.PodCIDRs))
	for i, s := range n.Spec.IPAM.PodCIDRs {
		p, err := netip.ParsePrefix(string(s))
		if err != nil {
			return fmt.Errorf("%q in spec.ipam.podCIDRs is no prefix", s)
		}
		ranges[i] = p
	}
	return g.cluster.Adopt(n.Name, ranges)
}

// release frees the ranges of nodes that the API server says are gone.
func (g *giver) release(ctx context.Context, there []ciliumv2.CiliumNode) error {
	names := make(map[string]bool, len(there))
	for i := range there {
		names[there[i].Name] = true
	}
	for _, name := range g.cluster.Nodes() {
		if names[name] {
			continue
		}
		err := g.server.Get(ctx, client.ObjectKey{Name: name}, &ciliumv2.CiliumNode{})
		if apierrors.IsNotFound(err) {
			g.cluster.Release(name)
		} else if err != nil {
			return fmt.Errorf("look for node %s: %w", name, err)
		}
	}
	return nil
}

// write makes the object say what the node has.
func (g *giver) write(ctx context.Context, n *ciliumv2.CiliumNode, ranges []netip.Prefix) error {
	lacks := func(p netip.Prefix) bool { return !slices.Contains(n.Spec.IPAM.PodCIDRs, ciliumv2.CIDR(p.String())) }
	if !slices.ContainsFunc(ranges, lacks) {
		return nil
	}
	old := n.DeepCopy()
	n.Spec.IPAM.PodCIDRs = nil
	for _, p := range ranges {
		n.Spec.IPAM.PodCIDRs = append(n.Spec.IPAM.PodCIDRs, ciliumv2.CIDR(p.String()))
	}
	err := g.c.Patch(ctx, n, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if err == nil {
		g.events.Eventf(n, nil, corev1.EventTypeNormal, "PodCIDRsAssigned", "Assign", "pod ranges %v", ranges)
	}
	return client.IgnoreNotFound(err)
}
