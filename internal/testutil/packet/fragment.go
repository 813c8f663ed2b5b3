package packet

import (
	"encoding/binary"

	"github.com/gopacket/gopacket/layers"
)

// Fragment cuts the IP payload of a frame without options or extension headers at `at` bytes, a multiple of 8, and
// returns both pieces.
func Fragment(frame []byte, at int, id uint32) (first, later []byte) {
	ip := frame[EtherLen:]
	if ip[0]>>4 == 4 {
		return fragment4(frame, at, uint16(id))
	}
	return fragment6(frame, at, id)
}

func fragment4(frame []byte, at int, id uint16) (first, later []byte) {
	piece := func(from, to int, off uint16) []byte {
		b := append([]byte(nil), frame[:EtherLen+20]...)
		b = append(b, frame[EtherLen+20+from:EtherLen+20+to]...)
		ip := b[EtherLen:]
		binary.BigEndian.PutUint16(ip[2:], uint16(20+to-from))
		binary.BigEndian.PutUint16(ip[4:], id)
		binary.BigEndian.PutUint16(ip[6:], off)
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum(ip[:20])))
		return b
	}
	end := len(frame) - EtherLen - 20
	return piece(0, at, 0x2000), piece(at, end, uint16(at/8))
}

func fragment6(frame []byte, at int, id uint32) (first, later []byte) {
	piece := func(from, to int, off uint16) []byte {
		b := append([]byte(nil), frame[:EtherLen+40]...)
		b = append(b, b[EtherLen+6], 0)
		b = binary.BigEndian.AppendUint16(b, off)
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, frame[EtherLen+40+from:EtherLen+40+to]...)
		b[EtherLen+6] = byte(layers.IPProtocolIPv6Fragment)
		binary.BigEndian.PutUint16(b[EtherLen+4:], uint16(8+to-from))
		return b
	}
	end := len(frame) - EtherLen - 40
	return piece(0, at, 1), piece(at, end, uint16(at))
}
