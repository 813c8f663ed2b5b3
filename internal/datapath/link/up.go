package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/route"
)

// Up brings both ends up and sets the routes on both: now traffic can flow. It repairs what others removed.
func (p *Pairs) Up(ctx context.Context, spec Spec) error {
	if err := spec.check(); err != nil {
		return fmt.Errorf("bring up device pair: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := enter(spec.NetNS)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	host, pod, err := p.find(s, &spec)
	if err != nil {
		return err
	}
	if host == nil {
		return fmt.Errorf("bring up device pair: there is no device %s", spec.HostIfName)
	}
	if err := p.host.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring up %s: %w", spec.HostIfName, err)
	}
	for _, a := range spec.Addrs {
		if err := p.hostRoute(host, pod.Attrs().HardwareAddr, a, spec.gateway(a.Is6())); err != nil {
			return err
		}
	}
	if err := p.podUp(s, pod, &spec); err != nil {
		return err
	}
	return p.carry(ctx, host)
}

// carryTime is how long the kernel may take to notice a carrier; it does so from a work queue.
const carryTime = 5 * time.Second

// carry waits until the host's end sends: it got its carrier only when the other end came up, and until the kernel has
// acted on that, it silently drops what the node sends to the workload.
func (p *Pairs) carry(ctx context.Context, host netlink.Link) error {
	ctx, stop := context.WithTimeout(ctx, carryTime)
	defer stop()
	for {
		l, err := p.host.LinkByIndex(host.Attrs().Index)
		if err != nil {
			return fmt.Errorf("look at device %s: %w", host.Attrs().Name, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the carrier of %s, whose state is %s: %w", host.Attrs().Name, l.Attrs().OperState, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// hostRoute makes the address reachable from the node's own stack: a route, and a neighbour that needs no asking.
func (p *Pairs) hostRoute(host netlink.Link, mac net.HardwareAddr, a, src netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: host.Attrs().Index, Family: family(a.Is6()), State: netlink.NUD_PERMANENT,
		IP: a.AsSlice(), HardwareAddr: mac}
	if err := p.host.NeighSet(n); err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", a, host.Attrs().Name, err)
	}
	r := hostRoute(host.Attrs().Index, a, src)
	err := p.host.RouteReplace(r)
	if errors.Is(err, unix.EINVAL) { // the router address is not on the node (yet): any source will do
		r.Src = nil
		err = p.host.RouteReplace(r)
	}
	if err != nil {
		return fmt.Errorf("set route to %s on %s: %w", a, host.Attrs().Name, err)
	}
	return nil
}

func hostRoute(ifindex int, a, src netip.Addr) *netlink.Route {
	return &netlink.Route{LinkIndex: ifindex, Dst: ipNet(a), Src: src.AsSlice(), Scope: netlink.SCOPE_LINK,
		Protocol: route.ProtocolWorkload, Family: family(a.Is6()), Table: unix.RT_TABLE_MAIN}
}

// podUp brings the workload's end and its loopback up and sets its routes: the gateway on the link, all else through it.
func (p *Pairs) podUp(s *space, pod netlink.Link, spec *Spec) error {
	if lo, err := s.LinkByName("lo"); err == nil {
		if err := s.LinkSetUp(lo); err != nil {
			return fmt.Errorf("bring up loopback inside: %w", err)
		}
	}
	if err := s.LinkSetUp(pod); err != nil {
		return fmt.Errorf("bring up %s inside: %w", spec.IfName, err)
	}
	for _, a := range spec.Addrs {
		if a.Is6() { // bringing a device down takes its IPv6 addresses away
			if err := s.AddrReplace(pod, &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}); err != nil {
				return fmt.Errorf("set address %s on %s: %w", a, spec.IfName, err)
			}
		}
		for _, r := range podRoutes(pod.Attrs().Index, a, spec.gateway(a.Is6())) {
			if err := s.RouteReplace(r); err != nil {
				return fmt.Errorf("set route %s inside: %w", r.Dst, err)
			}
		}
	}
	return nil
}

func podRoutes(ifindex int, a, gateway netip.Addr) []*netlink.Route {
	v6 := a.Is6()
	return []*netlink.Route{
		{LinkIndex: ifindex, Dst: ipNet(gateway), Scope: netlink.SCOPE_LINK, Family: family(v6), Table: unix.RT_TABLE_MAIN,
			Protocol: unix.RTPROT_BOOT},
		{LinkIndex: ifindex, Dst: anyNet(v6), Gw: gateway.AsSlice(), Family: family(v6), Table: unix.RT_TABLE_MAIN,
			Flags: int(netlink.FLAG_ONLINK), Protocol: unix.RTPROT_BOOT},
	}
}

func family(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
