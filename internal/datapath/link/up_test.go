package link

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// The node's first packet to a workload arrives: once Up has returned, nothing is lost to a device that is not ready.
func TestUpCarries(t *testing.T) {
	for range 10 {
		pod := netns.New(t, "pod")
		onNode(t, func(t *testing.T, p *Pairs) error {
			ctx, s := context.Background(), spec(pod)
			if _, err := p.Create(ctx, s); err != nil {
				return err
			}
			var l net.PacketConn
			pod.In(func() (err error) { l, err = net.ListenPacket("udp4", ":7777"); return err })
			defer func() { _ = l.Close() }()
			c, err := net.ListenPacket("udp4", gw4.String()+":0")
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			if err := p.Up(ctx, s); err != nil {
				return err
			}
			if _, err := c.WriteTo([]byte("first"), &net.UDPAddr{IP: pod4.AsSlice(), Port: 7777}); err != nil {
				return err
			}
			if err := l.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				return err
			}
			if _, _, err := l.ReadFrom(make([]byte, 16)); err != nil {
				t.Errorf("the first packet is lost: %v", err)
			}
			return nil
		})
	}
}
