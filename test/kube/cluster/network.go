package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
)

// bridge joins all in the world's namespace.
const bridge = "br0"

// wire makes the namespaces and the network between them.
func (c *Cluster) wire() error {
	if err := c.free(); err != nil {
		return err
	}
	w, err := netns.Create(c.nsName(world))
	if err != nil {
		return err
	}
	if err := w.Bridge(bridge); err != nil {
		return err
	}
	if err := w.AddAddr(bridge, c.interfaces(routerHost)...); err != nil {
		return err
	}
	if err := c.plugSelf(w); err != nil {
		return fmt.Errorf("connect this machine with the cluster: %w", err)
	}
	if err := c.plug(w, control, controlHost); err != nil {
		return err
	}
	for _, n := range c.workers() {
		if err := c.plug(w, n.name, n.host); err != nil {
			return err
		}
	}
	return nil
}

// free is an error where this machine uses the cluster's network for something else.
func (c *Cluster) free() error {
	ours := netip.PrefixFrom(c.addrs(0)[0], 24)
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("look at this machine's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 && netip.PrefixFrom(addr, bits).Overlaps(ours) {
			return fmt.Errorf("this machine has a route to %s, which covers the cluster's network %s: another name has another network", r.Dst, ours)
		}
	}
	return nil
}

// plug gives a machine its namespace, with eth0 on the bridge.
func (c *Cluster) plug(w *netns.NS, name string, host byte) error {
	ns, err := netns.Create(c.nsName(name))
	if err != nil {
		return err
	}
	if err := netns.Veth(w, name, ns, "eth0"); err != nil {
		return err
	}
	if err := w.SetMaster(name, bridge); err != nil {
		return err
	}
	if err := ns.AddAddr("eth0", c.interfaces(host)...); err != nil {
		return err
	}
	for _, via := range c.addrs(routerHost) {
		dst := "0.0.0.0/0"
		if via.Is6() {
			dst = "::/0"
		}
		if err := ns.AddRoute(dst, via.String()); err != nil {
			return err
		}
	}
	return nil
}

// plugSelf gives the machine itself a device on the bridge, which takes its addresses and routes with it when it goes.
func (c *Cluster) plugSelf(w *netns.NS) error {
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = here.Close() }()
	if err := w.Do(func() error {
		l := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: c.prefix(), PeerNamespace: netlink.NsFd(int(here.Fd()))}
		l.Name = "machine"
		return netlink.LinkAdd(l)
	}); err != nil {
		return err
	}
	if err := errors.Join(w.SetMaster("machine", bridge), w.SetUp("machine")); err != nil {
		return err
	}
	l, err := netlink.LinkByName(c.prefix())
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, s := range c.interfaces(machineHost) {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if len(a.IP.To4()) != net.IPv4len {
			a.Flags |= unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("address %s: %w", s, err)
		}
	}
	return nil
}

// unplugSelf deletes the machine's own device; nil when there is none.
func (c *Cluster) unplugSelf() error {
	l, err := netlink.LinkByName(c.prefix())
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("disconnect this machine from the cluster: %w", err)
	}
	return nil
}
