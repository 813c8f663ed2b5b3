// Package need is what all ways of giving nodes pod ranges share: who is served first, and how a node is told why it lacks some.
package need

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// Tell says in the status of a node, and by an event, why it has not what it needs; nil: it has. What is told already is not told again,
// and a node that is gone is told nothing.
func Tell(ctx context.Context, c client.Client, recorder events.EventRecorder, n *ciliumv2.CiliumNode, why error) error {
	text := ""
	if why != nil {
		text = why.Error()
	}
	if n.Status.IPAM.OperatorStatus.Error == text {
		return nil
	}
	old := n.DeepCopy()
	n.Status.IPAM.OperatorStatus.Error = text
	err := c.Status().Patch(ctx, n, client.MergeFrom(old))
	if err == nil && why != nil {
		recorder.Eventf(n, nil, corev1.EventTypeWarning, "PodCIDRsFailed", "Assign", "%s", text)
	}
	return client.IgnoreNotFound(err)
}
