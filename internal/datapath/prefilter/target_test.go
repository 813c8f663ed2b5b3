package prefilter_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/datapath/device"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/datapath/prefilter"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// rig is a node with two outside devices.
type rig struct {
	t       *testing.T
	fast    loader.Fast
	maps    *maps.Maps
	loader  *loader.Loader
	devices []device.Device
}

// inside runs a test with a rig in a network namespace of its own.
func inside(t *testing.T, fn func(*rig)) {
	t.Helper()
	accelerated(t, loader.FastOff, fn)
}

// accelerated does so with services accelerated.
func accelerated(t *testing.T, fast loader.Fast, fn func(*rig)) {
	t.Helper()
	dir := pintest.Dir(t)
	log := slog.New(slog.DiscardHandler)
	netns.New(t, "node").In(func() error {
		r := &rig{t: t, fast: fast}
		var err error
		if r.maps, err = maps.Open(maps.Config{Dir: filepath.Join(dir, "maps"), CT: 4096, NAT: 4096, Ring: 4096}, maps.Deps{Log: log}); err != nil {
			return err
		}
		t.Cleanup(func() { _ = r.maps.Close() })
		cfg := loader.Config{Links: filepath.Join(dir, "links"), Options: loader.Options{IPv4: true, IPv6: true, Services: true}, Fast: fast}
		if r.loader, err = loader.New(cfg, loader.Deps{Log: log, Kernel: loader.Probe(), Maps: r.maps.Replacements()}); err != nil {
			return err
		}
		t.Cleanup(func() { _ = errors.Join(r.loader.Close(), loader.Unpin(cfg.Links)) })
		for _, name := range []string{"eth0", "eth1"} {
			a := netlink.NewLinkAttrs()
			a.Name = name
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: name + "p", PeerTxQLen: -1}); err != nil {
				return err
			}
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			r.devices = append(r.devices, device.Device{Index: l.Attrs().Index, Name: name})
		}
		fn(r)
		return nil
	})
}

func (r *rig) target() *prefilter.Target {
	return prefilter.New(prefilter.Config{Fast: r.fast}, prefilter.Deps{Maps: r.maps, Loader: r.loader})
}

// writes is how many rows of the prefilter's maps were written or deleted so far.
func (r *rig) writes() (n uint64) {
	r.t.Helper()
	list, err := r.maps.List()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range list {
		if strings.HasPrefix(m.Name, "prefilter_") {
			n += m.Writes
		}
	}
	return n
}

// check compares the kernel's side with a list, and with which of the devices run the program.
func (r *rig) check(want []netip.Prefix, s maps.DeniedState, on ...string) {
	r.t.Helper()
	have, err := r.maps.Denied()
	if err != nil {
		r.t.Fatal(err)
	}
	if have = model.SortCIDRs(have); !slices.Equal(have, want) {
		r.t.Errorf("rows %v, want %v", have, want)
	}
	if got, err := r.maps.DeniedState(); err != nil || got != s {
		r.t.Errorf("state %+v, %v; want %+v", got, err, s)
	}
	for _, d := range r.devices {
		mode, err := loader.XDPMode(d.Index)
		if err != nil {
			r.t.Fatal(err)
		}
		if (mode != "") != slices.Contains(on, d.Name) {
			r.t.Errorf("%s runs %q, want the program on %v", d.Name, mode, on)
		}
	}
}

func list(cidrs ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return model.SortCIDRs(out)
}

func TestSync(t *testing.T) {
	inside(t, func(r *rig) {
		target := r.target()
		sync := func(revision uint64, deny []netip.Prefix, devices []device.Device, writes uint64) {
			t.Helper()
			before := r.writes()
			if err := target.Sync(revision, deny, devices); err != nil {
				t.Error(err)
			}
			if got := r.writes() - before; got != writes {
				t.Errorf("revision %d cost %d writes, want %d", revision, got, writes)
			}
		}
		sync(1, nil, r.devices, 1) // the revision
		r.check(nil, maps.DeniedState{Revision: 1})
		a := list("192.0.2.0/24", "198.51.100.1/32")
		sync(2, a, r.devices[:1], 3)
		r.check(a, maps.DeniedState{Revision: 2, Prefix4: true}, "eth0")
		sync(2, a, r.devices[1:], 0) // another device
		r.check(a, maps.DeniedState{Revision: 2, Prefix4: true}, "eth1")
		b := list("192.0.2.0/24", "2001:db8::/32", "::/0")
		sync(3, b, r.devices, 4)
		r.check(b, maps.DeniedState{Revision: 3, Prefix4: true, Prefix6: true}, "eth0", "eth1")

		// Another agent finds what there is, writes what differs, and attaches what was taken away.
		target = r.target()
		if revision, deny, err := target.Held(); err != nil || revision != 3 || !slices.Equal(deny, b) {
			t.Errorf("held: %d %v, %v", revision, deny, err)
		}
		sync(3, b, r.devices, 0)
		if err := r.loader.Prune(func(loader.Attachment) bool { return false }); err != nil {
			t.Fatal(err)
		}
		sync(3, b, r.devices, 0)
		r.check(b, maps.DeniedState{Revision: 3, Prefix4: true, Prefix6: true}, "eth0", "eth1")
		sync(4, list("2001:db8::/32"), r.devices, 3)
		sync(5, nil, r.devices, 2)
		r.check(nil, maps.DeniedState{Revision: 5})
	})
}

