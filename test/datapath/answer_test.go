package datapath_test

import (
	"encoding/binary"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// length is the IP packet's.
func (p *view) length() int { return p.l4 - ether + p.n }

// answer refuses a packet of a workload, and tells it with an ICMP error (RFC 792, RFC 4443): mtu 0 is "out of hops". Errors
// and later fragments are never answered, nor is what has options or too little to quote.
func (o *oracle) answer(p *view, why uint8, mtu int) fate {
	f := fate{why: why}
	quoted := map[uint8]int{tcp: 20, sctp: 12}[p.proto]
	if quoted == 0 {
		quoted = 8
	}
	if !p.plain || p.n < quoted || p.complaint || p.rest {
		return f
	}
	quote := p.frame[ether : p.l4+quoted]
	icmp := make([]byte, 8, 8+len(quote))
	switch {
	case mtu > 0 && p.v == 0:
		icmp[0], icmp[1] = 3, 4
	case mtu > 0:
		icmp[0] = 2
	case p.v == 0:
		icmp[0] = 11
	default:
		icmp[0] = 3
	}
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	icmp = append(icmp, quote...)
	router := bpftest.Router1[p.v].AsSlice()
	var b []byte
	b = append(append(append(b, p.frame[6:12]...), p.frame[:6]...), p.frame[12:14]...)
	if p.v == 0 {
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		head := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, icmp4, 0, 0}, router...)
		head = append(head, p.src.AsSlice()...)
		binary.BigEndian.PutUint16(head[2:], uint16(20+len(icmp)))
		binary.BigEndian.PutUint16(head[10:], checksum(head))
		b = append(b, head...)
	} else {
		head := append([]byte{0x60, 0, 0, 0, 0, 0, icmp6, 64}, router...)
		head = append(head, p.src.AsSlice()...)
		binary.BigEndian.PutUint16(head[4:], uint16(len(icmp)))
		binary.BigEndian.PutUint16(icmp[2:], checksum(head[8:], []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, icmp6}, icmp))
		b = append(b, head...)
	}
	f.back = append(b, icmp...)
	return f
}

// checksum is RFC 1071's. Pieces are of even length, but for the last.
func checksum(pieces ...[]byte) uint16 { return ^total(pieces...) }

func total(pieces ...[]byte) uint16 {
	var s uint32
	for _, b := range pieces {
		for i := range b {
			if i%2 == 0 {
				s += uint32(b[i]) << 8
			} else {
				s += uint32(b[i])
			}
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// hop is the packet with one hop less.
func (o *oracle) hop(p *view) []byte {
	b := append([]byte(nil), p.frame...)
	b[p.eth+[2]int{8, 7}[p.v]]--
	return b
}

// away is a packet of a workload to anything but a workload of its node.
func (o *oracle) away(p *view, who *place, against bool) fate {
	switch {
	case who.role == self:
		return fate{act: toStack, frame: p.frame}
	case p.hop <= 1:
		return o.answer(p, maps.DropTTL, 0)
	case who.role != behind:
		return o.leaves(p, who, against)
	case p.length() > max(tunnelMTU, 1280):
		return o.answer(p, maps.DropFragment, tunnelMTU)
	}
	return fate{act: toTunnel, frame: o.hop(p), mark: markOverlay, peer: who.node}
}
