package need

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// Nodes are all nodes, the oldest first: where there is not enough for all, those have it that had it first.
func Nodes(ctx context.Context, c client.Reader) ([]ciliumv2.CiliumNode, error) {
	var list ciliumv2.CiliumNodeList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b ciliumv2.CiliumNode) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, nil
}
