// Package packet builds and reads Ethernet frames for tests of the datapath: well-formed ones by default, with lengths
// and checksums right; tests then break what they want broken.
package packet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Flow is one direction of a conversation. The zero TTL means 64.
type Flow struct {
	SrcMAC, DstMAC   net.HardwareAddr
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	TTL              uint8
}

// Reverse is the other direction.
func (f Flow) Reverse() Flow {
	f.SrcMAC, f.DstMAC = f.DstMAC, f.SrcMAC
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	return f
}

// MAC is a locally administered MAC address that ends in n.
func MAC(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// Serialize puts layers together with lengths and checksums filled in.
func Serialize(ls ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		panic(fmt.Sprintf("serialize packet: %v", err)) // a mistake in the test
	}
	return buf.Bytes()
}

func (f Flow) ttl() uint8 {
	if f.TTL == 0 {
		return 64
	}
	return f.TTL
}

// Ethernet is the frame header for the flow's IP version.
func (f Flow) Ethernet() *layers.Ethernet {
	e := &layers.Ethernet{SrcMAC: f.SrcMAC, DstMAC: f.DstMAC, EthernetType: layers.EthernetTypeIPv4}
	if f.Src.Is6() {
		e.EthernetType = layers.EthernetTypeIPv6
	}
	return e
}

// IPv4 is the IP header of an IPv4 flow.
func (f Flow) IPv4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: f.ttl(), Id: 1, Protocol: proto, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
}

// IPv6 is the IP header of an IPv6 flow.
func (f Flow) IPv6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: f.ttl(), NextHeader: next, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
}

// Network is an IP header.
type Network interface {
	gopacket.SerializableLayer
	gopacket.NetworkLayer
}

// IP is the IP header of the flow, whichever version.
func (f Flow) IP(proto layers.IPProtocol) Network {
	if f.Src.Is6() {
		return f.IPv6(proto)
	}
	return f.IPv4(proto)
}

// TCP is a segment; flags are letters of "SAFRPU".
func (f Flow) TCP(flags string, payload ...byte) []byte {
	t := &layers.TCP{SrcPort: layers.TCPPort(f.SrcPort), DstPort: layers.TCPPort(f.DstPort), Seq: 1, Window: 1024}
	for _, c := range flags {
		switch c {
		case 'S':
			t.SYN = true
		case 'A':
			t.ACK = true
		case 'F':
			t.FIN = true
		case 'R':
			t.RST = true
		case 'P':
			t.PSH = true
		case 'U':
			t.URG = true
		}
	}
	return f.transport(layers.IPProtocolTCP, t, payload)
}

// UDP is a datagram.
func (f Flow) UDP(payload ...byte) []byte {
	return f.transport(layers.IPProtocolUDP, &layers.UDP{SrcPort: layers.UDPPort(f.SrcPort), DstPort: layers.UDPPort(f.DstPort)}, payload)
}

// SCTP is a packet with a correct CRC32c and no chunks.
func (f Flow) SCTP() []byte {
	return f.transport(layers.IPProtocolSCTP, &layers.SCTP{SrcPort: layers.SCTPPort(f.SrcPort), DstPort: layers.SCTPPort(f.DstPort), VerificationTag: 1}, nil)
}

func (f Flow) transport(proto layers.IPProtocol, l gopacket.SerializableLayer, payload []byte) []byte {
	ip := f.IP(proto)
	if c, ok := l.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		if err := c.SetNetworkLayerForChecksum(ip); err != nil {
			panic(err)
		}
	}
	return Serialize(f.Ethernet(), ip, l, gopacket.Payload(payload))
}

// Raw is an IP packet of any protocol.
func (f Flow) Raw(proto uint8, payload ...byte) []byte {
	return Serialize(f.Ethernet(), f.IP(layers.IPProtocol(proto)), gopacket.Payload(payload))
}
