package datapath_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
)

// unquote reads the packet that an ICMP error is about. It must have been sent by whom the error goes to.
func (p *view) unquote() uint8 {
	if p.v == 0 && (p.typ == 4 || p.typ == 5) {
		return maps.DropInvalid // source quench, redirect
	}
	end := p.l4 + p.n
	p.quote = p.l4 + 8
	q := p.frame[p.quote:]
	f := &p.about
	var src, dst netip.Addr
	if p.v == 0 {
		if len(q) < 20 || q[0]>>4 != 4 || q[0]&15 < 5 || be16(q[6:])&0x1fff != 0 {
			return maps.DropTruncated
		}
		src, dst = netip.AddrFrom4([4]byte(q[12:16])), netip.AddrFrom4([4]byte(q[16:20]))
		f.proto = q[9]
		p.quoteL4 = p.quote + int(q[0]&15)*4
	} else {
		if len(q) < 40 || q[0]>>4 != 6 {
			return maps.DropTruncated
		}
		src, dst = netip.AddrFrom16([16]byte(q[8:24])), netip.AddrFrom16([16]byte(q[24:40]))
		if src.Is4In6() || dst.Is4In6() {
			return maps.DropTruncated
		}
		proto, at, frag, bad := chain(p.frame, q[6], p.quote+40, end)
		if bad || frag != nil && be16(frag[2:])&0xfff8 != 0 {
			return maps.DropTruncated
		}
		f.proto, p.quoteL4 = proto, at
	}
	if p.quoteL4+8 > end {
		return maps.DropTruncated
	}
	f.src, f.dst = dst, src // turned round: it then travels as the error does
	h := p.frame[p.quoteL4:]
	switch {
	case f.proto == [2]uint8{icmp6, icmp4}[p.v]:
		return maps.DropInvalid
	case f.ported():
		f.sport, f.dport = uint16(be16(h[2:])), uint16(be16(h))
	case f.icmp():
		f.typ = h[0]
		is, asks := f.echo()
		if !is {
			return maps.DropInvalid
		}
		// What came back for a request is a reply, and the other way round.
		f.typ = map[bool][2]uint8{true: {0, 129}, false: {8, 128}}[asks][p.v]
		f.sport = uint16(be16(h[4:]))
	}
	if src != p.dst {
		return maps.DropInvalid
	}
	return 0
}