// One device that cannot take the program keeps no other from having it, and is tried again.
func TestDeviceInTheWay(t *testing.T) {
	inside(t, func(r *rig) {
		target, deny := r.target(), list("192.0.2.0/24")
		gone := device.Device{Index: 99999, Name: "gone"}
		err := target.Sync(1, deny, append([]device.Device{gone}, r.devices...))
		if err == nil || !strings.Contains(err.Error(), "gone: attach prefilter to device 99999") {
			t.Errorf("error %v", err)
		}
		r.check(deny, maps.DeniedState{Revision: 1, Prefix4: true}, "eth0", "eth1")
		if err := target.Sync(1, deny, r.devices); err != nil {
			t.Error(err)
		}
	})
}

// Where packets begin with their IP header, as from a VPN, the program that knows so is attached.
func TestWithoutLinkLayer(t *testing.T) {
	inside(t, func(r *rig) {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vpn"}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1, Flags: netlink.TUNTAP_NO_PI}
		if err := netlink.LinkAdd(tun); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tun.Fds[0].Close() }()
		if err := netlink.LinkSetUp(tun); err != nil {
			t.Fatal(err)
		}
		r.devices = []device.Device{{Index: tun.Index, Name: "vpn", L3: true}}
		deny := list("192.0.2.0/24", "2001:db8::/32")
		if err := r.target().Sync(1, deny, r.devices); err != nil {
			t.Fatal(err)
		}
		r.check(deny, maps.DeniedState{Revision: 1, Prefix4: true, Prefix6: true}, "vpn")
		if mode, err := loader.XDPMode(tun.Index); err != nil || mode != "generic" {
			t.Errorf("mode %q, %v", mode, err)
		}
		var bytes uint64
		for src, denied := range map[string]bool{"192.0.2.7": true, "192.0.3.7": false, "2001:db8::7": true, "2001:db9::7": false} {
			f := packet.Flow{SrcMAC: packet.MAC(1), DstMAC: packet.MAC(2), Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("198.51.100.1"), SrcPort: 1000, DstPort: 80}
			if f.Src.Is6() {
				f.Dst = netip.MustParseAddr("2001:db8:1::1")
			}
			frame := f.UDP(1, 2, 3)[packet.EtherLen:]
			if _, err := tun.Fds[0].Write(frame); err != nil {
				t.Fatal(err)
			}
			if denied {
				bytes += uint64(len(frame))
			}
		}
		eventually(t, func() error {
			if p, b, err := r.maps.PrefilterDrops(); err != nil || p != 2 || b != bytes {
				return fmt.Errorf("%d packets and %d bytes dropped, %w; want 2 and %d", p, b, err, bytes)
			}
			return nil
		})
	})
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Error(err)
}

// A list that does not fit is told before anything is written.
func TestFits(t *testing.T) {
	inside(t, func(r *rig) {
		many := make([]netip.Prefix, maps.DeniedMost+1)
		for i := range many {
			many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		}
		if err := r.target().Fits(many); !errors.Is(err, maps.ErrFull) || !strings.Contains(err.Error(), "1048577 addresses, there is room for 1048576") {
			t.Errorf("one more than there can be: %v", err)
		}
		many[7] = netip.MustParsePrefix("192.0.2.0/24")
		if err := r.target().Fits(many); err != nil {
			t.Error(err)
		}
	})
}

// Services are accelerated on every device that can, whether anything is denied or not, and XDP sends by no other; where one cannot,
// it is said why, and denied sources are denied all the same.
func TestSyncAccelerates(t *testing.T) {
	accelerated(t, loader.FastGeneric, func(r *rig) {
		target := r.target()
		all := r.devices
		tagged, headless := all[1], all[1]
		tagged.Tagged, headless.L3 = true, true
		for _, x := range []struct {
			what    string
			deny    []netip.Prefix
			devices []device.Device
			on      []string // with a program
			sends   []string // accelerated
			slow    string   // of eth1
		}{
			{"nothing denied", nil, all, []string{"eth0", "eth1"}, []string{"eth0", "eth1"}, ""},
			{"denied", list("203.0.113.0/24"), all, []string{"eth0", "eth1"}, []string{"eth0", "eth1"}, ""},
			{"VLANs on it", list("203.0.113.0/24"), []device.Device{all[0], tagged}, []string{"eth0", "eth1"}, []string{"eth0"}, "VLANs"},
			{"VLANs, nothing denied", nil, []device.Device{all[0], tagged}, []string{"eth0"}, []string{"eth0"}, "VLANs"},
			{"no link layer", nil, []device.Device{all[0], headless}, []string{"eth0"}, []string{"eth0"}, "link layer"},
			{"a device less", nil, all[:1], []string{"eth0"}, []string{"eth0"}, ""},
			{"none", nil, nil, nil, nil, ""},
			{"all again", nil, all, []string{"eth0", "eth1"}, []string{"eth0", "eth1"}, ""},
		} {
			for range 2 { // the second time nothing changes
				if err := target.Sync(2, x.deny, x.devices); err != nil {
					t.Fatalf("%s: %v", x.what, err)
				}
			}
			r.check(x.deny, maps.DeniedState{Revision: 2, Prefix4: len(x.deny) > 0}, x.on...)
			sends, err := r.maps.XDPDevices()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range r.devices {
				if slices.Contains(sends, uint32(d.Index)) != slices.Contains(x.sends, d.Name) {
					t.Errorf("%s: XDP sends by %v, want %v", x.what, sends, x.sends)
				}
			}
			if got := target.Slow()["eth1"]; (got == nil) != (x.slow == "") || got != nil && !strings.Contains(got.Error(), x.slow) {
				t.Errorf("%s: eth1 is slow for %v", x.what, got)
			}
		}
	})
}
