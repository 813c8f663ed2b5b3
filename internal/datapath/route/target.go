package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/model"
)

// ErrForeign says that a route which is not Hypha's has the same destination.
var ErrForeign = errors.New("another route to this destination exists, not made by Hypha: remove it or exclude the prefix")

// Target brings the routes of the calling thread's network namespace in line with a table of model.Route. It is a
// table.Target, and a table.Looker: listing routes costs the more the more there are, so it is done once for many of them.
type Target struct {
	h *netlink.Handle

	mu      sync.Mutex
	have    map[netip.Prefix]netlink.Route // ours, as Look found them and we changed them since
	devices map[string]int                 // index by name, as far as asked since Look
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

// Look reads our routes. What is called next goes by them; without Look they are read then.
func (t *Target) Look(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.look()
}

func (t *Target) look() error {
	have := map[netip.Prefix]netlink.Route{}
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := t.h.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: Protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list routes: %w", err)
		}
		for i := range rs {
			have[prefixOf(&rs[i])] = rs[i]
		}
	}
	t.have, t.devices = have, map[string]int{}
	return nil
}

// seen looks unless somebody has.
func (t *Target) seen() error {
	if t.have != nil {
		return nil
	}
	return t.look()
}

// Update sets one route.
func (t *Target) Update(_ context.Context, p netip.Prefix, r model.Route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.seen(); err != nil {
		return err
	}
	want, err := t.route(r)
	if err != nil {
		return err
	}
	have, own := t.have[p]
	switch {
	case own && same(&have, want):
		return nil
	case own:
		err = t.h.RouteReplace(want)
	default:
		err = t.h.RouteAdd(want) // the kernel refuses when somebody else's is there with the same metric
	}
	if errors.Is(err, unix.EEXIST) {
		err = ErrForeign
	}
	if err != nil {
		return fmt.Errorf("set route to %s: %w", p, err)
	}
	t.have[p] = *want
	return nil
}

// Delete removes one route of ours; absent is no error.
func (t *Target) Delete(_ context.Context, p netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.seen(); err != nil {
		return err
	}
	return t.remove(p)
}

// Prune removes the routes of ours that no row asks for.
func (t *Target) Prune(_ context.Context, want map[netip.Prefix]model.Route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.seen(); err != nil {
		return err
	}
	var failed error
	for _, p := range slices.Collect(maps.Keys(t.have)) {
		if _, ok := want[p]; !ok {
			failed = errors.Join(failed, t.remove(p))
		}
	}
	return failed
}

// Clear removes all routes of ours; for cleanup.
func (t *Target) Clear(ctx context.Context) error { return t.Prune(ctx, nil) }

// remove removes our route to a prefix.
func (t *Target) remove(p netip.Prefix) error {
	r, ok := t.have[p]
	if !ok {
		return nil
	}
	if err := t.h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route to %s: %w", p, err)
	}
	delete(t.have, p)
	return nil
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
		index, ok := t.devices[r.Device]
		if !ok {
			l, err := t.h.LinkByName(r.Device)
			if err != nil {
				return nil, fmt.Errorf("set route to %s: find device %s: %w", r.Prefix, r.Device, err)
			}
			index = l.Attrs().Index
			t.devices[r.Device] = index
		}
		out.LinkIndex = index
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
