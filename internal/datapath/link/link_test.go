package link

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

var (
	gw4, gw6   = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	pod4, pod6 = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")
)

func spec(pod *netns.NS) Spec {
	return Spec{HostIfName: paths.HostIf("c1", "eth0"), ContainerID: "c1", NetNS: pod.Path(), IfName: "eth0",
		MAC: "02:00:00:00:00:07", Addrs: []netip.Addr{pod4, pod6}, Gateways: []netip.Addr{gw4, gw6}, MTU: 1450}
}

// onNode runs fn in a node's namespace that has the router addresses.
func onNode(t *testing.T, fn func(t *testing.T, p *Pairs) error) {
	t.Helper()
	node := netns.New(t, "node")
	err := node.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{gw4, gw6} {
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
				return err
			}
		}
		p, err := New(Config{Owner: "node-1"}, Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer p.Close()
		return fn(t, p)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAttachSparesTheMainThread: whoever asks where the agent is, by its number, hears of its own namespace, while it attaches a workload and after
// that. Who removes a workload's namespace may end what is in it.
func TestAttachSparesTheMainThread(t *testing.T) {
	process := func() string {
		s, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	before, pod := process(), netns.New(t, "pod")
	for range 20 { // until the runtime has given every thread it has
		var wg, all sync.WaitGroup
		all.Add(50)
		for range 50 {
			wg.Go(func() {
				s, err := enter(pod.Path())
				if err != nil {
					t.Error(err)
					all.Done()
					return
				}
				defer func() { _ = s.Close() }()
				all.Done()
				all.Wait()
				if err := s.sysctls([]sysctl{{"ipv4/ip_forward", "1", true}}); err != nil {
					t.Error(err)
				}
				if now := process(); now != before {
					t.Errorf("the process is in %s, was in %s", now, before)
				}
			})
		}
		wg.Wait()
	}
}

func TestAttachInSteps(t *testing.T) {
	pod := netns.New(t, "pod")
	onNode(t, func(t *testing.T, p *Pairs) error {
		ctx, s := context.Background(), spec(pod)
		made, err := p.Create(ctx, s)
		if err != nil {
			return err
		}
		host, err := netlink.LinkByName(s.HostIfName)
		if err != nil {
			return err
		}
		if host.Attrs().Flags&net.FlagUp != 0 {
			t.Error("host side is up before Up")
		}
		if made.HostIfIndex != host.Attrs().Index || made.MAC != s.MAC || made.HostMAC != host.Attrs().HardwareAddr.String() || made.HostMAC == made.MAC {
			t.Errorf("made %+v", made)
		}
		if err := p.Check(ctx, s); err == nil {
			t.Error("Check is content with a pair that is down")
		}
		if again, err := p.Create(ctx, s); err != nil || again != made {
			t.Errorf("Create again: %+v %v, want %+v", again, err, made)
		}
		for range 2 {
			if err := p.Up(ctx, s); err != nil {
				return err
			}
		}
		if err := p.Check(ctx, s); err != nil {
			t.Error(err)
		}
		// No link-local addresses on either side: nobody speaks before it is asked to.
		for where, ns := range map[string]func(func() error) error{"host": func(f func() error) error { return f() }, "pod": pod.Do} {
			name := map[string]string{"host": s.HostIfName, "pod": "eth0"}[where]
			if err := ns(func() error {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				addrs, err := netlink.AddrList(l, unix.AF_INET6)
				for _, a := range addrs {
					if a.IP.IsLinkLocalUnicast() || a.Flags&unix.IFA_F_TENTATIVE != 0 {
						t.Errorf("%s: address %s, flags %#x", where, a.IPNet, a.Flags)
					}
				}
				if l.Attrs().MTU != s.MTU {
					t.Errorf("%s: MTU %d", where, l.Attrs().MTU)
				}
				return err
			}); err != nil {
				return err
			}
		}
		if err := pod.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/accept_ra")
			if strings.TrimSpace(string(b)) != "0" {
				t.Errorf("accept_ra inside is %s", b)
			}
			return err
		}); err != nil {
			return err
		}
		dial(t, pod)

		// What others take away is told, and Up brings it back.
		if err := netlink.LinkSetDown(host); err != nil {
			return err
		}
		if err := p.Check(ctx, s); err == nil {
			t.Error("Check does not see that the host side is down")
		}
		if err := p.Up(ctx, s); err != nil {
			return err
		}
		if err := p.Check(ctx, s); err != nil {
			t.Error(err)
		}
		list, err := p.List(ctx)
		if err != nil || len(list) != 1 || list[0].HostIfName != s.HostIfName || list[0].HostIfIndex != made.HostIfIndex {
			t.Errorf("List: %+v %v", list, err)
		}
		for range 2 {
			if err := p.Delete(ctx, s.HostIfName); err != nil {
				return err
			}
		}
		routes, err := netlink.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Protocol: 105}, netlink.RT_FILTER_PROTOCOL)
		if err != nil || len(routes) != 0 {
			t.Errorf("routes left: %v %v", routes, err)
		}
		if links, err := pod.Links(); err != nil || len(links) != 1 {
			t.Errorf("devices left inside: %v %v", links, err)
		}
		return nil
	})
}

