package maps

import (
	"net/netip"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// IP is a row of the ipcache: who lives at a prefix and how it is reached.
type IP struct {
	Identity  model.IdentityID
	Node      bool       // address of a node of the cluster
	NoMasq    bool       // reached under the workload's own address
	LocalCIDR bool       // this node's own pod range
	Overlay   bool       // reached through the overlay, by the node in Tunnel
	Tunnel    netip.Addr // underlay address of the node it lives on, when that is another one
}

// PutIP writes the row of one prefix: a whole address into the exact-match hash, else into the LPM trie.
func (m *Maps) PutIP(p netip.Prefix, ip IP) error {
	v := layout.IPCacheValue{Identity: uint32(ip.Identity), Tunnel: layout.AddrFrom(ip.Tunnel)}
	for _, f := range []struct {
		set bool
		bit uint32
	}{{ip.Node, layout.IPCacheNode}, {ip.NoMasq, layout.IPCacheNoMasq}, {ip.LocalCIDR, layout.IPCacheLocalCIDR},
		{ip.Overlay, layout.IPCacheTunnel}} {
		if f.set {
			v.Flags |= f.bit
		}
	}
	if p.IsSingleIP() {
		return put(m.ipExact, layout.AddrFrom(p.Addr()), v)
	}
	return put(m.ipLPM, layout.IPCacheKeyFrom(p), v)
}

// DeleteIP removes the row of one prefix; absent is no error.
func (m *Maps) DeleteIP(p netip.Prefix) error {
	if p.IsSingleIP() {
		return del(m.ipExact, layout.AddrFrom(p.Addr()))
	}
	return del(m.ipLPM, layout.IPCacheKeyFrom(p))
}

// PutWas notes who an address was until now.
func (m *Maps) PutWas(a netip.Addr, id model.IdentityID) error {
	return put(m.ipWas, layout.AddrFrom(a), uint32(id))
}

// DeleteWas forgets who an address was; absent is no error.
func (m *Maps) DeleteWas(a netip.Addr) error { return del(m.ipWas, layout.AddrFrom(a)) }

// Was reads all addresses that were somebody else a moment ago.
func (m *Maps) Was() (map[netip.Addr]model.IdentityID, error) {
	out := map[netip.Addr]model.IdentityID{}
	err := each(m.ipWas, func(k *layout.Addr, v *uint32) bool {
		out[netip.AddrFrom16(k.B).Unmap()] = model.IdentityID(*v)
		return true
	})
	return out, err
}

// IPs reads all rows of both maps.
func (m *Maps) IPs() (map[netip.Prefix]IP, error) {
	out := map[netip.Prefix]IP{}
	err := each(m.ipExact, func(k *layout.Addr, v *layout.IPCacheValue) bool {
		a := netip.AddrFrom16(k.B).Unmap()
		out[netip.PrefixFrom(a, a.BitLen())] = ipFrom(v)
		return true
	})
	if err != nil {
		return nil, err
	}
	err = each(m.ipLPM, func(k *layout.IPCacheKey, v *layout.IPCacheValue) bool {
		out[k.Prefix()] = ipFrom(v)
		return true
	})
	return out, err
}

// LookupIP reads the row that the datapath would use for an address.
func (m *Maps) LookupIP(a netip.Addr) (IP, bool, error) {
	v, ok, err := get[layout.Addr, layout.IPCacheValue](m.ipExact, layout.AddrFrom(a))
	if err == nil && !ok {
		k := layout.IPCacheKeyFrom(netip.PrefixFrom(a, a.BitLen()))
		v, ok, err = get[layout.IPCacheKey, layout.IPCacheValue](m.ipLPM, k)
	}
	return ipFrom(&v), ok, err
}

func ipFrom(v *layout.IPCacheValue) IP {
	return IP{Identity: model.IdentityID(v.Identity), Node: v.Flags&layout.IPCacheNode != 0,
		NoMasq: v.Flags&layout.IPCacheNoMasq != 0, LocalCIDR: v.Flags&layout.IPCacheLocalCIDR != 0,
		Overlay: v.Flags&layout.IPCacheTunnel != 0, Tunnel: v.Tunnel.Netip()}
}
