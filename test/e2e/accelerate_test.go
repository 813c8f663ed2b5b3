package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// Of linux/ethtool.h: features of a device that are on or off.
const (
	ethtoolTxSum = 0x17 // ETHTOOL_STXCSUM
	ethtoolGRO   = 0x2c // ETHTOOL_SGRO
)

// ethtool sets a feature of a device.
func ethtool(ns *netns.NS, dev string, feature, value uint32) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		set := [2]uint32{feature, value}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			pad  [16]byte
		}
		copy(req.name[:], dev)
		req.data = unsafe.Pointer(&set)
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); no != 0 {
			return fmt.Errorf("set feature %#x of %s: %w", feature, dev, no)
		}
		return nil
	})
}

// likeWires makes the cluster's pairs as real devices are: who sends by them computes its checksums, as a card would, and what XDP
// sends is taken.
func likeWires(c *cluster.Cluster) error {
	var failed error
	for _, n := range c.Nodes {
		failed = errors.Join(failed, ethtool(c.World, n.Name, ethtoolTxSum, 0), ethtool(n.NS, "eth0", ethtoolTxSum, 0), ethtool(c.World, n.Name, ethtoolGRO, 1))
	}
	return failed
}

// fastSent is how many packets a node has sent on in XDP. It asks the kernel, for agents come and go.
func fastSent(t *testing.T, n *cluster.Node) (sum uint64) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(n.Paths.Maps(), "xdp_count_v1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	var cpus []layout.Metric
	if err := m.Lookup(layout.FastSent, &cpus); err != nil {
		t.Fatal(err)
	}
	for _, c := range cpus {
		sum += c.Count
	}
	return sum
}

// carried wants messages of a stream to go by way of XDP on a node: a packet for each at least.
func carried(t *testing.T, what string, n *cluster.Node, s *stream) {
	t.Helper()
	eventually(t, yes, what+": to go by way of XDP", func() error {
		sent, count := fastSent(t, n), s.count.Load()
		if err := s.alive(yes); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		sent, count = fastSent(t, n)-sent, s.count.Load()-count
		if count == 0 || sent < count {
			return fmt.Errorf("%d packets sent on in XDP for %d messages", sent, count)
		}
		return nil
	})
}

