package workload

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// listenUDP opens a socket on all addresses that tells of each datagram which address it was sent to.
func listenUDP(port int) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil { // a kernel without IPv6
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			}
		})
		if err == nil {
			err = ctlErr
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask for addresses of datagrams: %w", err)
	}
	return c, nil
}

// replySource turns the control messages of a received datagram (ip(7), ipv6(7)) into those of its answer: from the
// address it was sent to, by whatever device the route says. oob is changed; nil is no wish.
func replySource(oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return nil
	}
	m := msgs[0]
	var device []byte
	switch {
	case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
		device = m.Data[16:20]
	case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
		device = m.Data[0:4]
	default:
		return nil
	}
	binary.NativeEndian.PutUint32(device, 0) // m.Data lies in oob
	return oob
}
