// Package node removes CiliumNodes whose Node is gone: those that no agent made for a Node, which would go with it, and those that
// somebody cut off from theirs.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/operator/every"
)

// Add runs it with the manager, each interval.
func Add(mgr ctrl.Manager, interval time.Duration, log *slog.Logger) error {
	g := &collector{c: mgr.GetClient(), server: mgr.GetAPIReader(), log: log}
	return every.Add(mgr, interval, log, "nodes not collected", g.collect)
}

type collector struct {
	c      client.Client
	server client.Reader // the API server itself
	log    *slog.Logger
	lonely map[types.UID]bool // had no Node the last time: an agent may come before the kubelet has registered its node
}

// collect looks once.
func (g *collector) collect(ctx context.Context) error {
	nodes := map[string]bool{}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := every.Page(ctx, g.server, list, func() {
		for i := range list.Items {
			nodes[list.Items[i].Name] = true
		}
	}); err != nil {
		return fmt.Errorf("list Nodes: %w", err)
	}
	var all ciliumv2.CiliumNodeList
	var alone []metav1.ObjectMeta
	if err := every.Page(ctx, g.server, &all, func() {
		for i := range all.Items {
			if !nodes[all.Items[i].Name] {
				alone = append(alone, all.Items[i].ObjectMeta)
			}
		}
	}); err != nil {
		return fmt.Errorf("list CiliumNodes: %w", err)
	}
	before := g.lonely
	g.lonely = map[types.UID]bool{}
	var errs []error
	for i := range alone {
		g.lonely[alone[i].UID] = true
		if before[alone[i].UID] {
			errs = append(errs, g.remove(ctx, &alone[i]))
		}
	}
	return errors.Join(errs...)
}

// remove deletes a CiliumNode, if there is no Node of its name by now either.
func (g *collector) remove(ctx context.Context, m *metav1.ObjectMeta) error {
	n := &metav1.PartialObjectMetadata{}
	n.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	err := g.server.Get(ctx, client.ObjectKey{Name: m.Name}, n)
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for Node %s: %w", m.Name, err)
	}
	err = g.c.Delete(ctx, &ciliumv2.CiliumNode{ObjectMeta: metav1.ObjectMeta{Name: m.Name}}, client.Preconditions{UID: &m.UID})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		g.log.Info("CiliumNode removed, whose Node is gone", "name", m.Name)
	}
	return err
}
