package bpftest

import (
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// Who lives in a World: two workloads of this node, one of node 2, and everybody else.
const (
	IDHost       = 1
	IDWorld      = 2
	IDRemoteNode = 6
	IDPod1       = 1001
	IDPod2       = 1002
	IDFar        = 2001
)

// Pod is a local workload of a World.
type Pod struct {
	ID       uint16
	Identity uint32
	Set      uint32
	Dev      int // interface index
	MAC      net.HardwareAddr
	HostMAC  net.HardwareAddr
	V4, V6   netip.Addr
}

// World is an environment with rows in it: everybody may do anything, which tests then restrict.
type World struct {
	*Env
	Pod1, Pod2 Pod
}

// Addresses of a World, by IP version: index 0 IPv4, 1 IPv6.
var (
	Node1   = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	Node2   = [2]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	Router1 = [2]netip.Addr{netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("fd00:1::1")}
	Router2 = [2]netip.Addr{netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00:2::1")}
	FarPod  = [2]netip.Addr{netip.MustParseAddr("10.0.2.21"), netip.MustParseAddr("fd00:2::21")}
	NewPod  = [2]netip.Addr{netip.MustParseAddr("10.0.2.99"), netip.MustParseAddr("fd00:2::99")} // of node 2, has no row yet
	Outside = [2]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:ffff::7")}
)

// Addr is the pod's address of a version (0 IPv4, 1 IPv6).
func (p Pod) Addr(version int) netip.Addr { return [2]netip.Addr{p.V4, p.V6}[version] }

// NewWorld loads the programs and fills the maps.
func NewWorld(t testing.TB, cfg Config) *World {
	t.Helper()
	w := &World{Env: Load(t, cfg)}
	w.Pod1 = Pod{ID: 11, Identity: IDPod1, Set: 1, Dev: w.Dev[0], MAC: packet.MAC(0x11), HostMAC: packet.MAC(0x91),
		V4: netip.MustParseAddr("10.0.1.11"), V6: netip.MustParseAddr("fd00:1::11")}
	w.Pod2 = Pod{ID: 12, Identity: IDPod2, Set: 2, Dev: w.Dev[1], MAC: packet.MAC(0x12), HostMAC: packet.MAC(0x92),
		V4: netip.MustParseAddr("10.0.1.12"), V6: netip.MustParseAddr("fd00:1::12")}
	w.PutPod(w.Pod1)
	w.PutPod(w.Pod2)
	for id, class := range map[uint32]uint32{IDHost: 1, IDWorld: 2, IDRemoteNode: 6, IDPod1: 11, IDPod2: 12, IDFar: 21} {
		w.Put(w.Maps.ClassV1, id, class)
	}
	for v := range 2 {
		w.PutIP(Node1[v], IDHost, maps.IPCacheNode|maps.IPCacheNoMasq, netip.Addr{})
		w.PutIP(Router1[v], IDHost, maps.IPCacheNode|maps.IPCacheNoMasq, netip.Addr{})
		w.PutIP(Node2[v], IDRemoteNode, maps.IPCacheNode, netip.Addr{})
		w.PutIP(Router2[v], IDRemoteNode, maps.IPCacheNode|maps.IPCacheTunnel|maps.IPCacheNoMasq, Node2[0])
		w.PutIP(FarPod[v], IDFar, maps.IPCacheTunnel|maps.IPCacheNoMasq, Node2[0])
		bits := []int{24, 64}[v]
		w.PutPrefix(netip.PrefixFrom(w.Pod1.Addr(v), bits), IDWorld, maps.IPCacheLocalCIDR, netip.Addr{})
		w.PutPrefix(netip.PrefixFrom(FarPod[v], bits), IDWorld, maps.IPCacheTunnel|maps.IPCacheNoMasq, Node2[0])
	}
	w.PutPrefix(netip.MustParsePrefix("0.0.0.0/0"), IDWorld, 0, netip.Addr{})
	w.PutPrefix(netip.MustParsePrefix("::/0"), IDWorld, 0, netip.Addr{})
	for _, set := range []uint32{1, 2} {
		for _, dir := range []uint32{maps.PolicyIngress, maps.PolicyEgress} {
			w.PutPolicy(set, maps.ClassAny, dir, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow, DefaultRule: 100 + set*10 + dir})
		}
	}
	return w
}

// Put writes a row.
func (e *Env) Put(m *ebpf.Map, key, value any) {
	e.t.Helper()
	e.must(m.Put(key, value))
}

// PutPod writes the rows of a local workload.
func (w *World) PutPod(p Pod) {
	w.t.Helper()
	for _, a := range []netip.Addr{p.V4, p.V6} {
		w.PutEndpoint(p, a)
		w.PutIP(a, p.Identity, maps.IPCacheNoMasq|maps.IPCacheLocalCIDR, netip.Addr{})
	}
}

// PutEndpoint writes the row of one address of a workload.
func (e *Env) PutEndpoint(p Pod, a netip.Addr) {
	e.t.Helper()
	row := maps.Endpoint{Ifindex: uint32(p.Dev), Identity: p.Identity, PolicySet: p.Set, Id: p.ID}
	copy(row.Mac[:], p.MAC)
	copy(row.HostMac[:], p.HostMAC)
	e.Put(e.Maps.EndpointsV1, maps.AddrFrom(a), row)
}

// PutIP writes an exact row of the ipcache.
func (e *Env) PutIP(a netip.Addr, identity, flags uint32, tunnel netip.Addr) {
	e.t.Helper()
	e.Put(e.Maps.IpcacheExactV1, maps.AddrFrom(a), maps.IPCacheValue{Identity: identity, Flags: flags, Tunnel: maps.AddrFrom(tunnel)})
}

// PutPrefix writes a prefix row of the ipcache.
func (e *Env) PutPrefix(p netip.Prefix, identity, flags uint32, tunnel netip.Addr) {
	e.t.Helper()
	e.Put(e.Maps.IpcacheV1, maps.IPCacheKeyFrom(p), maps.IPCacheValue{Identity: identity, Flags: flags, Tunnel: maps.AddrFrom(tunnel)})
}

// PutPolicy writes one row of a policy set; entries in v are counted.
func (e *Env) PutPolicy(set, class, dir uint32, v maps.PolicyValue, entries ...maps.PolicyEntry) {
	e.t.Helper()
	v.Count = uint8(copy(v.Entry[:], entries))
	e.Put(e.Maps.PolicyV1, maps.PolicyKey{Set: set, Class: class, Dir: dir}, v)
}

// PutState writes the node's state.
func (e *Env) PutState(s maps.State) {
	e.t.Helper()
	e.Put(e.Maps.StateV1, uint32(0), s)
}

// Flow is a conversation of pod p with addr.
func (p Pod) Flow(to netip.Addr, sport, dport uint16) packet.Flow {
	f := packet.Flow{SrcMAC: p.MAC, DstMAC: p.HostMAC, Src: p.V4, Dst: to, SrcPort: sport, DstPort: dport}
	if to.Is6() {
		f.Src = p.V6
	}
	return f
}

// Drops are the reasons of the drop events among evs.
func Drops(evs []maps.Event) (reasons []uint8) {
	for _, e := range evs {
		if e.Type == maps.EventDrop {
			reasons = append(reasons, e.Code)
		}
	}
	return reasons
}

// Connections are the rows of the connection table.
func (e *Env) Connections() map[maps.CTKey]maps.CTValue {
	e.t.Helper()
	out := map[maps.CTKey]maps.CTValue{}
	var k maps.CTKey
	var v maps.CTValue
	it := e.Maps.CtV1.Iterate()
	for it.Next(&k, &v) {
		out[k] = v
	}
	e.must(it.Err())
	return out
}
