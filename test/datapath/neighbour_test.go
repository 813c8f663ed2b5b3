package datapath_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// arp: the datapath is every other machine to a workload (RFC 826). A probe or an announcement gets no answer.
func (o *oracle) arp(in bpftest.Packet) fate {
	f := in.Frame
	if len(f) < 42 || string(f[14:20]) != "\x00\x01\x08\x00\x06\x04" {
		return fate{why: maps.DropInvalid}
	}
	op, sender, target := be16(f[20:]), netip.AddrFrom4([4]byte(f[28:32])), netip.AddrFrom4([4]byte(f[38:42]))
	if sender.IsUnspecified() || sender == target {
		return fate{act: quiet}
	}
	pod := o.podAt(sender)
	if pod == nil || pod.Dev != in.IfIndex {
		return fate{why: maps.DropSourceIP}
	}
	if string(f[22:28]) != string(pod.MAC) || string(f[6:12]) != string(pod.MAC) {
		return fate{why: maps.DropSourceMAC}
	}
	switch op {
	case 2:
		return fate{act: toStack, frame: f}
	case 1:
	default:
		return fate{why: maps.DropInvalid}
	}
	b := append([]byte(nil), f...)
	copy(b, pod.MAC)
	copy(b[6:], pod.HostMAC)
	b[21] = 2
	copy(b[22:], pod.HostMAC)
	copy(b[28:], f[38:42])
	copy(b[32:], pod.MAC)
	copy(b[38:], f[28:32])
	return fate{act: reply, frame: b}
}

// neighbour is RFC 4861, for a workload.
func (o *oracle) neighbour(in bpftest.Packet, p *view) fate {
	switch p.typ {
	case 133:
		return fate{act: quiet}
	case 134, 137:
		return fate{why: maps.DropICMPv6Forbidden} // routers only
	}
	f := in.Frame
	if p.hop != 255 || !p.plain || p.code != 0 || p.n < 24 {
		return fate{why: maps.DropInvalid}
	}
	target := netip.AddrFrom16([16]byte(f[p.l4+8 : p.l4+24]))
	src, owner := o.podAt(p.src), o.podAt(target)
	mine := owner != nil && owner.Dev == in.IfIndex
	mac := string(f[6:12])
	if p.typ == 136 {
		switch to := o.at(p.dst); {
		case !p.dst.IsLinkLocalUnicast() && !p.dst.IsLinkLocalMulticast() && to.role != self:
			return fate{why: maps.DropICMPv6Forbidden}
		case src == nil && !p.src.IsLinkLocalUnicast() || src != nil && src.Dev != in.IfIndex:
			return fate{why: maps.DropSourceIP}
		case !mine:
			return fate{why: maps.DropICMPv6Forbidden}
		case mac != string(owner.MAC):
			return fate{why: maps.DropSourceMAC}
		}
		return fate{act: toStack, frame: f}
	}
	say := f[:6]
	switch {
	case p.src.IsUnspecified() || mine:
		return fate{act: quiet}
	case src != nil && src.Dev != in.IfIndex || src == nil && !p.src.IsLinkLocalUnicast():
		return fate{why: maps.DropSourceIP}
	case src != nil && mac != string(src.MAC):
		return fate{why: maps.DropSourceMAC}
	case src != nil:
		say = src.HostMAC
	case f[0]&1 != 0:
		return fate{act: quiet}
	}
	b := append(append([]byte(mac), say...), f[12:54]...)
	binary.BigEndian.PutUint16(b[18:], 32)
	put(b, p.addrAt(ether, false), target)
	put(b, p.addrAt(ether, true), p.src)
	b = append(b, 136, 0, 0, 0, 0x60, 0, 0, 0)
	b = append(b, f[p.l4+8:p.l4+24]...)
	b = append(append(b, 2, 1), say...)
	binary.BigEndian.PutUint16(b[ether+42:], checksum(b[22:54], []byte{0, 0, 0, 32, 0, 0, 0, icmp6}, b[54:]))
	return fate{act: reply, frame: b}
}
