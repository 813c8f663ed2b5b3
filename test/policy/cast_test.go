package policy_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/internal/control/identity"
	"github.com/hypha-net/hypha/internal/control/node"
	"github.com/hypha-net/hypha/internal/model"
)

// Addresses come in pairs: index 0 IPv4, 1 IPv6.
type pair [2]netip.Addr

func addrs(v4, v6 string) pair { return pair{netip.MustParseAddr(v4), netip.MustParseAddr(v6)} }

var (
	router = addrs("10.0.1.1", "fd00:1::1")
	self   = model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}, Routers: router[:]}
	node2 = model.Node{Name: "node2", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("fd00:2::/64")},
		Routers:  []netip.Addr{netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00:2::1")}}
	node3 = model.Node{Name: "node3", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.3.0/24"), netip.MustParsePrefix("fd00:3::/64")},
		Routers:  []netip.Addr{netip.MustParseAddr("10.0.3.1"), netip.MustParseAddr("fd00:3::1")},
		Labels:   model.NewLabels(model.Label{Source: "k8s", Key: "zone", Value: "a"})}
)

// node3ID is the node-local identity of a node with labels of its own.
const node3ID = model.IdentityScopeRemote + 7

// place is how packets of somebody come to a workload here.
type place uint8

const (
	local   place = iota // from the workload's own device
	host                 // from the node's own stack
	routed               // forwarded by the node's stack
	through              // out of the overlay
)

// somebody is one end of a conversation.
type somebody struct {
	name   string
	place  place
	addr   pair
	ep     uint16           // local
	index  int              // of a remote workload
	fixed  model.IdentityID // unless it changes
	labels model.Labels     // of a fixed identity that is not reserved
}

const (
	locals  = 3
	remotes = 4
)

var everybody = cast()

func cast() []*somebody {
	all := []*somebody{
		{name: "router", place: host, addr: router, fixed: model.IdentityHost},
		{name: "node1", place: host, addr: pair(self.Addrs), fixed: model.IdentityHost},
		{name: "node2", place: routed, addr: pair(node2.Addrs), fixed: model.IdentityRemoteNode},
		{name: "router2", place: through, addr: pair(node2.Routers), fixed: model.IdentityRemoteNode},
		{name: "node3", place: routed, addr: pair(node3.Addrs), fixed: node3ID, labels: identity.RemoteNode(&node3, false)},
		{name: "kube-apiserver", place: routed, addr: addrs("203.0.113.6", "2001:db8:5::6"), fixed: model.IdentityKubeAPI},
		// Workloads of node 2 that this node has not heard of yet; it says that nobody manages them.
		{name: "unheard", place: through, addr: addrs("10.0.2.99", "fd00:2::99"), fixed: model.IdentityUnmanaged},
		{name: "health", place: through, addr: addrs("10.0.2.4", "fd00:2::4"), fixed: model.IdentityHealth},
		{name: "ingress", place: through, addr: addrs("10.0.2.8", "fd00:2::8"), fixed: model.IdentityIngress},
		{name: "init", place: through, addr: addrs("10.0.2.5", "fd00:2::5"), fixed: model.IdentityInit},
	}
	for i := range locals {
		b := byte(0x11 + i)
		all = append(all, &somebody{name: "local" + string('1'+byte(i)), place: local, ep: uint16(i + 1),
			addr: pair{netip.AddrFrom4([4]byte{10, 0, 1, b}), netip.AddrFrom16([16]byte{0xfd, 0, 0, 1, 15: b})}})
	}
	for i := range remotes {
		b := byte(0x21 + i)
		all = append(all, &somebody{name: "remote" + string('1'+byte(i)), place: through, index: i,
			addr: pair{netip.AddrFrom4([4]byte{10, 0, 2, b}), netip.AddrFrom16([16]byte{0xfd, 0, 0, 2, 15: b})}})
	}
	for _, o := range []struct{ v4, v6 string }{{"198.51.100.7", "2001:db8:ffff::7"}, {"198.51.100.8", "2001:db8:ffff::8"},
		{"198.51.9.9", "2001:db8:fffe::1"}, {"10.9.9.9", "fd77::1"}, {"8.8.8.8", "2a00::1"}, {"192.0.2.77", "2001:db8::77"}} {
		all = append(all, &somebody{name: "outside " + o.v4, place: routed, addr: addrs(o.v4, o.v6)})
	}
	return all
}

// nodeRows are the agent's rows about nodes and the outside.
func nodeRows(v4, v6 bool) []model.IPEntry {
	p := node.Compute(&self, []model.Node{self, node2, node3}, node.Options{IPv4: v4, IPv6: v6, Device: "hypha_vxlan",
		Identity: func(n *model.Node) model.IdentityID {
			if len(n.Labels) > 0 {
				return node3ID
			}
			return model.IdentityRemoteNode
		}})
	rows := p.Rows
	for _, s := range everybody {
		for v, a := range s.addr {
			switch {
			case v == 0 && !v4 || v == 1 && !v6:
			case s.fixed == model.IdentityKubeAPI:
				rows = append(rows, model.IPEntry{Prefix: single(a), Identity: s.fixed, Source: model.IPSourceKubeAPI})
			case s.fixed == model.IdentityHealth || s.fixed == model.IdentityIngress || s.fixed == model.IdentityInit:
				rows = append(rows, remoteRow(a, s.fixed))
			}
		}
	}
	return rows
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func remoteRow(a netip.Addr, id model.IdentityID) model.IPEntry {
	return model.IPEntry{Prefix: single(a), Identity: id, Tunnel: node2.Addrs[0], Source: model.IPSourceKVStore, NoMasq: true}
}