// dial connects from the node's stack to the workload.
func dial(t *testing.T, pod *netns.NS) {
	t.Helper()
	var l net.Listener
	if err := pod.Do(func() (err error) { l, err = net.Listen("tcp4", pod4.String()+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
	if err != nil {
		t.Error(err)
		return
	}
	if local := c.LocalAddr().(*net.TCPAddr).IP.String(); local != gw4.String() {
		t.Errorf("the node speaks to its workload as %s, want %s", local, gw4)
	}
	_ = c.Close()
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	pod := netns.New(t, "pod")
	onNode(t, func(t *testing.T, p *Pairs) error {
		ctx := context.Background()
		for name, c := range map[string]struct {
			change func(*Spec)
			want   error
		}{
			"no namespace":      {func(s *Spec) { s.NetNS += "-not" }, fs.ErrNotExist},
			"not a namespace":   {func(s *Spec) { s.NetNS = "/etc/hostname" }, ErrNoNetNS},
			"another namespace": {func(s *Spec) { s.NetNS = "/proc/self/ns/uts" }, ErrNoNetNS},
			"own namespace":     {func(s *Spec) { s.NetNS = "/proc/thread-self/ns/net" }, ErrOwnNetNS},
			"name taken inside": {func(s *Spec) { s.IfName = "lo" }, unix.EEXIST},
			"foreign name":      {func(s *Spec) { s.HostIfName = "eth9" }, nil},
			"no gateway":        {func(s *Spec) { s.Gateways = s.Gateways[:1] }, nil},
			"bad MAC":           {func(s *Spec) { s.MAC = "ff:ff:ff:ff:ff:ff" }, nil},
			"MTU too big":       {func(s *Spec) { s.MTU = 1 << 20 }, nil},
		} {
			s := spec(pod)
			c.change(&s)
			_, err := p.Create(ctx, s)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: error %v, want %v", name, err, c.want)
			}
			if list, err := p.List(ctx); err != nil || len(list) != 0 {
				t.Errorf("%s: left %v %v", name, list, err)
			}
		}
		return nil
	})
}

func TestForeignDevicesAreSafe(t *testing.T) {
	pod := netns.New(t, "pod")
	onNode(t, func(t *testing.T, p *Pairs) error {
		s := spec(pod)
		a := netlink.NewLinkAttrs()
		a.Name = s.HostIfName
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: a}); err != nil {
			return err
		}
		if _, err := p.Create(context.Background(), s); !errors.Is(err, ErrForeign) {
			t.Errorf("Create: %v", err)
		}
		if err := p.Delete(context.Background(), s.HostIfName); !errors.Is(err, ErrForeign) {
			t.Errorf("Delete: %v", err)
		}
		_, err := netlink.LinkByName(s.HostIfName)
		return err
	})
}

// Agents that share a network namespace leave each other's devices alone.
func TestAnotherAgentsDevicesAreSafe(t *testing.T) {
	pod := netns.New(t, "pod")
	onNode(t, func(t *testing.T, p *Pairs) error {
		ctx := context.Background()
		other, err := New(Config{Owner: "node-2"}, Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer other.Close()
		s := spec(pod)
		made, err := other.Create(ctx, s)
		if err != nil {
			return err
		}
		if list, err := p.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("List: %+v %v", list, err)
		}
		if err := p.Delete(ctx, s.HostIfName); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := p.Create(ctx, s); !errors.Is(err, ErrForeign) {
			t.Errorf("Create: %v", err)
		}
		if list, err := other.List(ctx); err != nil || len(list) != 1 || list[0].HostIfIndex != made.HostIfIndex {
			t.Errorf("its own List: %+v %v", list, err)
		}
		// One whose maker died before it could mark it is nobody's: not listed, and taken over when asked for.
		l, err := netlink.LinkByName(s.HostIfName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetAlias(l, ""); err != nil {
			return err
		}
		if list, err := p.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("List of a device without a mark: %+v %v", list, err)
		}
		if _, err := p.Create(ctx, s); err != nil {
			t.Errorf("Create over a device without a mark: %v", err)
		}
		if list, err := p.List(ctx); err != nil || len(list) != 1 {
			t.Errorf("List: %+v %v", list, err)
		}
		return p.Delete(ctx, s.HostIfName)
	})
}
