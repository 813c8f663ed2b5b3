// Package unmanaged restarts pods that the cluster's DNS depends on and that were started before there was an agent on their node: they
// have no endpoint, so no policy and no identity. By default these are the pods of kube-dns.
package unmanaged

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/operator/every"
)

// Config of it.
type Config struct {
	Interval  time.Duration
	Selector  labels.Selector // of the pods that are restarted, in all namespaces
	Namespace string          // of the agents' pods,
	Agents    labels.Selector // and their labels
}

const (
	young  = 30 * time.Second // a pod of this age may only just have an endpoint
	pause  = 5 * time.Minute  // between two restarts of pods of one name: something else may be wrong
	atOnce = 1                // pods restarted in a round: the others serve meanwhile
)

// Add runs it with the manager.
func Add(mgr ctrl.Manager, cfg Config, log *slog.Logger) error {
	r := &restarter{cfg: cfg, c: mgr.GetClient(), server: mgr.GetAPIReader(), log: log, now: time.Now, last: map[types.NamespacedName]time.Time{}}
	return every.Add(mgr, cfg.Interval, log, "pods without an endpoint not restarted", r.restart)
}

type restarter struct {
	cfg    Config
	c      client.Client
	server client.Reader // the API server itself
	log    *slog.Logger
	now    func() time.Time
	last   map[types.NamespacedName]time.Time // restarts
}

// restart looks once.
func (r *restarter) restart(ctx context.Context) error {
	for name, at := range r.last {
		if r.now().Sub(at) > pause {
			delete(r.last, name)
		}
	}
	var found []corev1.Pod
	var pods corev1.PodList
	if err := every.Page(ctx, r.server, &pods, func() {
		for i := range pods.Items {
			if r.old(&pods.Items[i]) {
				found = append(found, pods.Items[i])
			}
		}
	}, client.MatchingLabelsSelector{Selector: r.cfg.Selector}); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for i, n := 0, 0; i < len(found) && n < atOnce; i++ {
		done, err := r.one(ctx, &found[i])
		if err != nil {
			return fmt.Errorf("pod %s/%s: %w", found[i].Namespace, found[i].Name, err)
		}
		if done {
			n++
		}
	}
	return nil
}

// old says whether a pod runs in the cluster's network for so long that it should have an endpoint.
func (r *restarter) old(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning &&
		p.Status.StartTime != nil && r.now().Sub(p.Status.StartTime.Time) > young &&
		r.last[client.ObjectKeyFromObject(p)].IsZero()
}

// one restarts a pod, unless it has an endpoint, or its node no agent that would give it one.
func (r *restarter) one(ctx context.Context, p *corev1.Pod) (bool, error) {
	err := r.server.Get(ctx, client.ObjectKeyFromObject(p), &ciliumv2.CiliumEndpoint{})
	if err == nil {
		return false, nil
	}
	if !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("look for its endpoint: %w", err)
	}
	served, err := r.served(ctx, p.Spec.NodeName)
	if err != nil || !served {
		return false, err
	}
	err = r.c.Delete(ctx, p, client.Preconditions{UID: &p.UID})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.last[client.ObjectKeyFromObject(p)] = r.now()
	r.log.Info("pod restarted: it had no endpoint", "namespace", p.Namespace, "name", p.Name, "node", p.Spec.NodeName)
	return true, nil
}

// served says whether there is a node's agent.
func (r *restarter) served(ctx context.Context, node string) (bool, error) {
	var agents corev1.PodList
	if err := r.c.List(ctx, &agents, client.InNamespace(r.cfg.Namespace), client.MatchingLabelsSelector{Selector: r.cfg.Agents}); err != nil {
		return false, fmt.Errorf("list agents: %w", err)
	}
	for i := range agents.Items {
		if agents.Items[i].Spec.NodeName != node {
			continue
		}
		for _, c := range agents.Items[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
	}
	return false, nil
}
