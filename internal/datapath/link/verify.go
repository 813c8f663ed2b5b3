package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/route"
)

// ErrGone says that a host side that was made is not there any more.
var ErrGone = errors.New("device is gone")

// Verify says what is wrong on the node's side of pairs, by HostIfName; those in order are not in the map. It looks at
// devices and routes of the node once for all pairs and enters no namespace, so it may be called every few seconds.
func (p *Pairs) Verify(_ context.Context, specs []Spec) (map[string]error, error) {
	all, err := p.links()
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*netlink.LinkAttrs, len(all))
	for _, l := range all {
		byName[l.Attrs().Name] = l.Attrs()
	}
	routes, err := p.workloadRoutes()
	if err != nil {
		return nil, err
	}
	wrong := map[string]error{}
	for _, s := range specs {
		host, ok := byName[s.HostIfName]
		switch {
		case !ok:
			wrong[s.HostIfName] = fmt.Errorf("device %s: %w", s.HostIfName, ErrGone)
			continue
		case host.Flags&net.FlagUp == 0:
			wrong[s.HostIfName] = fmt.Errorf("device %s is down", s.HostIfName)
			continue
		}
		for _, a := range s.Addrs {
			if !routes[routeKey{a, host.Index}] {
				wrong[s.HostIfName] = errors.Join(wrong[s.HostIfName], fmt.Errorf("there is no route to %s on the node", a))
			}
		}
	}
	return wrong, nil
}

type routeKey struct {
	addr    netip.Addr
	ifindex int
}

// workloadRoutes are the routes to workloads, both IP versions.
func (p *Pairs) workloadRoutes() (map[routeKey]bool, error) {
	out := map[routeKey]bool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := p.host.RouteListFiltered(family, &netlink.Route{Protocol: route.ProtocolWorkload}, netlink.RT_FILTER_PROTOCOL)
		if err != nil { // also when the list changed under the walk: the next look sees it whole
			return nil, fmt.Errorf("list routes to workloads: %w", err)
		}
		for _, r := range rs {
			if r.Dst == nil {
				continue
			}
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				out[routeKey{a.Unmap(), r.LinkIndex}] = true
			}
		}
	}
	return out, nil
}
