package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check says what is wrong with a pair, all of it; nil if it is up and as wanted.
func (p *Pairs) Check(_ context.Context, spec Spec) error {
	if err := spec.check(); err != nil {
		return fmt.Errorf("check device pair: %w", err)
	}
	s, err := enter(spec.NetNS)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	host, err := p.host.LinkByName(spec.HostIfName)
	if err != nil {
		return fmt.Errorf("check device %s: %w", spec.HostIfName, err)
	}
	pod, err := s.LinkByName(spec.IfName)
	if err != nil {
		return fmt.Errorf("check device %s inside: %w", spec.IfName, err)
	}
	var failed error
	wrong := func(format string, args ...any) { failed = errors.Join(failed, fmt.Errorf(format, args...)) }
	if !isPair(host, pod) {
		wrong("devices %s and %s inside are not one pair", spec.HostIfName, spec.IfName)
	}
	for _, l := range []netlink.Link{host, pod} {
		if l.Attrs().Flags&net.FlagUp == 0 {
			wrong("device %s is down", l.Attrs().Name)
		}
		if l.Attrs().MTU != spec.MTU {
			wrong("device %s has MTU %d, want %d", l.Attrs().Name, l.Attrs().MTU, spec.MTU)
		}
	}
	if spec.MAC != "" && pod.Attrs().HardwareAddr.String() != spec.MAC {
		wrong("device %s inside has MAC address %s, want %s", spec.IfName, pod.Attrs().HardwareAddr, spec.MAC)
	}
	have, err := s.AddrList(pod, unix.AF_UNSPEC)
	if err != nil {
		return errors.Join(failed, fmt.Errorf("list addresses inside: %w", err))
	}
	for _, a := range spec.Addrs {
		want := ipNet(a).String()
		if !slices.ContainsFunc(have, func(x netlink.Addr) bool { return x.IPNet.String() == want }) {
			wrong("device %s inside lacks address %s", spec.IfName, want)
		}
		routes := podRoutes(pod.Attrs().Index, a, spec.gateway(a.Is6()))
		failed = errors.Join(failed, hasRoutes(s.Handle, pod, family(a.Is6()), "inside", routes...),
			hasRoutes(p.host, host, family(a.Is6()), "on the node", hostRoute(host.Attrs().Index, a, spec.gateway(a.Is6()))))
	}
	return failed
}

// hasRoutes looks for routes over a device by destination and gateway.
func hasRoutes(h *netlink.Handle, l netlink.Link, family int, where string, want ...*netlink.Route) error {
	have, err := h.RouteList(l, family)
	if err != nil {
		return fmt.Errorf("list routes %s: %w", where, err)
	}
	var failed error
	for _, w := range want {
		if !slices.ContainsFunc(have, func(r netlink.Route) bool {
			return r.Dst != nil && r.Dst.String() == w.Dst.String() && r.Gw.Equal(w.Gw)
		}) {
			failed = errors.Join(failed, fmt.Errorf("there is no route %s %s", w.Dst, where))
		}
	}
	return failed
}
