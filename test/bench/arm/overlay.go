package arm

import (
	"context"
	"errors"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/netns"
)

// CrossNode are the arms over two nodes without Hypha.
func CrossNode() []Arm {
	return []Arm{
		&twoNodes{label: label{"XV", "two nodes, the kernel's VXLAN and routing, no policy, no conntrack"}, vxlan: true},
		&twoNodes{label: label{"XVct", "two nodes, the kernel's VXLAN and routing, conntrack loaded"}, vxlan: true, ct: true},
		&twoNodes{label: label{"XR", "two nodes, plain kernel routing without an overlay, conntrack loaded"}, ct: true},
	}
}

// twoNodes is cli - node1 - underlay - node2 - srv.
type twoNodes struct {
	label
	lan
	vxlan, ct bool
}

func (a *twoNodes) Setup(context.Context) (Ends, error) {
	cli, n1, n2, srv := a.space("x-cli"), a.space("x-n1"), a.space("x-n2"), a.space("x-srv")
	a.veth(n1, "cli", cli, "eth0")
	a.veth(n1, "wan", n2, "wan")
	a.veth(n2, "srv", srv, "eth0")
	a.addr(cli, "eth0", cliAddr+"/24")
	a.addr(n1, "cli", cliGate+"/24")
	a.addr(n1, "wan", "172.30.0.1/24")
	a.addr(n2, "wan", "172.30.0.2/24")
	a.addr(n2, "srv", srvGate+"/24")
	a.addr(srv, "eth0", srvAddr+"/24")
	a.route(cli, "default", cliGate)
	a.route(srv, "default", srvGate)
	for _, n := range []*netns.NS{n1, n2} {
		a.sysctl(n, "net.ipv4.ip_forward", "1")
		if a.ct {
			a.conntrack(n)
		}
	}
	if !a.vxlan {
		a.route(n1, "10.201.2.0/24", "172.30.0.2")
		a.route(n2, "10.201.1.0/24", "172.30.0.1")
		return a.ends(cli, srv, srvAddr)
	}
	for _, n := range []*netns.NS{cli, srv} {
		a.do(func() error { return n.SetMTU("eth0", 1450) })
	}
	a.do(func() error { return tunnel(n1, "172.30.0.1", "172.30.0.2") })
	a.do(func() error { return tunnel(n2, "172.30.0.2", "172.30.0.1") })
	a.addr(n1, "vx", "10.201.0.1/30")
	a.addr(n2, "vx", "10.201.0.2/30")
	a.route(n1, "10.201.2.0/24", "10.201.0.2")
	a.route(n2, "10.201.1.0/24", "10.201.0.1")
	return a.ends(cli, srv, srvAddr)
}

// tunnel makes a VXLAN device to one peer.
func tunnel(n *netns.NS, local, remote string) error {
	return n.Do(func() error {
		wan, err := netlink.LinkByName("wan")
		if err != nil {
			return err
		}
		l := &netlink.Vxlan{
			LinkAttrs: netlink.NewLinkAttrs(), VxlanId: 7, Port: 8472, VtepDevIndex: wan.Attrs().Index,
			SrcAddr: net.ParseIP(local), Group: net.ParseIP(remote), Learning: true,
		}
		l.Name, l.MTU = "vx", 1450
		return errors.Join(netlink.LinkAdd(l), netlink.LinkSetUp(l))
	})
}
