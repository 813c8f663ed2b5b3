package datapath_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// Ports that workloads leave under.
const masqMin, masqMax = 20000, 29999

// lease is a conversation of a workload with the outside, and gone is it as the outside knows it.
type lease struct {
	own, peer socket // an echo: the id on the workload's side
	proto     uint8
}

type ledger struct {
	port  map[lease]uint16
	owner map[lease]lease // by the node's side
}

func newLedger() ledger { return ledger{port: map[lease]uint16{}, owner: map[lease]lease{}} }

func leaseOf(f flow) lease { return lease{socket{f.src, f.sport}, socket{f.dst, f.dport}, f.proto} }

// speaks says whether there is a port to tell conversations apart by.
func speaks(f flow) bool {
	is, _ := f.echo()
	return is || f.proto == tcp || f.proto == udp
}

// outer is the lease from the node's side.
func (l lease) outer(port uint16) lease {
	return lease{socket{bpftest.Node1[version(l.own.addr)], port}, l.peer, l.proto}
}

// leave is what the datapath may do with a packet that leaves under the node's address: under which port, 0 for any that is
// free.
func (n *ledger) leave(l lease) (port uint16) {
	if port = n.port[l]; port != 0 {
		return port
	}
	if _, taken := n.owner[l.outer(l.own.port)]; !taken && l.own.port >= masqMin && l.own.port <= masqMax {
		return l.own.port
	}
	return 0
}

// take notes the port that it left under; false when it is not one to take.
func (n *ledger) take(l lease, port uint16) bool {
	if port < masqMin || port > masqMax {
		return false
	}
	o := l.outer(port)
	if owner, taken := n.owner[o]; taken && owner != l {
		return false
	}
	n.port[l], n.owner[o] = port, l
	return true
}

// back finds whom an answer is for: the packet as the workload knows it.
func (n *ledger) back(f flow) (socket, bool) {
	o := lease{socket{f.dst, f.dport}, socket{f.src, f.sport}, f.proto}
	if f.icmp() {
		is, asks := f.echo()
		if !is || asks {
			return socket{}, false
		}
		o.own.port, o.peer.port = f.sport, 0
	}
	l, ok := n.owner[o]
	return l.own, ok
}

// masquerades says whether what goes there leaves under the node's address.
func (p *place) masquerades() bool { return p.role == world || p.role == peer }

// leaves is a packet of a workload on its way out by a route.
func (o *oracle) leaves(p *view, who *place, against bool) fate {
	if unicastless(p.dst) {
		return fate{why: maps.DropFIB}
	}
	if p.length() > outsideMTU {
		return o.answer(p, maps.DropFragment, outsideMTU)
	}
	f := fate{act: toNet, frame: o.hop(p)}
	if !who.masquerades() || against {
		return f
	}
	node := bpftest.Node1[p.v]
	if p.complaint {
		port, ok := o.nat.port[leaseOf(p.about)]
		if !ok {
			return fate{why: maps.DropNATNoMapping}
		}
		put(f.frame, p.addrAt(ether, false), node)
		put(f.frame, p.addrAt(p.quote, true), node)
		at := p.quoteL4 + 2
		if p.about.icmp() {
			at = p.quoteL4 + 4
		}
		f.frame[at], f.frame[at+1] = byte(port>>8), byte(port)
		return f
	}
	if !speaks(p.flow) {
		return fate{why: maps.DropNATProtocol}
	}
	put(f.frame, p.addrAt(ether, false), node)
	l := leaseOf(p.flow)
	f.lease, f.port = &l, o.nat.leave(l)
	if p.known {
		f.portAt = p.l4
		if p.icmp() {
			f.portAt = p.l4 + 4
		}
	}
	return f
}

// unicastless are addresses of the node's own links that no machine has.
func unicastless(a netip.Addr) bool {
	switch a.String() {
	case "192.0.2.255", "2001:db8::":
		return true
	}
	return false
}

// addrAt is where a header has its source or destination address.
func (p *view) addrAt(l3 int, dst bool) int {
	at := l3 + [2]int{12, 8}[p.v]
	if dst {
		at += [2]int{4, 16}[p.v]
	}
	return at
}

func put(frame []byte, at int, a netip.Addr) { copy(frame[at:], a.AsSlice()) }
