package filter

import (
	"errors"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

func node(b *builder) {
	anyOf(b, "node_name", b.f.GetNodeName(), nodeName, func(f *flowpb.Flow) string { return f.GetNodeName() })
	anyOf(b, "node_labels", b.f.GetNodeLabels(), b.selector, func(f *flowpb.Flow) []string { return f.GetNodeLabels() })
}

// nodeName matches "[cluster/]node", where "*" stands for any text. Without a slash any cluster will do; with nothing
// after the slash any node of the cluster. A node name without a cluster is of the cluster "default".
func nodeName(s string) (func(string) bool, error) {
	cluster, name, slash := strings.Cut(s, "/")
	if !slash {
		cluster, name = "*", s
	}
	if slash && name == "" {
		name = "*"
	}
	if slash && cluster == "" {
		cluster = "*"
	}
	if name == "" || strings.Contains(name, "/") {
		return nil, errors.New("want [CLUSTER/]NODE, in which * stands for any text")
	}
	c, err := glob(cluster)
	if err != nil {
		return nil, err
	}
	n, err := glob(name)
	if err != nil {
		return nil, err
	}
	return func(have string) bool {
		hc, hn, ok := strings.Cut(have, "/")
		if !ok {
			hc, hn = "default", have
		}
		return hn != "" && c(hc) && n(hn)
	}, nil
}
