package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth makes a device pair, both ends up: aName in a, bName in b.
func Veth(a *NS, aName string, b *NS, bName string) error {
	f, err := os.Open(b.Path())
	if err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = a.Do(func() error {
		l := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: bName, PeerNamespace: netlink.NsFd(int(f.Fd()))}
		l.Name = aName
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return up(aName)
	})
	if err == nil {
		err = b.Do(func() error { return up(bName) })
	}
	if err != nil {
		return fmt.Errorf("make veth pair %s in %s, %s in %s: %w", aName, a.name, bName, b.name, err)
	}
	return nil
}

// Bridge makes a bridge that is up, with these devices of the namespace as its ports.
func (n *NS) Bridge(name string, ports ...string) error {
	err := n.Do(func() error {
		b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		b.Name = name
		if err := netlink.LinkAdd(b); err != nil {
			return err
		}
		return up(name)
	})
	if err != nil {
		return fmt.Errorf("make bridge %s in %s: %w", name, n.name, err)
	}
	for _, p := range ports {
		if err := n.SetMaster(p, name); err != nil {
			return err
		}
	}
	return nil
}

// SetMaster makes a device a port of a bridge.
func (n *NS) SetMaster(dev, bridge string) error {
	return n.withLink(dev, func(l netlink.Link) error {
		b, err := netlink.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", bridge, err)
		}
		return netlink.LinkSetMaster(l, b)
	})
}

// DeleteLink deletes a device, with its peer if it is one of a pair; nil when there is none.
func (n *NS) DeleteLink(dev string) error {
	err := n.withLink(dev, netlink.LinkDel)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	return err
}

// AddAddr gives a device addresses ("10.0.0.1/24"), usable at once: IPv6 ones without duplicate address detection.
func (n *NS) AddAddr(dev string, addrs ...string) error {
	return n.withLink(dev, func(l netlink.Link) error {
		for _, s := range addrs {
			a, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			if a.IP.To4() == nil {
				a.Flags |= unix.IFA_F_NODAD
			}
			if err := netlink.AddrReplace(l, a); err != nil {
				return fmt.Errorf("address %s: %w", s, err)
			}
		}
		return nil
	})
}

// DeleteAddr takes addresses off a device; one that is not there is no error.
func (n *NS) DeleteAddr(dev string, addrs ...string) error {
	return n.withLink(dev, func(l netlink.Link) error {
		for _, s := range addrs {
			a, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			if err := netlink.AddrDel(l, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("address %s: %w", s, err)
			}
		}
		return nil
	})
}

// DeleteRoute takes the route to a prefix away; it is no error when there is none.
func (n *NS) DeleteRoute(dst string) error {
	err := n.Do(func() error {
		_, p, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteDel(&netlink.Route{Dst: p}); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove route %s in %s: %w", dst, n.name, err)
	}
	return nil
}

// AddRoute sends what goes to dst ("10.1.0.0/16", "default", "::/0") through the gateway.
func (n *NS) AddRoute(dst, via string) error {
	err := n.Do(func() error {
		gw, err := netip.ParseAddr(via)
		if err != nil {
			return err
		}
		if dst == "default" {
			dst = "0.0.0.0/0"
			if gw.Is6() {
				dst = "::/0"
			}
		}
		p, err := netip.ParsePrefix(dst)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
			Gw:  gw.AsSlice(),
		})
	})
	if err != nil {
		return fmt.Errorf("route %s via %s in %s: %w", dst, via, n.name, err)
	}
	return nil
}

// SetMTU sets a device's MTU in bytes.
func (n *NS) SetMTU(dev string, mtu int) error {
	return n.withLink(dev, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
}

// SetUp brings a device up.
func (n *NS) SetUp(dev string) error {
	return n.withLink(dev, netlink.LinkSetUp)
}

// MTU is a device's MTU in bytes.
func (n *NS) MTU(dev string) (mtu int, err error) {
	err = n.withLink(dev, func(l netlink.Link) error { mtu = l.Attrs().MTU; return nil })
	return mtu, err
}

// MAC is a device's hardware address.
func (n *NS) MAC(dev string) (mac net.HardwareAddr, err error) {
	err = n.withLink(dev, func(l netlink.Link) error { mac = l.Attrs().HardwareAddr; return nil })
	return mac, err
}

// HasLink says whether the namespace has a device of this name.
func (n *NS) HasLink(dev string) bool {
	return n.Do(func() error { _, err := netlink.LinkByName(dev); return err }) == nil
}

// Links are the names of the namespace's devices.
func (n *NS) Links() (names []string, err error) {
	err = n.Do(func() error {
		ls, err := netlink.LinkList()
		for _, l := range ls {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return names, err
}

func (n *NS) withLink(dev string, fn func(netlink.Link) error) error {
	err := n.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return fn(l)
	})
	if err != nil {
		return fmt.Errorf("device %s in %s: %w", dev, n.name, err)
	}
	return nil
}

func up(dev string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	return netlink.LinkSetUp(l)
}

func loopbackUp() error {
	if err := up("lo"); err != nil {
		return errors.Join(errors.New("bring loopback up"), err)
	}
	return nil
}
