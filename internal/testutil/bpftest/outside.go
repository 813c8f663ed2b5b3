package bpftest

import (
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/bpf/maps"
)

// OpenOutside makes the last device the one to the outside: with the node's addresses, which workloads leave under, routes
// to everywhere, and an MTU. It returns its interface index.
func (e *Env) OpenOutside(mtu int) int {
	e.t.Helper()
	index := e.Dev[len(e.Dev)-1]
	var name string
	e.NS.In(func() error {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		name = l.Attrs().Name
		return netlink.LinkSetMTU(l, mtu)
	})
	e.NS.Addr(name, Node1[0].String()+"/24", Node1[1].String()+"/64")
	e.NS.Set("net.ipv4.ip_forward", "1")
	e.NS.Set("net.ipv6.conf.all.forwarding", "1")
	e.NS.Route("default", "192.0.2.254")
	e.NS.Route("::/0", "2001:db8::fe")
	e.Put(e.Maps.DevicesV1, uint32(index), maps.Device{Masq4: maps.AddrFrom(Node1[0]), Masq6: maps.AddrFrom(Node1[1]), Mtu: uint32(mtu)})
	return index
}
