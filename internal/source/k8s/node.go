package k8s

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// annotationFlows is where a CiliumNode says at which host:port its flow API is.
const annotationFlows = "network.hypha.io/flow-address"

// Nodes is the membership of the cluster.
type Nodes struct {
	s      *Store
	tab    *table.Table[string, model.Node]
	writer *writer

	mu     sync.Mutex
	node   *metav1.OwnerReference // the Node of this node, once it is known,
	labels map[string]string      // and its labels
	last   *model.Node            // as published
	// requested is what this node needs of pools.
	requested []ciliumv2.PoolRequest
}

func newNodes(s *Store) *Nodes {
	n := &Nodes{s: s, tab: table.New[string, model.Node]("nodes", table.String)}
	n.writer = newWriter(s, s.clients.cilium, "ciliumnodes", func(context.Context, name) (string, string, bool, error) { return "", "", false, nil })
	return n
}

// Table holds the nodes by name, this one included once it is published.
func (n *Nodes) Table() *table.Table[string, model.Node] { return n.tab }

func (n *Nodes) follow() {
	follow(n.s, resource{client: n.s.clients.cilium, name: "ciliumnodes"}, &ciliumv2.CiliumNode{}, &sink[*ciliumv2.CiliumNode]{
		replace: func(all []*ciliumv2.CiliumNode) {
			rows, mine := map[string]model.Node{}, (*ciliumv2.CiliumNode)(nil)
			for _, o := range all {
				if row, ok := n.parse(o); ok {
					rows[row.Name] = row
				}
				if o.Name == n.s.cfg.NodeName {
					mine = o
				}
			}
			replaceAll(n.tab, rows, func(a, b model.Node) bool { return reflect.DeepEqual(a, b) })
			n.s.podPools.learn(mine)
			if mine == nil {
				n.writer.disturbed(name{name: n.s.cfg.NodeName})
			}
		},
		put: func(o *ciliumv2.CiliumNode) {
			if o.Name == n.s.cfg.NodeName {
				n.s.podPools.learn(o)
			}
			row, ok := n.parse(o)
			if !ok {
				n.tab.Delete(o.Name)
			} else if old, had := n.tab.Get(row.Name); !had || !reflect.DeepEqual(old, row) {
				n.tab.Set(row.Name, row)
			}
		},
		remove: func(o *ciliumv2.CiliumNode) {
			n.tab.Delete(o.Name)
			if o.Name == n.s.cfg.NodeName {
				n.s.podPools.learn(nil)
			}
			n.writer.disturbed(name{name: o.Name})
		},
	})
	follow(n.s, resource{client: n.s.clients.core, name: "nodes", fields: "metadata.name=" + n.s.cfg.NodeName}, &corev1.Node{}, &sink[*corev1.Node]{
		replace: func(all []*corev1.Node) {
			for _, o := range all {
				n.learn(o)
			}
		},
		put:    n.learn,
		remove: func(*corev1.Node) {}, // its CiliumNode goes with it
	})
}

// learn takes in what the Node of this node says, which goes into what is published.
func (n *Nodes) learn(o *corev1.Node) {
	n.mu.Lock()
	n.node = &metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: o.Name, UID: o.UID}
	n.labels = o.Labels
	last := n.last
	n.mu.Unlock()
	n.s.services.setNode(o.Labels)
	if last == nil {
		return
	}
	if err := n.Publish(*last); err != nil {
		n.s.log.Error("changed labels of this node not published", "err", err)
	}
}

// parse reads one. A node that claims what no node can have is no member.
func (n *Nodes) parse(o *ciliumv2.CiliumNode) (model.Node, bool) {
	row, err := nodeOf(o)
	if err != nil {
		n.s.log.Warn("CiliumNode not used", "name", o.Name, "err", err)
		return row, false
	}
	row.Cluster = n.s.cfg.ClusterName
	return row, true
}

