package packet

import (
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// EtherLen is the length of the frame header that every packet here has.
const EtherLen = 14

// ICMP is a message of the flow's version with this type and code; rest is what follows the checksum.
func (f Flow) ICMP(typ, code uint8, rest ...byte) []byte {
	for len(rest) < 4 {
		rest = append(rest, 0)
	}
	if f.Src.Is6() {
		ip := f.IPv6(layers.IPProtocolICMPv6)
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, code)}
		if err := m.SetNetworkLayerForChecksum(ip); err != nil {
			panic(err)
		}
		return Serialize(f.Ethernet(), ip, m, gopacket.Payload(rest))
	}
	m := &layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(typ, code),
		Id:       uint16(rest[0])<<8 | uint16(rest[1]),
		Seq:      uint16(rest[2])<<8 | uint16(rest[3]),
	}
	return Serialize(f.Ethernet(), f.IPv4(layers.IPProtocolICMPv4), m, gopacket.Payload(rest[4:]))
}

// EchoRequest is a ping.
func (f Flow) EchoRequest(id uint16) []byte {
	typ := uint8(8)
	if f.Src.Is6() {
		typ = 128
	}
	return f.ICMP(typ, 0, byte(id>>8), byte(id), 0, 1, 'p', 'i', 'n', 'g')
}

// EchoReply is its answer.
func (f Flow) EchoReply(id uint16) []byte {
	typ := uint8(0)
	if f.Src.Is6() {
		typ = 129
	}
	return f.ICMP(typ, 0, byte(id>>8), byte(id), 0, 1, 'p', 'i', 'n', 'g')
}

// Unreachable is a "port unreachable" that quotes a frame's IP packet.
func (f Flow) Unreachable(quoted []byte) []byte {
	typ, code := uint8(3), uint8(3)
	if f.Src.Is6() {
		typ, code = 1, 4
	}
	return f.ICMP(typ, code, append([]byte{0, 0, 0, 0}, quoted[EtherLen:]...)...)
}
