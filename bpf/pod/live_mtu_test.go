package pod_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// knownMTU is what a namespace's stack has learned of the way to an address, 0 if nothing.
func knownMTU(ns *netns.NS, addr netip.Addr) (mtu int) {
	f := strings.Fields(ns.Run("ip", "route", "get", addr.String()))
	for i := range f {
		if f[i] == "mtu" {
			_, _ = fmt.Sscan(f[i+1], &mtu)
		}
	}
	return mtu
}

// sendWhole sends a datagram that must not be fragmented.
func sendWhole(from *netns.NS, addr netip.Addr, size int) error {
	return from.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		})
		_, err = c.Write(make([]byte, size))
		return err
	})
}

// A workload's device lets through more than the ways behind the node do: it is told, and its stack believes it.
func TestLivePathMTU(t *testing.T) {
	const tunnel, narrow = 1450, 1300
	n1, n2 := newLiveNode(t, 1, bpftest.AllOn), newLiveNode(t, 2, bpftest.AllOn)
	netns.Veth(t, n1.NS, "eth0", n2.NS, "eth0")
	n1.NS.Addr("eth0", underlay[1][0]+"/24", underlay[1][1]+"/64")
	n2.NS.Addr("eth0", underlay[2][0]+"/24", underlay[2][1]+"/64")
	world := netns.New(t, "world")
	netns.Veth(t, n1.NS, "eth1", world, "eth0")
	n1.NS.Addr("eth1", "198.51.100.1/24", "2001:db8:1::1/64")
	world.Addr("eth0", "198.51.100.7/24", "2001:db8:1::7/64")
	n1.NS.Run("ip", "link", "set", "eth1", "mtu", fmt.Sprint(narrow))
	// The other end keeps to it, but does not say so: the workload has to find out.
	for v, addr := range []string{"198.51.100.1", "2001:db8:1::1"} {
		world.Run("ip", []string{"-4", "-6"}[v], "route", "add", addr, "dev", "eth0", "mtu", fmt.Sprint(narrow), "advmss", fmt.Sprint([]int{1460, 1440}[v]))
	}
	n1.Put(n1.Maps.DevicesV1, uint32(n1.ifindex("eth1")), maps.Device{Mtu: narrow,
		Masq4: maps.AddrFrom(netip.MustParseAddr("198.51.100.1")), Masq6: maps.AddrFrom(netip.MustParseAddr("2001:db8:1::1"))})
	n1.attach("eth1", host.FromNetdev, ebpf.AttachTCXIngress)
	n1.knows(2)
	n2.knows(1)
	a, c := n1.pod(11, 1001), n2.pod(21, 1002)
	for _, x := range []struct {
		node *liveNode
		pod  *netns.NS
		dev  string
	}{{n1, a, "hy11"}, {n2, c, "hy21"}} {
		x.pod.Run("ip", "link", "set", "eth0", "mtu", "1500")
		x.node.NS.Run("ip", "link", "set", x.dev, "mtu", "1500")
	}
	outside := [2]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")}
	for v, version := range versions {
		for _, x := range []struct {
			where string
			to    *netns.NS
			addr  netip.Addr
			mtu   int
		}{{"outside", world, outside[v], narrow}, {"other node", c, podAddr(2, 21)[v], tunnel}} {
			for how, send := range map[string]func(){
				"ping": func() { _, _ = a.Try("ping", "-n", "-c2", "-i0.2", "-W1", "-Mdo", "-s1440", x.addr.String()) },
				"udp":  func() { _ = sendWhole(a, x.addr, 1440) },
				"tcp":  func() { talk(t, a, x.to, x.addr) },
				"tcp in segments": func() {
					a.Run("ip", "link", "set", "eth0", "gso_max_segs", "1")
					talk(t, a, x.to, x.addr)
					a.Run("ip", "link", "set", "eth0", "gso_max_segs", "65535")
				},
			} {
				t.Run(version+"/"+x.where+"/"+how, func(t *testing.T) {
					for _, ns := range []*netns.NS{a, c} { // both, for an end that knows announces a segment size to match
						ns.Run("ip", []string{"-4", "-6"}[v], "route", "flush", "cache")
					}
					if got := knownMTU(a, x.addr); got != 0 {
						t.Fatalf("MTU %d known before anything was sent", got)
					}
					send()
					for range 20 {
						if knownMTU(a, x.addr) == x.mtu {
							return
						}
						time.Sleep(50 * time.Millisecond)
					}
					t.Errorf("the workload believes in MTU %d, want %d\n%s", knownMTU(a, x.addr), x.mtu, a.Run("cat", "/proc/net/snmp"))
				})
			}
		}
		for where, addr := range map[string]netip.Addr{"outside": outside[v], "other node": podAddr(2, 21)[v]} {
			out, _ := a.Try("ping", "-n", "-c1", "-W1", "-t1", addr.String())
			if !strings.Contains(out, "From "+podAddr(1, 1)[v].String()) {
				t.Errorf("%s %s: one hop is not enough, and nobody says so:\n%s", version, where, out)
			}
		}
	}
}
