package datapath_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// outsider says who a packet from outside claims to be from; false for who cannot be there.
func (o *oracle) outsider(p *view) (end, bool) {
	who := o.at(p.src)
	switch {
	case crowd(p.src), ownHost(p.src), who.role == local, who.role == self, who.role == nobody, who.role == behind:
		return end{}, false
	}
	return end{id: who.id}, true
}

func (o *oracle) fromNetdev(in bpftest.Packet) fate {
	pass := fate{act: toStack, frame: in.Frame}
	p, why := read(in.Frame)
	if p.dst.Is4In6() {
		p.dst = p.dst.Unmap() // refused already; said of the workload that it may mean
	}
	if to := o.podAt(p.dst); to != nil {
		return o.routedIn(p, to, why)
	}
	if p.dst.IsValid() && ownHost(p.dst) && p.dst != netip.IPv6Unspecified() {
		return fate{why: maps.DropInvalid}
	}
	if why != 0 {
		return pass
	}
	// Pieces of what no workload can have asked for are not remembered.
	if p.first && p.ported() && (p.dport < masqMin || p.dport > masqMax) {
		return pass
	}
	if o.follow(p) != 0 || p.complaint && p.unquote() != 0 {
		return pass
	}
	f := p.flow
	if p.complaint {
		f = p.about
	}
	own, ok := o.nat.back(f)
	if !ok {
		return pass
	}
	if _, ok := o.outsider(p); !ok {
		return fate{why: maps.DropSourceIP}
	}
	return o.answered(p, own)
}

// answered is a packet that was found to be for a workload which left under the node's address.
func (o *oracle) answered(p *view, own socket) fate {
	frame := append([]byte(nil), p.frame...)
	put(frame, p.addrAt(ether, true), own.addr)
	at := 0 // of the port
	switch {
	case p.complaint:
		put(frame, p.addrAt(p.quote, false), own.addr)
		at = p.quoteL4
		if p.about.icmp() {
			at += 4
		}
		p.about.dst = own.addr
		if p.about.icmp() {
			p.about.sport = own.port
		} else {
			p.about.dport = own.port
		}
	case p.icmp():
		at = p.l4 + 4
		p.sport = own.port
	default:
		at = p.l4 + 2
		p.dport = own.port
	}
	if !p.rest {
		frame[at], frame[at+1] = byte(own.port>>8), byte(own.port)
	}
	p.dst, p.frame = own.addr, frame
	to := o.podAt(own.addr)
	from, _ := o.outsider(p)
	if _, d := o.admit(p, from, o.endpoint(to), true); d != none {
		return refuse(d)
	}
	return o.in(p, to)
}

// routedIn is a packet to a workload's own address.
func (o *oracle) routedIn(p *view, to *bpftest.Pod, why uint8) fate {
	if why != 0 {
		return fate{why: why}
	}
	from, ok := o.outsider(p)
	if !ok {
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
	if _, d := o.admit(p, from, o.endpoint(to), false); d != none {
		return refuse(d)
	}
	return o.in(p, to)
}

func (o *oracle) in(p *view, to *bpftest.Pod) fate {
	if p.hop <= 1 {
		return fate{why: maps.DropTTL}
	}
	return o.intoPod(o.hop(p), to)
}