// xdpMode is how a node's device runs XDP.
func xdpMode(t *testing.T, n *cluster.Node) (mode string) {
	t.Helper()
	err := n.NS.Do(func() error {
		dev, err := net.InterfaceByName("eth0")
		if err == nil {
			mode, err = loader.XDPMode(dev.Index)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mode
}

// TestAcceleration: with it on, what clients outside exchange with backends on another node goes by way of XDP, and all that holds
// without it holds: policy and services that change, denied sources, an agent that is away.
func TestAcceleration(t *testing.T) {
	for _, x := range []struct{ way, fast, mode string }{{"snat", "native", "native"}, {"dsr", "native", "native"}, {"snat", "testing-only", "generic"}, {"dsr", "generic", "generic"}} {
		t.Run(x.way+" "+x.fast, func(t *testing.T) {
			c := startPrepared(t, native, 2, map[string]any{"bpf-lb-mode": x.way, "bpf-lb-acceleration": x.fast}, likeWires)
			far := add(t, c, "far", 1, "app=far")
			node := c.Nodes[0]
			on := func(args ...string) string {
				t.Helper()
				out, err := c.Hypha(t.Context(), node, args...)
				if err != nil {
					t.Fatalf("%v: %v %s", args, err, out)
				}
				return out
			}
			if got := xdpMode(t, node); got != x.mode {
				t.Fatalf("eth0 runs XDP %q", got)
			}
			told(t, c, node, x.mode+" on eth0")
			streams := map[bool]*stream{}
			for i, v6 := range native.families() {
				every, own := map[bool]string{false: "0.0.0.0", true: "::"}[v6], map[bool]netip.Addr{false: node.IP4, true: node.IP6}[v6]
				front := netip.AddrPortFrom(own, 30300)
				for k, proto := range []string{"tcp", "udp"} {
					on("service", "update", "--id", fmt.Sprint(300+10*i+k), "--frontend", netip.AddrPortFrom(netip.MustParseAddr(every), front.Port()).String(),
						"--backends", netip.AddrPortFrom(far.Addr(v6), workload.EchoPort).String(), "--protocol", proto, "--k8s-node-port")
					eventually(t, yes, family(v6)+": the node port to serve "+proto, func() error { return askSoon(c.World, proto, front) })
				}
				streams[v6] = startStreamAt(t, c.World, front)
				carried(t, family(v6), node, streams[v6])
				if x.way == "snat" {
					datagramsCarried(t, c, node, front)
				}
			}
			stopped := func(what string) {
				t.Helper()
				for v6, s := range streams {
					eventually(t, yes, what+" to stop "+family(v6), func() error {
						if s.alive(no) == nil {
							return errors.New("it goes on")
						}
						return nil
					})
				}
			}
			resumed := func(what string) {
				t.Helper()
				for v6, s := range streams {
					if err := s.alive(time.Minute); err != nil { // a sender that heard nothing tries again later and later
						t.Fatalf("%s, %s: %v", what, family(v6), err)
					}
					carried(t, what+", "+family(v6), node, s)
				}
			}

			importPolicy(t, c, `[{"endpointSelector":{"matchLabels":{"app":"far"}},"ingressDeny":[{"fromEntities":["all"]}],"labels":[{"key":"cut"}]}]`)
			stopped("a policy")
			on("policy", "delete", "--all")
			resumed("after the policy")

			for _, a := range []string{"172.29.0.254/32", "fd29::fe/128"} {
				on("prefilter", "update", "--cidr", a)
			}
			stopped("the prefilter")
			for _, a := range []string{"172.29.0.254/32", "fd29::fe/128"} {
				on("prefilter", "delete", "--cidr", a)
			}
			resumed("after the prefilter")

			if err := node.Kill(); err != nil {
				t.Fatal(err)
			}
			resumed("without an agent")
			if err := node.Start(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			resumed("after a restart")
			if got := xdpMode(t, node); got != x.mode {
				t.Errorf("after a restart eth0 runs XDP %q", got)
			}

			for i, v6 := range native.families() {
				own := map[bool]netip.Addr{false: node.IP4, true: node.IP6}[v6]
				for k := range 2 {
					on("service", "delete", fmt.Sprint(300+10*i+k))
				}
				eventually(t, yes, family(v6)+": nobody to serve the port", func() error {
					if askSoon(c.World, "udp", netip.AddrPortFrom(own, 30300)) == nil {
						return errors.New("somebody answers")
					}
					return nil
				})
			}
		})
	}
}

// askSoon is askAt for who asks again: nodes hear of a service one after the other.
func askSoon(ns *netns.NS, network string, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), no)
	defer cancel()
	_, err := workload.Client{Dial: ns.DialContext}.Echo(ctx, network, at.String())
	return err
}

// datagramsCarried sends datagrams of one flow to a service: all but the first few go by way of XDP.
func datagramsCarried(t *testing.T, c *cluster.Cluster, n *cluster.Node, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), yes)
	defer cancel()
	conn, err := c.World.DialContext(ctx, "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const count = 50
	before := fastSent(t, n)
	for i := range count {
		var b [8]byte
		if err := conn.SetDeadline(time.Now().Add(yes)); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Write([]byte("datagram"))
		if err == nil {
			_, err = conn.Read(b[:])
		}
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	if sent := fastSent(t, n) - before; sent < 2*count-10 {
		t.Errorf("%d packets sent on in XDP for %d datagrams and their answers", sent, count)
	}
}

// TestAccelerationWhereItCannot: a device whose other end takes nothing from XDP, or whose packets have no checksums yet, is left to
// tc and said to be; who insists on it is not started.
func TestAccelerationWhereItCannot(t *testing.T) {
	c := startPrepared(t, native, 2, map[string]any{"bpf-lb-acceleration": "best-effort"}, nil)
	far := add(t, c, "far", 1)
	node := c.Nodes[0]
	told(t, c, node, "left to tc: eth0: the other end of the pair takes no frames")
	serve := func(id int, v6 bool) netip.AddrPort {
		every, own := map[bool]string{false: "0.0.0.0", true: "::"}[v6], map[bool]netip.Addr{false: node.IP4, true: node.IP6}[v6]
		out, err := c.Hypha(t.Context(), node, "service", "update", "--id", fmt.Sprint(id), "--frontend", netip.AddrPortFrom(netip.MustParseAddr(every), 30300).String(),
			"--backends", netip.AddrPortFrom(far.Addr(v6), workload.EchoPort).String(), "--k8s-node-port")
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		front := netip.AddrPortFrom(own, 30300)
		eventually(t, yes, family(v6)+": the node port to serve", func() error { return askAt(c.World, "tcp", front) })
		return front
	}
	var streams []*stream
	for i, v6 := range native.families() {
		streams = append(streams, startStreamAt(t, c.World, serve(400+i, v6)))
	}
	if mode := xdpMode(t, node); mode != "" {
		t.Errorf("eth0 runs XDP %q", mode)
	}
	// It can now; packets whose checksums nobody has computed yet are left to tc all the same.
	if err := ethtool(c.World, node.Name, ethtoolGRO, 1); err != nil {
		t.Fatal(err)
	}
	told(t, c, node, "native on eth0")
	for _, s := range streams {
		if err := s.alive(yes); err != nil {
			t.Error(err)
		}
	}
	if sent := fastSent(t, node); sent > 0 {
		t.Errorf("%d packets without a checksum were sent on", sent)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	strict, err := cluster.New(ctx, cluster.Config{Bin: bin, Nodes: 1, IPv4: true, IPv6: true, Options: map[string]any{"bpf-lb-acceleration": "native"}})
	if err == nil {
		_ = strict.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "bpf-lb-acceleration: native, but eth0: the other end") {
		t.Errorf("an agent that insists: %v", err)
	}
}
