package packet

import (
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Operations of ARP.
const (
	ARPRequest = layers.ARPRequest
	ARPReply   = layers.ARPReply
)

// ARP is a message in which `mac`, `ip` speaks of `target`.
func ARP(op uint16, mac net.HardwareAddr, ip, target netip.Addr) []byte {
	return Serialize(
		&layers.Ethernet{SrcMAC: mac, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: op, SourceHwAddress: mac, SourceProtAddress: ip.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice()})
}

// Neighbour is a message of neighbour discovery (133-137) from f.Src to f.Dst about target, with the sender's MAC as an
// option. Its hop limit is 255 unless f has one.
func (f Flow) Neighbour(typ uint8, target netip.Addr) []byte {
	if f.TTL == 0 {
		f.TTL = 255
	}
	body := make([]byte, 4, 4+16+8)
	body = append(body, target.AsSlice()...)
	body = append(body, 1, 1)
	body = append(body, f.SrcMAC...)
	return f.ICMP(typ, 0, body...)
}

// SolicitedNode is the multicast address at which an IPv6 address is asked for.
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Decode reads a frame.
func Decode(frame []byte) gopacket.Packet {
	return gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
}