func nodeOf(o *ciliumv2.CiliumNode) (row model.Node, err error) {
	row = model.Node{Name: o.Name, BootID: o.Spec.BootID, FlowAddr: o.Annotations[annotationFlows]}
	seen := map[bool]bool{}
	for _, a := range o.Spec.Addresses {
		if a.Type != ciliumv2.NodeInternalIP && a.Type != ciliumv2.NodeCiliumInternalIP {
			continue
		}
		ip, err := netip.ParseAddr(a.IP)
		if err != nil || ip.Zone() != "" || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() {
			return row, fmt.Errorf("%q is no node's address", a.IP)
		}
		if a.Type == ciliumv2.NodeCiliumInternalIP {
			row.Routers = append(row.Routers, ip)
		} else if !seen[ip.Is6()] {
			seen[ip.Is6()] = true
			row.Addrs = append(row.Addrs, ip)
		}
	}
	if row.PodCIDRs, err = podCIDRs(o.Spec.IPAM.PodCIDRs); err != nil {
		return row, err
	}
	for _, a := range o.Spec.IPAM.Pools.Allocated {
		blocks, err := podCIDRs(a.CIDRs)
		if err != nil {
			return row, err
		}
		row.PodCIDRs = append(row.PodCIDRs, blocks...)
	}
	labels := make([]model.Label, 0, len(o.Labels))
	for k, v := range o.Labels {
		labels = append(labels, model.Label{Source: model.SourceNode, Key: k, Value: v})
	}
	row.Labels = model.NewLabels(labels...)
	return row, nil
}

func podCIDRs[S ~string](in []S) (out []netip.Prefix, err error) {
	for _, s := range in {
		p, err := netip.ParsePrefix(string(s))
		if err != nil || p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 {
			return nil, fmt.Errorf("%q is no pod range", s)
		}
		out = append(out, p)
	}
	return out, nil
}

// Publish declares what this node is.
func (n *Nodes) Publish(node model.Node) error {
	if node.Name != n.s.cfg.NodeName {
		return fmt.Errorf("publish node: %q is not this node (%q)", node.Name, n.s.cfg.NodeName)
	}
	n.mu.Lock()
	n.last = &node
	n.mu.Unlock()
	o := n.object(node)
	if n.s.cfg.IPAM == IPAMKubernetes {
		for _, p := range node.PodCIDRs {
			o.Spec.IPAM.PodCIDRs = append(o.Spec.IPAM.PodCIDRs, ciliumv2.CIDR(p.String()))
		}
	}
	return n.writer.put(name{name: o.Name}, o)
}

// object is the CiliumNode without pod ranges, which are not always this node's to say.
func (n *Nodes) object(node model.Node) *ciliumv2.CiliumNode {
	o := &ciliumv2.CiliumNode{TypeMeta: metav1.TypeMeta{APIVersion: ciliumv2.GroupVersion.String(), Kind: "CiliumNode"}}
	o.Name = node.Name
	o.Spec.BootID = node.BootID
	for _, a := range node.Addrs {
		o.Spec.Addresses = append(o.Spec.Addresses, ciliumv2.NodeAddress{Type: ciliumv2.NodeInternalIP, IP: a.String()})
	}
	for _, a := range node.Routers {
		o.Spec.Addresses = append(o.Spec.Addresses, ciliumv2.NodeAddress{Type: ciliumv2.NodeCiliumInternalIP, IP: a.String()})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	o.Spec.IPAM.Pools.Requested = n.requested
	o.Labels = maps.Clone(n.labels)
	for _, l := range node.Labels {
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[l.Key] = l.Value
	}
	o.Annotations = map[string]string{}
	if node.FlowAddr != "" {
		o.Annotations[annotationFlows] = node.FlowAddr
	}
	if n.s.cfg.EndpointSlices {
		o.Annotations[ciliumv2alpha1.AnnotationSlices] = "true"
	}
	if n.node != nil { // it goes with the Node
		o.OwnerReferences = []metav1.OwnerReference{*n.node}
	}
	return o
}

// self reads the Node of this node.
func (n *Nodes) self(ctx context.Context) (*corev1.Node, error) {
	var node corev1.Node
	if err := get(ctx, n.s.clients.core, "nodes", "", n.s.cfg.NodeName, &node); err != nil {
		if apierrors.IsNotFound(err) { // the kubelet has not registered it yet
			err = fmt.Errorf("%w: %w", state.ErrUnreachable, err)
		}
		return nil, wrap("ask for Node "+n.s.cfg.NodeName, err)
	}
	n.learn(&node)
	return &node, nil
}
