package e2e

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// wire sends frames from a device as they are.
type wire struct {
	t     *testing.T
	fd    int
	index int
	mac   net.HardwareAddr // of the device
	peer  net.HardwareAddr // whom frames go to
}

// tap opens the device of a pod; peer is the MAC that it sends to.
func tap(t *testing.T, ns *netns.NS, peer net.HardwareAddr) *wire {
	t.Helper()
	return tapOn(t, ns, "eth0", peer)
}

func tapOn(t *testing.T, ns *netns.NS, name string, peer net.HardwareAddr) *wire {
	t.Helper()
	w := &wire{t: t, peer: peer}
	var err error
	if w.mac, err = ns.MAC(name); err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		w.index = dev.Index
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *wire) send(ls ...gopacket.SerializableLayer) {
	w.t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		w.t.Fatal(err)
	}
	if err := unix.Sendto(w.fd, buf.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) eth(src net.HardwareAddr, t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: src, DstMAC: w.peer, EthernetType: t}
}

// udp sends a datagram with these addresses.
func (w *wire) udp(mac net.HardwareAddr, src, dst netip.Addr, port uint16) {
	w.t.Helper()
	u := &layers.UDP{SrcPort: 4242, DstPort: layers.UDPPort(port)}
	payload := gopacket.Payload("12345678")
	if src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = u.SetNetworkLayerForChecksum(ip)
		w.send(w.eth(mac, layers.EthernetTypeIPv4), ip, u, payload)
		return
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	_ = u.SetNetworkLayerForChecksum(ip)
	w.send(w.eth(mac, layers.EthernetTypeIPv6), ip, u, payload)
}

// hostDevice is the host side of a pod's device pair.
func hostDevice(t *testing.T, p *cluster.Pod) string {
	t.Helper()
	eps, err := p.Node.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ep := range eps {
		if ep.GetContainerId() == p.NS.Name() {
			return ep.GetHostInterface()
		}
	}
	t.Fatalf("pod %s has no endpoint", p.Name)
	return ""
}

// hostMAC is its MAC.
func hostMAC(t *testing.T, p *cluster.Pod) net.HardwareAddr {
	t.Helper()
	mac, err := p.Node.NS.MAC(hostDevice(t, p))
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// tally counts the frames for which match is true that a device receives or sends, until the test ends.
func tally(t *testing.T, ns *netns.NS, name string, match func(frame []byte) bool) (seen func() int64) {
	t.Helper()
	fd, all := -1, uint16(unix.ETH_P_ALL<<8) // in network byte order
	err := ns.Do(func() error {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
	})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	}
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 128)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if size, _, err := unix.Recvfrom(fd, b, 0); err == nil && match(b[:size]) {
				n.Add(1)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; _ = unix.Close(fd) })
	return n.Load
}

// encapsulated says whether a frame is an IP packet of a version with another one inside: by Geneve, or plainly.
func encapsulated(frame []byte, v6, geneve bool) bool {
	const link = 14
	head, proto, inner := 20, 9, uint8(4)
	if v6 {
		head, proto, inner = 40, 6, 41
	}
	if len(frame) < link+head+8 || frame[link]>>4 == 6 != v6 {
		return false
	}
	ip := frame[link:]
	if geneve {
		return ip[proto] == 17 && ip[head+2] == 6081>>8 && ip[head+3] == 6081&0xff
	}
	return ip[proto] == inner
}
