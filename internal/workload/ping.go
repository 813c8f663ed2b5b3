package workload

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Protocol numbers, as icmp.ParseMessage wants them.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// Ping sends one ICMP echo request a second until one is answered or ctx ends. It needs CAP_NET_RAW.
func Ping(ctx context.Context, host string) error {
	to, err := new(net.Resolver).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err // names the host
	}
	addr := to[0].Unmap()
	network, proto, request := "ip4:icmp", protoICMP, icmp.Type(ipv4.ICMPTypeEcho)
	if addr.Is6() {
		network, proto, request = "ip6:ipv6-icmp", protoICMPv6, ipv6.ICMPTypeEchoRequest
	}
	c, err := icmp.ListenPacket(network, "")
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var secret [8]byte
	_, _ = rand.Read(secret[:]) // never fails
	echo := &icmp.Echo{ID: int(binary.NativeEndian.Uint16(secret[:])), Data: secret[:]}
	for ; ctx.Err() == nil; echo.Seq++ {
		b, err := (&icmp.Message{Type: request, Body: echo}).Marshal(nil)
		if err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
			return fmt.Errorf("ping %s: %w", addr, err)
		}
		if answered(ctx, c, addr, proto, echo) {
			return nil
		}
	}
	return fmt.Errorf("ping %s: %w", addr, context.Cause(ctx))
}

// answered waits a second for the answer to a request. All answers that the machine gets come to such a socket.
func answered(ctx context.Context, c *icmp.PacketConn, from netip.Addr, proto int, want *icmp.Echo) bool {
	end := time.Now().Add(time.Second)
	buf := make([]byte, 1500)
	for ctx.Err() == nil && time.Now().Before(end) {
		_ = c.SetReadDeadline(end)
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return false // its time is over, or the context's
		}
		if a, ok := netip.AddrFromSlice(peer.(*net.IPAddr).IP); !ok || a.Unmap() != from {
			continue
		}
		m, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
			continue
		}
		if got, ok := m.Body.(*icmp.Echo); ok && got.ID == want.ID && bytes.Equal(got.Data, want.Data) {
			return true
		}
	}
	return false
}
