package device

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// headless says whether packets on a device of this type begin with the IP header; the kernel's dev_is_mac_header_xmit
// lists the same types.
func headless(encap string) bool {
	switch encap {
	case "none", "void", "ppp", "ipip", "tunnel6", "sit", "gre", "unknown519" /* raw IP */, "unknown823": /* GRE over IPv6 */
		return true
	}
	return false
}

// read asks the kernel for all devices.
func read(h *netlink.Handle) ([]dev, error) {
	links, err := again(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var devs []dev
	place := map[int]int{}
	tagged := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "vlan" {
			tagged[a.ParentIndex] = true
		}
		place[a.Index] = len(devs)
		devs = append(devs, dev{
			Device: Device{Index: a.Index, Name: a.Name, MTU: a.MTU, L3: headless(a.EncapType)},
			up:     a.Flags&net.FlagUp != 0, loopback: a.Flags&net.FlagLoopback != 0, slave: a.MasterIndex != 0,
		})
	}
	for i := range devs {
		devs[i].Tagged = tagged[devs[i].Index]
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		i, known := place[a.LinkIndex]
		if !ok || !known {
			continue
		}
		ip = ip.Unmap()
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
		// IFA_F_SECONDARY and IFA_F_TEMPORARY are the same bit: a second IPv4 address, or one that IPv6 will drop.
		devs[i].addrs = append(devs[i].addrs, addr{ip: ip, usable: a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&unusable == 0,
			stayable: a.Flags&unix.IFA_F_SECONDARY == 0})
	}
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := again(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN, Dst: nil}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		})
		if err != nil {
			return nil, fmt.Errorf("list default routes: %w", err)
		}
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST {
				continue
			}
			hops := r.MultiPath
			if len(hops) == 0 {
				hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex}}
			}
			for _, n := range hops {
				if i, ok := place[n.LinkIndex]; ok {
					devs[i].def = true
				}
			}
		}
	}
	return devs, nil
}

// again repeats a list that changed while it was read, a few times; the last is taken as it is, for every change brings
// another look.
func again[T any](list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range 3 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, nil
}
