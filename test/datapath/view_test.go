package datapath_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
)

const (
	tcp, udp, sctp, icmp4, icmp6 = 6, 17, 132, 1, 58
	ethIPv4, ethIPv6, ethARP     = 0x0800, 0x86dd, 0x0806
	ether                        = 14 // bytes of a frame's header
)

// flow is who speaks with whom, in the packet's direction. An echo has its id in sport.
type flow struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
	typ, code    uint8
}

func (f flow) icmp() bool { return f.proto == icmp4 || f.proto == icmp6 }

func (f flow) ported() bool { return f.proto == tcp || f.proto == udp || f.proto == sctp }

// echo says whether the message is an echo, and whether it asks.
func (f flow) echo() (is, asks bool) {
	switch {
	case f.proto == icmp4:
		return f.typ == 8 || f.typ == 0, f.typ == 8
	case f.proto == icmp6:
		return f.typ == 128 || f.typ == 129, f.typ == 128
	}
	return false, false
}

// view is a frame as a reader of the standards sees it.
type view struct {
	flow
	frame       []byte
	v           int // family: 0, 1
	eth         int // bytes in front of the IP header
	hop         uint8
	plain       bool // neither options nor extension headers
	l4, n       int  // where the transport header is, and how many bytes of the packet are there
	first, rest bool // of fragments
	off         int
	fragID      uint32
	known       bool // there is a transport header here
	flags       uint8
	complaint   bool // an ICMP error,
	about       flow // and what it is about, turned round
	quote       int  // and where that is
	quoteL4     int
}

func be16(b []byte) int { return int(binary.BigEndian.Uint16(b)) }

// shortest is the least that a transport header can be; 0 for protocols that are not looked into.
func shortest(proto uint8) int {
	return map[uint8]int{tcp: 20, sctp: 12, udp: 8, icmp4: 8, icmp6: 8}[proto]
}

// read understands a frame, or says why it must not go on. Addresses are there as soon as the IP header is.
func read(frame []byte) (*view, uint8) {
	p := &view{frame: frame, eth: ether}
	kind := be16(frame[12:])
	ip := frame[ether:]
	switch {
	case kind == ethIPv4 && len(ip) >= 20:
		return p, p.read4(ip)
	case kind == ethIPv6 && len(ip) >= 40:
		return p, p.read6(ip)
	case kind == ethIPv4 || kind == ethIPv6:
		return p, maps.DropInvalid
	}
	return p, maps.DropL3Protocol
}

func (p *view) read4(ip []byte) uint8 {
	p.src, p.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	head, total := int(ip[0]&15)*4, be16(ip[2:])
	if ip[0]>>4 != 4 || head < 20 || total < head || total > len(ip) {
		return maps.DropInvalid
	}
	p.proto, p.hop, p.plain = ip[9], ip[8], head == 20
	p.l4, p.n = ether+head, total-head
	if why := options(ip[20:head]); why != 0 {
		return why
	}
	if why := p.fragment(uint32(be16(ip[4:])), be16(ip[6:])&0x1fff*8, ip[6]&0x20 != 0); why != 0 {
		return why
	}
	return p.transport()
}

// options refuses what sends a packet elsewhere than to its destination (RFC 7126): loose and strict source routes; and more
// than 16 options.
func options(o []byte) uint8 {
	for n := 0; len(o) > 0; n++ {
		if n == 16 {
			return maps.DropInvalid
		}
		if o[0] == 0 {
			return 0
		}
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) || o[0] == 131 || o[0] == 137 {
			return maps.DropInvalid
		}
		o = o[o[1]:]
	}
	return 0
}

func (p *view) read6(ip []byte) uint8 {
	p.v = 1
	p.src, p.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	p.n = be16(ip[4:])
	if ip[0]>>4 != 6 || p.n > len(ip)-40 {
		return maps.DropInvalid
	}
	if p.src.Is4In6() || p.dst.Is4In6() {
		return maps.DropInvalid
	}
	p.hop, p.plain, p.l4 = ip[7], true, ether+40
	proto, at, frag, bad := chain(p.frame, ip[6], p.l4, p.l4+p.n)
	if bad {
		return maps.DropExtensionHeader
	}
	p.n -= at - p.l4
	p.proto, p.plain, p.l4 = proto, at == p.l4, at
	if frag != nil {
		if why := p.fragment(binary.BigEndian.Uint32(frag[4:]), be16(frag[2:])&0xfff8, frag[3]&1 != 0); why != 0 {
			return why
		}
	}
	return p.transport()
}

// chain follows IPv6 extension headers to what they carry, six at most.
func chain(b []byte, next uint8, at, end int) (proto uint8, off int, frag []byte, bad bool) {
	for i := 0; ; i++ {
		switch next {
		case 0, 43, 44, 51, 60:
		default:
			return next, at, frag, false
		}
		if i == 6 || at+8 > end || at+8 > len(b) {
			return 0, 0, nil, true
		}
		h := b[at:]
		size := (int(h[1]) + 1) * 8
		switch next {
		case 0:
			bad = i > 0
		case 43:
			bad = h[3] != 0
		case 51:
			size = (int(h[1]) + 2) * 4
		case 44:
			size = 8
			bad = frag != nil
			frag = h[:8]
			switch h[0] {
			case 0, 43, 44, 51, 60:
				bad = true
			}
		}
		next = h[0]
		if at += size; bad || at > end {
			return 0, 0, nil, true
		}
	}
}

func (p *view) fragment(id uint32, off int, more bool) uint8 {
	p.off, p.fragID = off, id
	p.rest = off > 0
	p.first = off == 0 && more
	if p.rest && off+p.n > 65535 {
		return maps.DropInvalid
	}
	return 0
}

func (p *view) transport() uint8 {
	if p.proto == [2]uint8{icmp6, icmp4}[p.v] {
		return maps.DropL4Protocol
	}
	least := shortest(p.proto)
	switch {
	case p.rest && p.off < least:
		return maps.DropFragment
	case p.rest || least == 0:
		return 0
	case p.n < least:
		return maps.DropTruncated
	}
	p.known = true
	h := p.frame[p.l4 : p.l4+p.n]
	if p.icmp() {
		p.typ, p.code = h[0], h[1]
		if is, _ := p.echo(); is {
			p.sport = uint16(be16(h[4:]))
		}
		p.complaint = p.v == 1 && p.typ < 128 || p.v == 0 && (p.typ >= 3 && p.typ <= 5 || p.typ == 11 || p.typ == 12)
		return 0
	}
	p.sport, p.dport = uint16(be16(h)), uint16(be16(h[2:]))
	size := least
	switch p.proto {
	case tcp:
		p.flags = h[13]
		size = int(h[12]>>4) * 4
	case udp:
		size = be16(h[4:])
	}
	if size < least || size > p.n && !p.first {
		return maps.DropTruncated
	}
	return 0
}
