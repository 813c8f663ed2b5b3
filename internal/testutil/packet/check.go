package packet

import (
	"encoding/binary"
	"fmt"
)

// Check verifies every checksum of a frame: the IPv4 header's, and TCP's, UDP's or ICMP's over the whole packet. It
// knows no IPv6 extension headers and no fragments.
func Check(frame []byte) error {
	ip := frame[EtherLen:]
	var pseudo []byte
	var proto byte
	var l4 []byte
	switch ip[0] >> 4 {
	case 4:
		hlen := int(ip[0]&15) * 4
		if s := sum(ip[:hlen]); s != 0xffff {
			return fmt.Errorf("IPv4 header sums up to %#x", s)
		}
		proto, l4 = ip[9], ip[hlen:binary.BigEndian.Uint16(ip[2:])]
		pseudo = append(pseudo, ip[12:20]...)
	case 6:
		proto, l4 = ip[6], ip[40:40+binary.BigEndian.Uint16(ip[4:])]
		pseudo = append(pseudo, ip[8:40]...)
	default:
		return fmt.Errorf("IP version %d", ip[0]>>4)
	}
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(l4)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(proto))
	switch proto {
	case 1:
		pseudo = nil
	case 6, 17, 58:
	default:
		return nil
	}
	if s := sum(append(pseudo, l4...)); s != 0xffff {
		return fmt.Errorf("protocol %d sums up to %#x", proto, s)
	}
	return nil
}

// sum is the ones' complement sum (RFC 1071).
func sum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}
