package model

import "net/netip"

// Node is a member of the cluster.
type Node struct {
	Name     string         `json:"name"`
	Cluster  string         `json:"cluster"`
	Addrs    []netip.Addr   `json:"addresses"` // on the underlay, at most one of each version
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	Routers  []netip.Addr   `json:"routers"` // its own addresses inside its pod ranges
	Labels   Labels         `json:"labels,omitempty"`
	FlowAddr string         `json:"flowAddress,omitempty"` // host:port of its flow API
	BootID   string         `json:"bootID,omitempty"`
}

// Addr is the underlay address of the wanted version, or the zero Addr.
func (n *Node) Addr(v6 bool) netip.Addr {
	for _, a := range n.Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}
