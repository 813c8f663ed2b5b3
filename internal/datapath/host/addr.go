package host

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Underlay finds this node's addresses on the underlay: of each IP version the first global address of the device with
// the default route. None is an error.
func Underlay() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() || r.LinkIndex == 0 {
				continue
			}
			if a, ok := global(r.LinkIndex, family); ok {
				out = append(out, a)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no device with a default route has a global address: set --node-ip")
	}
	return out, nil
}

func global(index, family int) (netip.Addr, bool) {
	dev, err := netlink.LinkByIndex(index)
	if err != nil {
		return netip.Addr{}, false
	}
	addrs, err := netlink.AddrList(dev, family)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&(unix.IFA_F_DEPRECATED|unix.IFA_F_TEMPORARY|unix.IFA_F_TENTATIVE) == 0 {
			return ip.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// MTU is the smallest MTU of the devices that hold these addresses, in bytes.
func MTU(addrs []netip.Addr) (int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list devices: %w", err)
	}
	mtu := 0
	for _, want := range addrs {
		found := false
		for _, l := range links {
			has, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return 0, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
			}
			for _, a := range has {
				if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == want {
					found = true
					if mtu == 0 || l.Attrs().MTU < mtu {
						mtu = l.Attrs().MTU
					}
				}
			}
		}
		if !found {
			return 0, fmt.Errorf("node address %s is on no device: correct --node-ip, or bring the device up", want)
		}
	}
	return mtu, nil
}
