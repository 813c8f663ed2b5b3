package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Nodes is the membership of the cluster.
type Nodes struct {
	s *Store
	f *follower[string, model.Node]
}

func newNodes(s *Store) *Nodes {
	n := &Nodes{s: s}
	n.f = &follower[string, model.Node]{
		s: s, prefix: nodeRoot + s.cfg.ClusterName + "/", cache: "nodes.json",
		tab:   table.New[string, model.Node]("nodes", table.String),
		rowOf: func(v model.Node) string { return v.Name },
		parse: parseNode,
	}
	n.f.load()
	return n
}

func parseNode(key string, value []byte) (string, model.Node, bool, error) {
	var v model.Node
	if err := json.Unmarshal(value, &v); err != nil {
		return "", v, false, fmt.Errorf("node %s: %w", key, err)
	}
	if v.Name != key {
		return "", v, false, fmt.Errorf("node %s: the row is about node %q", key, v.Name)
	}
	for _, a := range v.Addrs {
		if !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return "", v, false, fmt.Errorf("node %s: %q is no node address", key, a)
		}
	}
	for _, p := range v.PodCIDRs {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return "", v, false, fmt.Errorf("node %s: %q is no pod range", key, p)
		}
		if p.Bits() == 0 {
			return "", v, false, fmt.Errorf("node %s: claims every address as its pods'", key)
		}
	}
	return key, v, true, nil
}

func (n *Nodes) run(ctx context.Context) { n.f.run(ctx) }

// Table holds the nodes by name, this one included once it is published.
func (n *Nodes) Table() *table.Table[string, model.Node] { return n.f.tab }

// Publish declares what this node is. It is kept in the store until the agent has been gone for the lease's time.
func (n *Nodes) Publish(node model.Node) error {
	if node.Name != n.s.cfg.NodeName {
		return fmt.Errorf("publish node: %q is not this node (%q)", node.Name, n.s.cfg.NodeName)
	}
	node.Cluster = n.s.cfg.ClusterName
	kv, err := NodeRow(node)
	if err != nil {
		return fmt.Errorf("publish node: %w", err)
	}
	n.s.leases.put(kv.Key, string(kv.Value))
	return nil
}

// Withdraw says that this node leaves the cluster.
func (n *Nodes) Withdraw() { n.s.leases.drop(n.f.prefix + n.s.cfg.NodeName) }

// Remove deletes another node's row, for a node that will not come back; a node that is alive publishes itself again.
func (n *Nodes) Remove(ctx context.Context, name string) error {
	if name == "" {
		return errors.New("remove node: no name")
	}
	if got, err := n.s.Delete(ctx, n.f.prefix+name, false); err != nil {
		return fmt.Errorf("remove node: %w", err)
	} else if got == 0 {
		return fmt.Errorf("remove node %s: %w", name, ErrNoKey)
	}
	return nil
}
