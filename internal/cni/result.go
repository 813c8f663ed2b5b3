package cni

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// result is the agent's answer to ADD as the specification wants it: the host's side of the device pair first, the
// workload's second. Addresses are single ones (/32, /128): everything else is reached through the gateway.
func result(args *skel.CmdArgs, r *agentv1.AddEndpointResponse) (*current.Result, error) {
	e := r.GetEndpoint()
	out := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: e.GetHostInterface(), Mac: r.GetHostMac(), Mtu: int(r.GetMtu())},
			{Name: args.IfName, Mac: e.GetMac(), Mtu: int(r.GetMtu()), Sandbox: args.Netns},
		},
	}
	for _, a := range []struct{ addr, gateway string }{{e.GetIpv4(), r.GetGateway4()}, {e.GetIpv6(), r.GetGateway6()}} {
		if a.addr == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.addr)
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		inside := 1
		ip := &current.IPConfig{Interface: &inside, Address: ipNet(netip.PrefixFrom(addr, addr.BitLen()))}
		if a.gateway != "" {
			gw, err := netip.ParseAddr(a.gateway)
			if err != nil {
				return nil, fmt.Errorf("gateway: %w", err)
			}
			ip.Gateway = gw.AsSlice()
		}
		out.IPs = append(out.IPs, ip)
	}
	if len(out.IPs) == 0 {
		return nil, fmt.Errorf("endpoint %d has no address", e.GetId())
	}
	for _, route := range r.GetRoutes() {
		dst, err := netip.ParsePrefix(route.GetDestination())
		if err != nil {
			return nil, fmt.Errorf("route: %w", err)
		}
		t := &types.Route{Dst: ipNet(dst), MTU: int(route.GetMtu())}
		if route.GetGateway() != "" {
			gw, err := netip.ParseAddr(route.GetGateway())
			if err != nil {
				return nil, fmt.Errorf("route: %w", err)
			}
			t.GW = gw.AsSlice()
		}
		out.Routes = append(out.Routes, t)
	}
	return out, nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
