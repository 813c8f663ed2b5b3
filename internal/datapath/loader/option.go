package loader

import (
	"net/netip"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Options are the constants of the node, compiled into the programs when they are loaded.
type Options struct {
	IPv4, IPv6     bool
	Netkit         bool   // some workloads' pairs are netkit
	Masq4, Masq6   bool   // workloads leave the cluster under the node's address
	Overlay        bool   // workloads of other nodes are reached through the device TunnelIfIndex
	TunnelIfIndex  int    // with Overlay
	TunnelPort     uint16 // UDP; workloads may not send to it on nodes
	Events, Trace  bool
	ReportInterval time.Duration // between trace events of one direction of a connection
	Accounting     bool          // packets and bytes per connection
	MasqPortMin    uint16        // inclusive
	MasqPortMax    uint16
	Services       bool       // services are translated in packets
	DirectTCP      bool       // backends on other nodes answer clients outside themselves: TCP,
	DirectUDP      bool       // and UDP;
	Geneve, IPIP   bool       // they are told which service is meant so, neither: by options
	Reject         bool       // who asks a service without backends is told so
	SockHost       bool       // sockets find services in the node's own network namespace only
	Router4        netip.Addr // the workloads' gateway
	Router6        netip.Addr
}

// constants are those of an object on a kernel; host is the cookie of the node's network namespace. The program of a netkit
// pair runs while the workload sends, where bpf_redirect_peer drops, so no workload's program uses it as soon as there is
// such a pair.
func (o Options) constants(object string, k Kernel, host uint64) layout.Config {
	peer, sock := k.Peer && !(object == podObject && o.Netkit), object == sockObject
	c := layout.Config{TunnelIfindex: uint32(o.TunnelIfIndex), TunnelPort: uint32(o.TunnelPort),
		ReportInterval: uint32(o.ReportInterval / time.Millisecond), MasqPortMin: o.MasqPortMin,
		MasqPortMax: o.MasqPortMax, Router4: layout.AddrFrom(o.Router4), Router6: layout.AddrFrom(o.Router6)}
	for _, f := range []struct {
		on  bool
		bit uint32
	}{
		{o.IPv4, layout.ConfigIPv4}, {o.IPv6, layout.ConfigIPv6}, {o.Overlay, layout.ConfigOverlay},
		{o.Masq4, layout.ConfigMasq4}, {o.Masq6, layout.ConfigMasq6}, {o.Events, layout.ConfigEvents},
		{o.Trace, layout.ConfigTrace}, {o.Accounting, layout.ConfigAccounting}, {peer, layout.ConfigRedirectPeer},
		{o.Services, layout.ConfigServices}, {o.DirectTCP, layout.ConfigDSRTCP},
		{o.DirectUDP, layout.ConfigDSRUDP}, {o.Geneve, layout.ConfigDSRGeneve}, {o.IPIP, layout.ConfigDSRIPIP}, {o.Reject, layout.ConfigReject}, {sock && o.SockHost, layout.ConfigSockHost}, {sock && k.Retval, layout.ConfigRetval},
	} {
		if f.on {
			c.Flags |= f.bit
		}
	}
	if sock {
		c.HostNetns = host
	}
	return c
}
