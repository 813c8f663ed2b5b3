package datapath_test

import (
	"net/netip"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

type role int

const (
	world  role = iota // everybody else
	local              // a workload of this node
	self               // this node
	peer               // another node, under its address on the wire
	behind             // reached through the overlay
	routed             // a workload of another node, reached by a route
	nobody             // this node's pod range where no workload is
)

// place is an address (in both families), or a range of them, and who is there.
type place struct {
	addr [2]netip.Addr
	net  [2]netip.Prefix // of a range
	id   uint32
	was  uint32 // until a moment ago
	role role
	node netip.Addr // behind: the node's address on the wire
	gate bool       // an address of a node
	pod  *bpftest.Pod
}

const (
	idHost, idWorld, idNode = bpftest.IDHost, bpftest.IDWorld, bpftest.IDRemoteNode
	idLabelled              = 0x02000001 // this node's own number for a node, by its labels
	idCIDR                  = 0x01000001
	idStranger              = 9999 // has no class
	tunnelPort              = 8472
	tunnelMTU, outsideMTU   = 1390, 1400
	epochAtStart            = 1
)

// classes of identities; two share one.
var classes = map[uint32]uint32{idHost: 1, idWorld: 2, idNode: 6, idLabelled: 7, idCIDR: 8, 1001: 11, 1002: 12, 1003: 13,
	2001: 21, 2002: 21, 2003: 23, 2005: 25}

// area is where policies have a block of addresses.
type area struct {
	net    netip.Prefix
	id     uint32
	strict bool
}

var areas = []area{{netip.MustParsePrefix("10.0.1.0/24"), 4, false}, {netip.MustParsePrefix("10.0.3.0/24"), 1, false}, {netip.MustParsePrefix("10.0.3.22/32"), 2, true},
	{netip.MustParsePrefix("192.0.2.0/24"), 3, false}, {netip.MustParsePrefix("192.0.2.4/32"), 8, true}, {netip.MustParsePrefix("203.0.113.0/25"), 9, true},
	{netip.MustParsePrefix("fd00:1::/64"), 5, false}, {netip.MustParsePrefix("fd00:4::/64"), 6, true}, {netip.MustParsePrefix("::/0"), 7, false}}

// classesAt are classes of who lives in an area. Outside they mean nothing.
var classesAt = map[maps.Peer]uint32{{Identity: 1001, Area: 4}: 31, {Identity: 1002, Area: 5}: 32, {Identity: 2002, Area: 1}: 33, {Identity: 2002, Area: 2}: 34,
	{Identity: idNode, Area: 3}: 35, {Identity: idHost, Area: 7}: 36, {Identity: 2001, Area: 7}: 37, {Identity: 2005, Area: 7}: 37, {Identity: 2003, Area: 1}: 38,
	{Identity: idWorld, Area: 7}: 39, {Identity: idCIDR, Area: 9}: 39, {Identity: idStranger, Area: 1}: 33}

// areaOf is the narrowest area around an address; nil if there is none.
func areaOf(a netip.Addr) (best *area) {
	for i, x := range areas {
		if x.net.Contains(a) && (best == nil || x.net.Bits() > best.net.Bits()) {
			best = &areas[i]
		}
	}
	return best
}

// classOf is the class of who is at an address; false if he is not known, or not known to be there.
func classOf(id uint32, a netip.Addr) (uint32, bool) {
	class, known := classes[id]
	x := areaOf(a)
	if !known || x == nil || outside(id) || id == idCIDR {
		return class, known
	}
	if at, ok := classesAt[maps.Peer{Identity: id, Area: x.id}]; ok {
		return at, true
	}
	return class, !x.strict
}

// town is the truth that both sides are told.
type town struct {
	e      *bpftest.Env
	dev    int // to the outside
	pods   []*bpftest.Pod
	places []*place
	exact  map[netip.Addr]*place
	ranges []*place
	law    law
	epoch  uint32
	audit  bool            // node-wide
	lax    map[uint16]bool // endpoints in audit mode
}

func both(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

func nets(v4, v6 string) [2]netip.Prefix {
	return [2]netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}
}

func newTown(t testing.TB) *town {
	w := &town{e: bpftest.Load(t, bpftest.Config{MapSize: 16384}), exact: map[netip.Addr]*place{}}
	w.dev = w.e.OpenOutside(outsideMTU)
	w.e.Put(w.e.Maps.DevicesV1, uint32(bpftest.Defaults().TunnelIfindex), maps.Device{Mtu: tunnelMTU})
	for i := range 3 {
		n := byte(11 + i)
		p := &bpftest.Pod{ID: uint16(n), Identity: 1001 + uint32(i), Set: 1 + uint32(i), Dev: w.e.Dev[i], MAC: packet.MAC(n), HostMAC: packet.MAC(n + 0x80),
			V4: netip.AddrFrom4([4]byte{10, 0, 1, n}), V6: netip.AddrFrom16([16]byte{0: 0xfd, 3: 1, 15: n})}
		w.pods = append(w.pods, p)
		w.settle(&place{addr: [2]netip.Addr{p.V4, p.V6}, id: p.Identity, role: local, pod: p})
	}
	four := both("192.0.2.4", "2001:db8::4")
	for _, p := range []*place{
		{addr: bpftest.Node1, id: idHost, role: self, gate: true},
		{addr: bpftest.Router1, id: idHost, role: self, gate: true},
		{addr: bpftest.Node2, id: idNode, role: peer, gate: true},
		{addr: both("192.0.2.3", "2001:db8::3"), id: idLabelled, role: peer, gate: true},
		{addr: four, id: idNode, role: peer, gate: true},
		{addr: bpftest.Router2, id: idNode, role: behind, node: bpftest.Node2[0], gate: true},
		{addr: both("10.0.3.1", "fd00:3::1"), id: idLabelled, role: behind, node: netip.MustParseAddr("192.0.2.3"), gate: true},
		{addr: bpftest.FarPod, id: 2001, role: behind, node: bpftest.Node2[0]},
		{addr: both("10.0.3.21", "fd00:3::21"), id: 2002, role: behind, node: netip.MustParseAddr("192.0.2.3")},
		{addr: both("10.0.3.22", "fd00:3::22"), id: 2002, was: 2003, role: behind, node: netip.MustParseAddr("192.0.2.3")},
		{addr: both("10.0.3.77", "fd00:3::77"), id: idStranger, role: behind, node: netip.MustParseAddr("192.0.2.3")},
		{addr: both("10.0.4.21", "fd00:4::21"), id: 2003, role: behind, node: four[1]},
		{addr: both("10.0.5.21", "fd00:5::21"), id: 2005, role: routed},
		{net: nets("10.0.1.0/24", "fd00:1::/64"), id: idWorld, role: nobody},
		{net: nets("10.0.2.0/24", "fd00:2::/64"), id: idWorld, role: behind, node: bpftest.Node2[0]},
		{net: nets("10.0.3.0/24", "fd00:3::/64"), id: idWorld, role: behind, node: netip.MustParseAddr("192.0.2.3")},
		{net: nets("10.0.4.0/24", "fd00:4::/64"), id: idWorld, role: behind, node: four[1]},
		{net: nets("10.0.5.0/24", "fd00:5::/64"), id: idWorld, role: routed},
		{net: nets("203.0.113.0/24", "2001:db8:cccc::/48"), id: idCIDR, role: world},
		{net: nets("0.0.0.0/0", "::/0"), id: idWorld, role: world},
	} {
		w.settle(p)
	}
	for id, class := range classes {
		w.e.Put(w.e.Maps.ClassV1, id, class)
	}
	for peer, class := range classesAt {
		w.e.Put(w.e.Maps.ClassAtV1, peer, class)
	}
	for _, x := range areas {
		row := maps.Area{Id: x.id}
		if x.strict {
			row.Flags = maps.AreaStrict
		}
		w.e.Put(w.e.Maps.AreaV1, maps.AreaKeyFrom(x.net), row)
	}
	return w
}

// settle writes the rows of a place.
func (w *town) settle(p *place) {
	flags := map[role]uint32{local: maps.IPCacheNoMasq | maps.IPCacheLocalCIDR, self: maps.IPCacheNoMasq, behind: maps.IPCacheTunnel | maps.IPCacheNoMasq,
		routed: maps.IPCacheNoMasq, nobody: maps.IPCacheLocalCIDR}[p.role]
	if p.gate {
		flags |= maps.IPCacheNode
	}
	for v := range 2 {
		if p.net[v].IsValid() {
			w.e.PutPrefix(p.net[v], p.id, flags, p.node)
			continue
		}
		w.e.PutIP(p.addr[v], p.id, flags, p.node)
		w.exact[p.addr[v]] = p
		if p.was != 0 {
			w.e.Put(w.e.Maps.IpcacheWasV1, maps.AddrFrom(p.addr[v]), p.was)
		}
		if p.pod != nil {
			w.e.PutEndpoint(*p.pod, p.addr[v])
		}
	}
	if p.net[0].IsValid() {
		w.ranges = append(w.ranges, p)
	} else {
		w.places = append(w.places, p)
	}
}

// at is who is there: the row of the address, or of the longest range; nil for what is no address.
func (w *town) at(a netip.Addr) *place {
	if p := w.exact[a]; p != nil {
		return p
	}
	return w.rangeOf(a)
}

func (w *town) rangeOf(a netip.Addr) (best *place) {
	v := version(a)
	for _, p := range w.ranges {
		if p.net[v].Contains(a) && (best == nil || p.net[v].Bits() > best.net[v].Bits()) {
			best = p
		}
	}
	return best
}

// podAt is the workload of this node with that address.
func (w *town) podAt(a netip.Addr) *bpftest.Pod {
	if p := w.exact[a]; p != nil {
		return p.pod
	}
	return nil
}

// version is the index of the address's family.
func version(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
