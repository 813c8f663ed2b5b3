// Package taint lets pods onto nodes whose agent is ready: it takes the taint away that keeps them off, puts it on nodes whose agent is
// there and not ready, and says on the node that its network is there.
package taint

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Config of it.
type Config struct {
	Key       string          // of the taint
	Remove    bool            // from nodes whose agent is ready
	Set       bool            // on nodes that have an agent that is not
	Condition bool            // whether the node's condition is set
	Namespace string          // of the agents' pods,
	Labels    labels.Selector // and their labels
	Workers   int
}

// The node's condition, as people know it.
const (
	reason  = "CiliumIsUp"
	message = "Cilium is running on this node"
)

// byNode is the index of pods.
const byNode = "spec.nodeName"

// Add runs it with the manager, whose cache needs to hold the agents' pods only.
func Add(ctx context.Context, mgr ctrl.Manager, cfg Config) error {
	index := func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }
	if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, byNode, index); err != nil {
		return fmt.Errorf("index pods: %w", err)
	}
	r := &remover{cfg: cfg, c: mgr.GetClient()}
	node := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		name := o.(*corev1.Pod).Spec.NodeName
		if name == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: name}}}
	})
	return ctrl.NewControllerManagedBy(mgr).Named("taint").For(&corev1.Node{}).Watches(&corev1.Pod{}, node).
		WithOptions(controller.Options{MaxConcurrentReconciles: cfg.Workers}).Complete(r)
}

type remover struct {
	cfg Config
	c   client.Client
}

// Reconcile looks at one node.
func (r *remover) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var node corev1.Node
	if err := r.c.Get(ctx, req.NamespacedName, &node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	tainted := slices.ContainsFunc(node.Spec.Taints, r.ours)
	there, ready, err := r.agent(ctx, node.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !ready {
		if there && !tainted && r.cfg.Set {
			err = r.taints(ctx, &node, append(slices.Clone(node.Spec.Taints), corev1.Taint{Key: r.cfg.Key, Effect: corev1.TaintEffectNoSchedule}))
		}
		return reconcile.Result{}, err
	}
	// The condition first: pods that tolerate no node without network wait for it too.
	if r.cfg.Condition && !up(&node) {
		old := node.DeepCopy()
		setUp(&node)
		if err := r.c.Status().Patch(ctx, &node, client.StrategicMergeFrom(old)); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if tainted && r.cfg.Remove {
		err = r.taints(ctx, &node, slices.DeleteFunc(slices.Clone(node.Spec.Taints), r.ours))
	}
	return reconcile.Result{}, err
}

// agent says whether a node has an agent that is to stay, and whether it serves.
func (r *remover) agent(ctx context.Context, node string) (there, serves bool, err error) {
	var pods corev1.PodList
	err = r.c.List(ctx, &pods, client.InNamespace(r.cfg.Namespace), client.MatchingLabelsSelector{Selector: r.cfg.Labels}, client.MatchingFields{byNode: node})
	if err != nil {
		return false, false, fmt.Errorf("list agents: %w", err)
	}
	for i := range pods.Items {
		there = there || pods.Items[i].DeletionTimestamp == nil
		serves = serves || ready(&pods.Items[i])
	}
	return there, serves, nil
}

// taints writes a node's. The list is written as a whole, so it has to be the one that was read.
func (r *remover) taints(ctx context.Context, node *corev1.Node, all []corev1.Taint) error {
	old := node.DeepCopy()
	node.Spec.Taints = all
	return client.IgnoreNotFound(r.c.Patch(ctx, node, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})))
}

func (r *remover) ours(t corev1.Taint) bool { return t.Key == r.cfg.Key }

// ready says whether an agent's pod serves.
func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// up says whether the node says that its network is there, and that we said so.
func up(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionFalse && c.Reason == reason
	})
}

func setUp(n *corev1.Node) {
	now := metav1.Now()
	c := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastHeartbeatTime: now, LastTransitionTime: now}
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeNetworkUnavailable })
	if i < 0 {
		n.Status.Conditions = append(n.Status.Conditions, c)
		return
	}
	n.Status.Conditions[i] = c
}
