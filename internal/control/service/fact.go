package service

import (
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ Low, High uint16 }

// Has says whether the range holds a port.
func (r PortRange) Has(port uint16) bool { return r.Low <= port && port <= r.High }

// Facts is what a service is judged by: whose addresses are whose. It does not change once made.
type Facts struct {
	ports PortRange
	nodes map[netip.Addr]string
	pods  map[netip.Prefix]string
	bits  [2][]int // lengths of the prefixes in pods, longest first, by IP version (IPv4 first)
}

// NewFacts makes facts of the cluster's nodes and the range of node ports.
func NewFacts(ports PortRange, nodes []model.Node) *Facts {
	f := &Facts{ports: ports, nodes: map[netip.Addr]string{}, pods: map[netip.Prefix]string{}}
	for _, n := range nodes {
		for _, a := range n.Addrs {
			f.nodes[a] = n.Name
		}
		for _, p := range n.PodCIDRs {
			f.pods[p.Masked()] = n.Name
			v := version(p.Addr())
			if !slices.Contains(f.bits[v], p.Bits()) {
				f.bits[v] = append(f.bits[v], p.Bits())
			}
		}
	}
	for v := range f.bits {
		slices.Sort(f.bits[v])
		slices.Reverse(f.bits[v])
	}
	return f
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// node is the node that has an address on the underlay.
func (f *Facts) node(a netip.Addr) (string, bool) {
	n, ok := f.nodes[a]
	return n, ok
}

// pod is the node among whose pods an address is.
func (f *Facts) pod(a netip.Addr) (node string, in netip.Prefix, ok bool) {
	for _, bits := range f.bits[version(a)] {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if n, ok := f.pods[p]; ok {
			return n, p, true
		}
	}
	return "", netip.Prefix{}, false
}
