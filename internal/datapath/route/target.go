package route

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/model"
)

// ErrForeign says that a route which is not Hypha's has the same destination.
var ErrForeign = errors.New("another route to this destination exists, not made by Hypha: remove it or exclude the prefix")

// Target brings the routes of the calling thread's network namespace in line with a table of model.Route. It is a
// table.Target.
type Target struct {
	h *netlink.Handle
}

// New opens a netlink socket.
func New() (*Target, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Target{h: h}, nil
}

// Close closes the socket; routes stay.
func (t *Target) Close() { t.h.Close() }

// Update sets one route.
func (t *Target) Update(_ context.Context, p netip.Prefix, r model.Route) error {
	want, err := t.route(r)
	if err != nil {
		return err
	}
	have, err := t.to(p)
	if err != nil {
		return err
	}
	own := false
	for _, x := range have {
		switch {
		case x.Protocol == Protocol && same(&x, want):
			return nil
		case x.Protocol == Protocol:
			own = true
		case x.Priority == priority(p): // another metric is another place
			return fmt.Errorf("set route to %s: %w", p, ErrForeign)
		}
	}
	if own {
		err = t.h.RouteReplace(want)
	} else {
		err = t.h.RouteAdd(want)
	}
	if errors.Is(err, unix.EEXIST) {
		err = ErrForeign
	}
	if err != nil {
		return fmt.Errorf("set route to %s: %w", p, err)
	}
	return nil
}

// Delete removes one route of ours; absent is no error.
func (t *Target) Delete(_ context.Context, p netip.Prefix) error {
	have, err := t.to(p)
	if err != nil {
		return err
	}
	return t.remove(have, func(*netlink.Route) bool { return true })
}

// Prune removes the routes of ours that no row asks for.
func (t *Target) Prune(_ context.Context, want map[netip.Prefix]model.Route) error {
	have, err := t.list()
	if err != nil {
		return err
	}
	return t.remove(have, func(r *netlink.Route) bool {
		_, ok := want[prefixOf(r)]
		return !ok
	})
}

// Clear removes all routes of ours; for cleanup.
func (t *Target) Clear(ctx context.Context) error { return t.Prune(ctx, nil) }

func (t *Target) remove(rs []netlink.Route, which func(*netlink.Route) bool) error {
	var failed error
	for i := range rs {
		r := &rs[i]
		if r.Protocol != Protocol || !which(r) {
			continue
		}
		if err := t.h.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = errors.Join(failed, fmt.Errorf("delete route to %s: %w", prefixOf(r), err))
		}
	}
	return failed
}

// to lists the routes to exactly this prefix in the main table, whoever made them.
func (t *Target) to(p netip.Prefix) ([]netlink.Route, error) {
	have, err := t.h.RouteListFiltered(family(p), &netlink.Route{Table: unix.RT_TABLE_MAIN, Dst: ipNet(p)},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes to %s: %w", p, err)
	}
	return have, nil
}

// list reads our routes of both versions.
func (t *Target) list() ([]netlink.Route, error) {
	var out []netlink.Route
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := t.h.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: Protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

// route is the kernel's form of a row.
func (t *Target) route(r model.Route) (*netlink.Route, error) {
	out := &netlink.Route{Dst: ipNet(r.Prefix), Protocol: Protocol, Family: family(r.Prefix), Table: unix.RT_TABLE_MAIN,
		Priority: priority(r.Prefix), MTU: r.MTU}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.Device != "" {
		l, err := t.h.LinkByName(r.Device)
		if err != nil {
			return nil, fmt.Errorf("set route to %s: find device %s: %w", r.Prefix, r.Device, err)
		}
		out.LinkIndex = l.Attrs().Index
	}
	return out, nil
}

// same says whether a route that the kernel holds is the wanted one.
func same(have, want *netlink.Route) bool {
	return have.Gw.Equal(want.Gw) && have.Src.Equal(want.Src) && have.MTU == want.MTU &&
		(want.LinkIndex == 0 || have.LinkIndex == want.LinkIndex) && len(have.MultiPath) == 0
}

// priority is the metric: what the kernel takes when none is given.
func priority(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 1024
	}
	return 0
}

func family(p netip.Prefix) int {
	if p.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(r *netlink.Route) netip.Prefix {
	if r.Dst == nil { // the default route, from an older netlink
		if r.Family == unix.AF_INET6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	if r.Family != unix.AF_INET6 {
		a = a.Unmap()
	}
	ones, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a, ones)
}
