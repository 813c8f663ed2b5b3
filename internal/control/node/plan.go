// Package node decides what this node needs to know of its cluster: which rows about nodes go into the ipcache, and which
// routes lead to other nodes' workloads. It is pure: the nodes and the options in, rows and routes out.
package node

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/hypha-net/hypha/internal/model"
)

// Options are what the node's configuration contributes.
type Options struct {
	Native       bool           // packets to other nodes' workloads go unencapsulated
	DirectRoutes bool           // native: add routes to nodes on the same link (auto-direct-node-routes)
	UnderlayV6   bool           // nodes reach each other by IPv6
	IPv4, IPv6   bool           // versions that workloads have
	Device       string         // of the overlay, "hypha_vxlan"
	MTU          int            // of routes through the overlay, bytes; 0: the device's
	NonMasq      []netip.Prefix // destinations that workloads reach under their own address
	// Reachable says, for DirectRoutes, whether an address is on a link of this node; nil: all are.
	Reachable func(netip.Addr) bool
	// Identity is the identity of a remote node's own addresses; nil: remote-node. See identity.RemoteNode.
	Identity func(*model.Node) model.IdentityID
}

// Plan is what follows from the nodes of the cluster.
type Plan struct {
	Rows   []model.IPEntry // by prefix, each once
	Routes []model.Route   // by prefix
	// Warnings say which nodes cannot be reached, or claim what is not theirs, and why. Nothing of the offending claim is
	// in Rows and Routes.
	Warnings []string
}

// Compute makes the plan of the node self. nodes are all of the cluster, by name; self may be among them. Of two nodes
// that claim the same address or overlapping pod ranges, self wins, then the one that comes first by name.
func Compute(self *model.Node, nodes []model.Node, o Options) Plan {
	c := &compute{o: o, self: self, rows: map[netip.Prefix]model.IPEntry{}, routes: map[netip.Prefix]model.Route{}}
	c.outside()
	c.own()
	others := slices.Clone(nodes)
	slices.SortStableFunc(others, func(a, b model.Node) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	for i := range others {
		if others[i].Name != self.Name {
			c.remote(&others[i])
		}
	}
	p := Plan{Warnings: c.warnings}
	for _, k := range slices.SortedFunc(maps.Keys(c.rows), model.CompareCIDRs) {
		p.Rows = append(p.Rows, c.rows[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.routes), model.CompareCIDRs) {
		p.Routes = append(p.Routes, c.routes[k])
	}
	return p
}

type compute struct {
	o        Options
	self     *model.Node
	rows     map[netip.Prefix]model.IPEntry
	routes   map[netip.Prefix]model.Route
	owner    bart.Table[string] // of addresses and pod ranges, the nodes' names
	warnings []string
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (c *compute) row(e model.IPEntry) { c.rows[e.Prefix] = e }

func (c *compute) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// claim says whether a node may have a prefix, and remembers that it has.
func (c *compute) claim(p netip.Prefix, name string) bool {
	for _, around := range []iter.Seq2[netip.Prefix, string]{c.owner.Supernets(p), c.owner.Subnets(p)} {
		for q, owner := range around {
			if owner != name {
				c.warn("node %s claims %s, which overlaps %s of node %s: ignored", name, p, q, owner)
				return false
			}
		}
	}
	c.owner.Insert(p, name)
	return true
}

func (c *compute) world(v6 bool) model.IdentityID {
	switch {
	case c.o.IPv4 != c.o.IPv6:
		return model.IdentityWorld
	case v6:
		return model.IdentityWorldIPv6
	}
	return model.IdentityWorldIPv4
}

// outside is everything that nothing else says more about.
func (c *compute) outside() {
	for _, p := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		c.row(model.IPEntry{Prefix: p, Identity: c.world(p.Addr().Is6()), Source: model.IPSourceGenerated})
	}
	for _, p := range c.o.NonMasq {
		c.row(model.IPEntry{Prefix: p.Masked(), Identity: c.world(p.Addr().Is6()), Source: model.IPSourceGenerated, NoMasq: true})
	}
}

// own are this node's addresses, routers and pod ranges. In its own pod ranges there is nobody but the endpoints.
func (c *compute) own() {
	for _, p := range c.self.PodCIDRs {
		c.owner.Insert(p, c.self.Name)
		c.row(model.IPEntry{Prefix: p, Identity: model.IdentityUnmanaged, Source: model.IPSourceLocal, LocalCIDR: true, NoMasq: true})
	}
	for _, a := range slices.Concat(c.self.Addrs, c.self.Routers) {
		c.owner.Insert(single(a), c.self.Name)
		c.row(model.IPEntry{Prefix: single(a), Identity: model.IdentityHost, Source: model.IPSourceLocal, Node: true, NoMasq: true, Name: c.self.Name})
	}
}

func (c *compute) remote(n *model.Node) {
	via := n.Addr(c.o.UnderlayV6)
	if !via.IsValid() {
		c.warn("node %s has no IPv%d address: its workloads cannot be reached", n.Name, map[bool]int{false: 4, true: 6}[c.o.UnderlayV6])
	}
	id := model.IdentityRemoteNode
	if c.o.Identity != nil {
		id = c.o.Identity(n)
	}
	for _, a := range n.Addrs {
		if c.claim(single(a), n.Name) {
			// Through the overlay a node answers a workload's address by the overlay, so packets to it keep that address
			// only where there is none.
			c.row(model.IPEntry{Prefix: single(a), Identity: id, Source: model.IPSourceKVStore, Node: true, NoMasq: c.o.Native, Name: n.Name})
		} else if a == via {
			return // not its own: believe nothing that comes by it
		}
	}
	if !via.IsValid() {
		return
	}
	tunnel := via
	if c.o.Native {
		tunnel = netip.Addr{}
	}
	var ranges []netip.Prefix
	for _, p := range n.PodCIDRs {
		if !c.wanted(p) || !c.claim(p, n.Name) {
			continue
		}
		ranges = append(ranges, p)
		c.row(model.IPEntry{Prefix: p, Identity: model.IdentityUnmanaged, Source: model.IPSourceKVStore, Tunnel: tunnel, NoMasq: true, Name: n.Name})
		c.route(n, p, via)
	}
	for _, r := range n.Routers {
		if !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(r) }) {
			continue // of a range that is not wanted or not its own
		}
		c.row(model.IPEntry{Prefix: single(r), Identity: id, Source: model.IPSourceKVStore, Tunnel: tunnel, NoMasq: true, Name: n.Name})
	}
}

func (c *compute) wanted(p netip.Prefix) bool {
	if p.Addr().Is6() {
		return c.o.IPv6
	}
	return c.o.IPv4
}

// route is how this node's own stack, and without overlay its workloads, get to a remote pod range.
func (c *compute) route(n *model.Node, p netip.Prefix, via netip.Addr) {
	v6 := p.Addr().Is6()
	src := netip.Addr{}
	for _, r := range c.self.Routers {
		if r.Is6() == v6 {
			src = r
		}
	}
	if !c.o.Native {
		c.routes[p] = model.Route{Prefix: p, Device: c.o.Device, Src: src, MTU: c.o.MTU}
		return
	}
	if !c.o.DirectRoutes {
		return // somebody else's job
	}
	hop := n.Addr(v6) // a next hop is of the destination's version where the node has one
	if !hop.IsValid() {
		hop = via
	}
	if c.o.Reachable != nil && !c.o.Reachable(hop) {
		c.warn("node %s (%s) is not on a link of this node: no direct route to %s", n.Name, hop, p)
		return
	}
	c.routes[p] = model.Route{Prefix: p, Via: hop}
}
