package oracle

import (
	"net/netip"
	"slices"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// outside says of which IP versions an end is, as part of the world.
func (w *World) outside(e End) (v4, v6 bool) {
	world := has(e, model.SourceReserved, "world")
	w4, w6 := has(e, model.SourceReserved, "world-ipv4"), has(e, model.SourceReserved, "world-ipv6")
	if e.Addr.IsValid() && (world || w4 || w6) {
		return e.Addr.Is4(), e.Addr.Is6()
	}
	return w4 || world && w.IPv4, w6 || world && w.IPv6
}

func (w *World) entity(e v2.Entity, other End) bool {
	v4, v6 := w.outside(other)
	reserved := slices.ContainsFunc(other.Labels, func(l model.Label) bool { return l.Source == model.SourceReserved })
	switch e {
	case v2.EntityAll:
		return true
	case v2.EntityNone:
		return false
	case v2.EntityWorld:
		return v4 || v6
	case v2.EntityWorldIPv4:
		return v4
	case v2.EntityWorldIPv6:
		return v6
	case v2.EntityCluster:
		for _, n := range []string{"host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"} {
			if has(other, model.SourceReserved, n) {
				return true
			}
		}
		if reserved || isNode(other) {
			return false
		}
		return !has(other, model.SourceK8s, model.KeyCluster) || hasValue(other, model.SourceK8s, model.KeyCluster, w.Cluster)
	}
	return has(other, model.SourceReserved, string(e))
}

// inCIDR: only addresses outside are in prefixes, and those of nodes where that is wanted. A block means every address, whoever
// has it.
func (w *World) inCIDR(s string, other End, block bool) bool {
	p, ok := parseCIDR(s)
	if !ok {
		return false
	}
	v4, v6 := w.outside(other)
	node := isNode(other) || has(other, model.SourceReserved, "host")
	if !block && (node && !w.CIDRNodes || !node && !v4 && !v6) {
		return false
	}
	if other.Addr.IsValid() {
		return p.Contains(other.Addr)
	}
	return p.Bits() == 0 && (p.Addr().Is4() && v4 || p.Addr().Is6() && v6)
}

func (w *World) inSet(c v2.CIDRRule, other End, block bool) bool {
	for _, x := range c.Except {
		if p, ok := parseCIDR(x); ok && other.Addr.IsValid() && p.Contains(other.Addr) {
			return false
		}
	}
	var cidrs []string
	switch {
	case c.CIDR != "":
		cidrs = []string{c.CIDR}
	case c.CIDRGroupRef != "":
		cidrs = w.Groups[c.CIDRGroupRef].CIDRs
	default:
		for _, g := range w.Groups {
			var ls []model.Label
			for k, v := range g.Labels {
				ls = append(ls, model.Label{Source: model.SourceK8s, Key: k, Value: v})
			}
			if matches(*c.CIDRGroupSelector, End{Labels: model.NewLabels(ls...)}, model.SourceAny) {
				cidrs = append(cidrs, g.CIDRs...)
			}
		}
	}
	return slices.ContainsFunc(cidrs, func(s string) bool { return w.inCIDR(s, other, block) })
}

// Outside is the end of an address that is no workload and no node.
func (w *World) Outside(a netip.Addr) End {
	name := "world"
	if w.IPv4 && w.IPv6 {
		if name = "world-ipv6"; a.Is4() {
			name = "world-ipv4"
		}
	}
	return End{Addr: a, Labels: model.NewLabels(model.Label{Source: model.SourceReserved, Key: name})}
}

// parseCIDR reads a prefix or an address.
func parseCIDR(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err == nil
}
