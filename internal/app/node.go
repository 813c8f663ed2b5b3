package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/datapath/host"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
	"github.com/hypha-net/hypha/internal/model"
)

// underlay finds this node's addresses and the MTU between nodes.
func underlay(cfg *config.Agent) (addrs []netip.Addr, mtu int, err error) {
	if addrs = cfg.Addrs(); len(addrs) == 0 {
		if addrs, err = host.Underlay(); err != nil {
			return nil, 0, err
		}
	}
	if mtu, err = host.MTU(addrs); err != nil {
		return nil, 0, err
	}
	return addrs, mtu, nil
}

// tunnelAddr is the address other nodes send the overlay to: IPv4 where the node has it.
func tunnelAddr(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() {
			return a
		}
	}
	return addrs[0]
}

// workloadMTU is what workloads' devices get: the underlay's, less what the overlay adds.
func workloadMTU(cfg *config.Agent, underlay int, tunnel netip.Addr) (int, error) {
	mtu := underlay
	if cfg.Tunnel() {
		mtu -= overlay.Overhead4
		if tunnel.Is6() {
			mtu += overlay.Overhead4 - overlay.Overhead6
		}
	}
	if cfg.MTU != 0 {
		if cfg.MTU > mtu {
			return 0, fmt.Errorf("option mtu: %d is more than the %d that fit through the underlay", cfg.MTU, mtu)
		}
		return cfg.MTU, nil
	}
	if cfg.EnableIPv6 && mtu < 1280 {
		return 0, fmt.Errorf("the underlay's MTU of %d leaves %d for workloads, less than IPv6 needs: raise it or set --enable-ipv6=false", underlay, mtu)
	}
	return mtu, nil
}

func ranges(cfg *config.Agent) (r ipam.Ranges) {
	one := func(on bool, fixed, pool string, bits int) {
		switch {
		case !on:
		case fixed != "":
			r.Fixed = append(r.Fixed, netip.MustParsePrefix(fixed))
		default:
			r.Pools = append(r.Pools, ipam.Pool{Prefix: netip.MustParsePrefix(pool), Bits: bits})
		}
	}
	one(cfg.EnableIPv4, cfg.IPv4Range, cfg.IPv4Pool, cfg.IPv4PoolMask)
	one(cfg.EnableIPv6, cfg.IPv6Range, cfg.IPv6Pool, cfg.IPv6PoolMask)
	return r
}

// claimRanges waits until this node has its pod ranges: without them there is nothing it could do.
func (a *Agent) claimRanges(ctx context.Context) ([]netip.Prefix, error) {
	r := ranges(&a.cfg)
	if err := r.Check(); err != nil {
		return nil, err
	}
	var got []netip.Prefix
	err := untilReached(ctx, noRanges(a.log), func() (err error) {
		got, err = a.store.claim(ctx, r.Choose)
		return err
	})
	return got, err
}

// describe makes this node's row.
func describe(cfg *config.Agent, addrs []netip.Addr, prefixes []netip.Prefix, routers []netip.Addr) (model.Node, error) {
	labels := []model.Label{}
	for _, s := range cfg.NodeLabels {
		l, err := model.ParseLabel(s, model.SourceNode)
		if err != nil {
			return model.Node{}, fmt.Errorf("option node-labels: %w", err)
		}
		l.Source = model.SourceNode
		labels = append(labels, l)
	}
	n := model.Node{Name: cfg.NodeName, Cluster: cfg.ClusterName, Addrs: addrs, PodCIDRs: prefixes, Routers: routers, Labels: model.NewLabels(labels...)}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		n.BootID = strings.TrimSpace(string(boot))
	}
	if cfg.EnableHubble && cfg.HubbleListen != "" {
		if h, port, err := net.SplitHostPort(cfg.HubbleListen); err == nil {
			ip := net.ParseIP(h)
			if h == "" || ip.IsUnspecified() {
				h = addrs[0].String()
			}
			if !ip.IsLoopback() && h != "localhost" { // means nothing to other nodes
				n.FlowAddr = net.JoinHostPort(h, port)
			}
		}
	}
	return n, nil
}

// own is which of these addresses has the IP version.
func own(addrs []netip.Addr, v6 bool) netip.Addr {
	if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == v6 }); i >= 0 {
		return addrs[i]
	}
	return netip.Addr{}
}

func makeDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Clean(d), 0o750); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	return nil
}
