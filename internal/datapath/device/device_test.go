package device

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func TestChoose(t *testing.T) {
	ip := netip.MustParseAddr
	a := func(s string) addr { return addr{ip: ip(s), usable: true, stayable: true} }
	temporary := addr{ip: ip("2001:db8::9"), usable: true}
	devs := []dev{
		{Device: Device{Index: 1, Name: "lo"}, up: true, loopback: true, addrs: []addr{a("192.0.2.1")}},
		{Device: Device{Index: 2, Name: "eth0", MTU: 1500}, up: true, def: true, addrs: []addr{a("192.0.2.2"), a("192.0.2.3"), temporary, a("2001:db8::2")}},
		{Device: Device{Index: 3, Name: "eth1"}, up: true, addrs: []addr{a("198.51.100.1")}},
		{Device: Device{Index: 4, Name: "eth2"}, up: true, addrs: []addr{a("203.0.113.1")}},
		{Device: Device{Index: 5, Name: "eth3"}, def: true},
		{Device: Device{Index: 6, Name: "port"}, up: true, def: true, slave: true},
		{Device: Device{Index: 7, Name: "hy0123456789"}, up: true, def: true},
		{Device: Device{Index: 8, Name: "hypha_vxlan"}, up: true, def: true},
		{Device: Device{Index: 9, Name: "hydra"}, up: true, def: true, addrs: []addr{{ip: ip("192.0.2.99")}}},
	}
	for _, c := range []struct {
		patterns []string
		nodes    []netip.Addr
		want     []Device
	}{
		{nil, []netip.Addr{ip("192.0.2.3"), ip("198.51.100.1")}, []Device{
			{Index: 2, Name: "eth0", MTU: 1500, Masq4: ip("192.0.2.3"), Masq6: ip("2001:db8::2")},
			{Index: 3, Name: "eth1", Masq4: ip("198.51.100.1")}, {Index: 9, Name: "hydra"}}},
		{[]string{"eth+"}, nil, []Device{{Index: 2, Name: "eth0", MTU: 1500, Masq4: ip("192.0.2.2"), Masq6: ip("2001:db8::2")},
			{Index: 3, Name: "eth1", Masq4: ip("198.51.100.1")}, {Index: 4, Name: "eth2", Masq4: ip("203.0.113.1")}}},
		{[]string{"eth[12]"}, nil, []Device{{Index: 3, Name: "eth1", Masq4: ip("198.51.100.1")}, {Index: 4, Name: "eth2", Masq4: ip("203.0.113.1")}}},
		{[]string{"+"}, nil, []Device{{Index: 2, Name: "eth0", MTU: 1500, Masq4: ip("192.0.2.2"), Masq6: ip("2001:db8::2")},
			{Index: 3, Name: "eth1", Masq4: ip("198.51.100.1")}, {Index: 4, Name: "eth2", Masq4: ip("203.0.113.1")}, {Index: 6, Name: "port"}, {Index: 9, Name: "hydra"}}},
		{[]string{"nothing"}, nil, nil},
	} {
		got := choose(devs, c.patterns, c.nodes)
		if d := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%v: %s", c.patterns, d)
		}
	}
}

// The table follows the kernel, also when there were more changes than the socket could hold.
func TestCase26Overrun(t *testing.T) {
	sc, links := score.Start(t, "26", "netlink overrun"), score.Size(200, 5000)
	a, b := netns.New(t, "a"), netns.New(t, "b")
	netns.Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "192.0.2.1/24", "fd01::1/64")
	tab := NewTable()
	var w *Watcher
	a.In(func() (err error) {
		w, err = New(Config{NodeAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, Deps{Log: slog.New(slog.DiscardHandler), Table: tab})
		return err
	})
	defer w.Close()
	if n := tab.Snapshot().Len(); n != 1 || !tab.Snapshot().Complete() {
		t.Fatalf("%d devices at start", n)
	}
	// A socket so small that a burst overruns it.
	if err := unix.SetsockoptInt(w.sub.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 2048); err != nil {
		t.Fatal(err)
	}
	a.In(func() error {
		for i := range links {
			at := netlink.NewLinkAttrs()
			at.Name = fmt.Sprint("br", i)
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: at}); err != nil {
				return err
			}
		}
		return nil
	})
	sc.Count(links, "links")
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait := func(what string, ok func(d []Device) bool) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			snap := tab.Snapshot()
			var ds []Device
			for _, d := range snap.All() {
				ds = append(ds, d)
			}
			if ok(ds) {
				return
			}
			select {
			case <-snap.Changed():
			case <-deadline:
				t.Fatalf("%s: still %+v", what, ds)
			}
		}
	}
	a.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "br7")
	a.Run("ip", "link", "set", "br7", "up")
	a.Run("ip", "route", "add", "default", "via", "198.51.100.2")
	wait("a new default route", func(ds []Device) bool { return len(ds) == 2 && ds[1].Masq4 == netip.MustParseAddr("198.51.100.1") })
	sc.Say("in step again %v after the agent looked, three ip commands included", time.Since(began).Round(time.Millisecond))
	if n, at := w.Overruns(); n == 0 || at.Before(began) {
		t.Errorf("%d overruns are told, the last at %v", n, at)
	}
	a.Run("ip", "link", "set", "eth0", "mtu", "1400")
	wait("another MTU", func(ds []Device) bool { return len(ds) == 2 && ds[0].MTU == 1400 })
	a.Run("ip", "link", "del", "br7")
	wait("a device gone", func(ds []Device) bool { return len(ds) == 1 })
}
