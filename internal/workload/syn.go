package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// TCP flags (RFC 9293, section 3.1).
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// tcpHeader is the length of one without options.
const tcpHeader = 20

// syn opens a TCP connection as a machine elsewhere would, and gives it up at once: with segments of its own instead of a socket, for the
// sockets of a node's processes are led to the backends of services, in whichever namespace they are. IPv4 only; needs CAP_NET_RAW.
func (p *Probe) syn(ctx context.Context, target string) error {
	to, err := netip.ParseAddrPort(target)
	if err != nil || !to.Addr().Is4() {
		return fmt.Errorf("open a connection with %q: want an IPv4 address and a port", target)
	}
	from, c, err := p.raw(to.Addr())
	if err != nil {
		return fmt.Errorf("open a connection with %s: %w", to, err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.Local = from.String()
	seq := rand.Uint32()
	for ctx.Err() == nil {
		if _, err := c.WriteTo(segment(from, to, seq), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
			return fmt.Errorf("open a connection with %s: %w", to, err)
		}
		switch flags := opened(c, from, to, seq); {
		case flags&flagRST != 0:
			return fmt.Errorf("open a connection with %s: %w", to, unix.ECONNREFUSED)
		case flags != 0:
			return nil
		}
	}
	return fmt.Errorf("open a connection with %s: %w", to, context.Cause(ctx))
}

// raw is a socket for TCP segments, and the address and port to write into them.
func (p *Probe) raw(to netip.Addr) (from netip.AddrPort, c net.PacketConn, err error) {
	err = p.inside(func() error {
		route, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9))) // sends nothing
		if err != nil {
			return err
		}
		defer func() { _ = route.Close() }()
		addr := route.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		from = netip.AddrPortFrom(addr, uint16(20000+rand.IntN(10000))) // below those that the kernel gives away
		c, err = net.ListenPacket("ip4:tcp", addr.String())
		return err
	})
	return from, c, err
}

// segment is the one that asks for a connection.
func segment(from, to netip.AddrPort, seq uint32) []byte {
	b := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = tcpHeader/4<<4, flagSYN
	binary.BigEndian.PutUint16(b[14:], 65535) // window
	pseudo := append(append(from.Addr().AsSlice(), to.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, tcpHeader)
	var sum uint32
	for _, part := range [][]byte{pseudo, b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// opened waits a second for the answer to a segment and returns its flags, 0 if there is none. All segments of the machine come here.
func opened(c net.PacketConn, from, to netip.AddrPort, seq uint32) byte {
	buf := make([]byte, 1500)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		_ = c.SetReadDeadline(end)
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return 0
		}
		b := buf[:n]
		if a, ok := netip.AddrFromSlice(peer.(*net.IPAddr).IP); !ok || a.Unmap() != to.Addr() || n < tcpHeader {
			continue
		}
		if binary.BigEndian.Uint16(b) == to.Port() && binary.BigEndian.Uint16(b[2:]) == from.Port() && binary.BigEndian.Uint32(b[8:]) == seq+1 &&
			b[13]&flagACK != 0 && b[13]&(flagSYN|flagRST) != 0 {
			return b[13]
		}
	}
	return 0
}
