package datapath_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// What becomes of a packet.
type action int

const (
	refused  action = iota // dropped, with a reason
	quiet                  // dropped, and nobody is told: what machines say by themselves
	toPod                  // into a workload of this node
	toStack                // to the node's own stack, or on its way from it
	toTunnel               // to another node's workload
	toNet                  // out by a route
	reply                  // turned into its answer: ARP, neighbour discovery
)

const (
	markMask, markOverlay, markDeliver = 0x0f00, 0x0400, 0x0f00
)

// fate is what must become of a packet.
type fate struct {
	act   action
	why   uint8
	rule  uint32     // of a refusal by policy
	back  []byte     // refused: the ICMP error that goes back to the workload
	frame []byte     // what goes on; checksums are compared apart
	mark  uint32     // that it carries then
	peer  netip.Addr // toTunnel: to which node
	pod   *bpftest.Pod

	lease  *lease // it leaves under the node's address,
	port   uint16 // with this port, or any that is free
	portAt int    // which is here in the frame, 0 in a later fragment
}

// oracle is the model: who is where, and what has been seen.
type oracle struct {
	*town
	memory
}

func refuse(d denial) fate { return fate{why: d.why, rule: d.rule} }

// intoPod is delivery to a workload, with one hop less if it comes from outside.
func (o *oracle) intoPod(frame []byte, to *bpftest.Pod) fate {
	b := append([]byte(nil), frame...)
	copy(b, to.MAC)
	copy(b[6:], to.HostMAC)
	return fate{act: toPod, frame: b, pod: to}
}

func (o *oracle) fromPod(in bpftest.Packet) fate {
	if be16(in.Frame[12:]) == ethARP {
		return o.arp(in)
	}
	p, why := read(in.Frame)
	if why != 0 {
		return fate{why: why}
	}
	if p.proto == icmp6 && p.known {
		switch {
		case p.typ >= 133 && p.typ <= 137:
			return o.neighbour(in, p)
		case p.typ >= 130 && p.typ <= 132 || p.typ == 143:
			return fate{act: quiet} // multicast listeners
		}
	}
	from := o.podAt(p.src)
	if from == nil || from.Dev != in.IfIndex {
		return fate{why: maps.DropSourceIP}
	}
	if string(in.Frame[6:12]) != string(from.MAC) {
		return fate{why: maps.DropSourceMAC}
	}
	if crowd(p.dst) {
		return fate{why: maps.DropMulticast}
	}
	if ownHost(p.dst) || p.src == p.dst {
		return fate{why: maps.DropInvalid}
	}
	if why := o.follow(p); why != 0 {
		return fate{why: why}
	}
	who := o.at(p.dst)
	to := end{id: who.id}
	switch who.role {
	case local:
		to = o.endpoint(who.pod)
	case nobody:
		return fate{why: maps.DropUnroutable}
	}
	if who.role != local && who.role != self && p.dst.IsLinkLocalUnicast() {
		return fate{why: maps.DropL3Target}
	}
	// A workload must not forge the overlay, under its own address or the node's.
	if p.proto == udp && p.dport == tunnelPort && (who.gate || who.masquerades()) {
		return fate{why: maps.DropEncapsulation}
	}
	if p.complaint {
		if why := p.unquote(); why != 0 {
			return fate{why: why}
		}
	}
	against, d := o.admit(p, o.endpoint(from), to, false)
	if d != none {
		return refuse(d)
	}
	if who.role == local {
		return o.intoPod(p.frame, who.pod)
	}
	return o.away(p, who, against)
}

// toPod is what the node's own stack sends to a workload.
func (o *oracle) toPod(in bpftest.Packet) fate {
	pass := fate{act: toStack, frame: in.Frame, mark: in.Mark}
	if in.Mark&markMask == markDeliver || be16(in.Frame[12:]) == ethARP {
		return pass
	}
	p, why := read(in.Frame)
	if why != 0 {
		return fate{why: why}
	}
	if p.proto == icmp6 && p.known && (p.typ == 135 || p.typ == 136) && p.hop == 255 {
		return pass
	}
	if crowd(p.dst) {
		return fate{act: quiet}
	}
	to := o.podAt(p.dst)
	if to == nil || to.Dev != in.IfIndex {
		return fate{why: maps.DropUnroutable}
	}
	who := o.at(p.src)
	if who.role == local || who.role == nobody || who.role == behind || who.role == self && in.Ingress != 0 {
		return fate{why: maps.DropSourceIP}
	}
	if why := o.follow(p); why != 0 {
		return fate{why: why}
	}
	if p.complaint {
		if why := p.unquote(); why != 0 {
			return fate{why: why}
		}
	}
	if _, d := o.admit(p, end{id: who.id}, o.endpoint(to), false); d != none {
		return refuse(d)
	}
	return pass
}

// crowd are the addresses of more than one, and those of the old class E.
func crowd(a netip.Addr) bool { return a.IsMulticast() || a.Is4() && a.As4()[0] >= 240 }

// ownHost are addresses that are never on a wire.
func ownHost(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.Is4() && a.As4()[0] == 0
}
