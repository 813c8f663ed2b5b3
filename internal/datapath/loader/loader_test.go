package loader_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/datapath/endpoint"
	"github.com/hypha-net/hypha/internal/datapath/link"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

var log = slog.New(slog.DiscardHandler)

func openMaps(t *testing.T, dir string) *maps.Maps {
	t.Helper()
	m, err := maps.Open(maps.Config{Dir: filepath.Join(dir, "maps"), CT: 4096, NAT: 4096, Ring: 4096}, maps.Deps{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func options(clsact bool, links string) loader.Config {
	return loader.Config{Links: links, Clsact: clsact, Options: loader.Options{IPv4: true, IPv6: true, Events: true, Trace: true,
		TunnelPort: 8472, ReportInterval: 5 * time.Second, MasqPortMin: 10240, MasqPortMax: 29999, Router4: gw4, Router6: gw6}}
}

func newLoader(t *testing.T, cfg loader.Config, m *maps.Maps) *loader.Loader {
	t.Helper()
	k := loader.Probe()
	if err := k.Err(); err != nil {
		t.Skip("this kernel cannot run the datapath: ", err)
	}
	l, err := loader.New(cfg, loader.Deps{Log: log, Kernel: k, Maps: m.Replacements()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs to see whether it can")
	}
	k := loader.Probe()
	for _, c := range k.Checks {
		t.Logf("%-30s ok=%-5v required=%-5v %s", c.Name, c.OK, c.Required, c.Detail)
		if c.Required && !c.OK && c.Remedy == "" {
			t.Errorf("%s: missing, and nothing said about what to do", c.Name)
		}
	}
	bad := loader.Kernel{Checks: []loader.Check{{Name: "a", OK: true, Required: true}, {Name: "b", Required: true, Detail: "not there", Remedy: "get one"}, {Name: "c"}}}
	if err := bad.Err(); err == nil || err.Error() != "b: not there: get one" {
		t.Errorf("refusal: %v", err)
	}
}

// dummyPair makes a device pair in the current namespace and returns the index of one end.
func dummyPair(t *testing.T, name string) int {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: name + "p", PeerTxQLen: -1}); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// netkitPair is dummyPair for a pair of the other kind.
func netkitPair(t *testing.T, name string) int {
	t.Helper()
	a, peer := netlink.NewLinkAttrs(), netlink.NewLinkAttrs()
	a.Name, peer.Name = name, name+"p"
	n := &netlink.Netkit{LinkAttrs: a, Mode: netlink.NETKIT_MODE_L2}
	n.SetPeerAttrs(&peer)
	if err := netlink.LinkAdd(n); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

func TestAttachAdoptPrune(t *testing.T) {
	for _, name := range []string{"tcx", "clsact", "netkit"} {
		t.Run(name, func(t *testing.T) {
			clsact, podPair := name == "clsact", dummyPair
			if name == "netkit" {
				netns.Require(t)
				if !loader.Probe().Netkit {
					t.Skip("this kernel has no netkit")
				}
				podPair = netkitPair
			}
			dir := pintest.Dir(t)
			m := openMaps(t, dir)
			node := netns.New(t, "node")
			node.In(func() error {
				cfg := options(clsact, filepath.Join(dir, "links"))
				l := newLoader(t, cfg, m)
				pod, gone, dev, over := podPair(t, "pod"), podPair(t, "gone"), dummyPair(t, "dev"), dummyPair(t, "over")
				lost := dummyPair(t, "lost")
				for range 2 {
					for _, err := range []error{l.AttachPod(pod), l.AttachPod(gone), l.AttachDevice(dev), l.AttachOverlay(over),
						l.Attach(loader.Prefilter, dev), l.Attach(loader.Prefilter, lost)} {
						if err != nil {
							return err
						}
					}
				}
				if err := l.Close(); err != nil {
					return err
				}
				for name, index := range map[string]int{"gone": gone, "lost": lost} {
					if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}); err != nil {
						return err
					}
				}

				// Another agent finds what there is.
				l = newLoader(t, cfg, m)
				got, err := l.Adopt()
				if err != nil {
					return err
				}
				set := func(as []loader.Attachment) map[loader.Attachment]bool {
					out := map[loader.Attachment]bool{}
					for _, a := range as {
						out[a] = true
					}
					return out
				}
				want := map[loader.Attachment]bool{{loader.Pod, pod}: true, {loader.Device, dev}: true, {loader.Overlay, over}: true,
					{loader.Prefilter, dev}: true}
				if d := cmp.Diff(want, set(got)); d != "" {
					t.Error(d)
				}
				if err := l.DetachPod(gone); err != nil {
					t.Error(err)
				}
				if err := l.DetachPod(pod); !errors.Is(err, loader.ErrInUse) {
					t.Errorf("a workload's living device was stripped of its programs: %v", err)
				}
				// Pruned of everything, workloads keep their programs.
				if err := l.Prune(func(loader.Attachment) bool { return false }); err != nil {
					return err
				}
				got, err = l.Adopt()
				if d := cmp.Diff(map[loader.Attachment]bool{{loader.Pod, pod}: true}, set(got)); d != "" || err != nil {
					t.Error(d, err)
				}
				if err := l.AttachPod(99999); err == nil {
					t.Error("attached to a device that is not there")
				}
				if err := errors.Join(loader.Unpin(cfg.Links), loader.RemoveFilters()); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(cfg.Links); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("links left: %v", err)
				}
				return nil
			})
		})
	}
}

var (
	gw4, gw6   = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	bad4       = netip.MustParseAddr("10.0.0.2") // of the node too, but refused
	pod4, pod6 = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")
)

// TestCase09Swap: programs are swapped by new agents while a workload answers the node and refuses another of its addresses, both
// without a pause: not one packet of the first is lost, none of the second passes.
func TestCase09Swap(t *testing.T) {
	swaps := score.Size(1000, 20000)
	s := score.Start(t, "9", "program swaps at full rate, tcx and clsact")
	var all swapped
	for name, clsact := range map[string]bool{"tcx": false, "clsact": true} {
		t.Run(name, func(t *testing.T) {
			n := swap(t, clsact, swaps)
			all.echoes, all.denied = all.echoes+n.echoes, all.denied+n.denied
		})
	}
	s.Count(2*swaps, "swaps")
	s.Say("0 of %d echoes lost, 0 of %d denied packets passed", all.echoes, all.denied)
}

// swapped is what was sent meanwhile.
type swapped struct{ echoes, denied int }

func swap(t *testing.T, clsact bool, swaps int) (sum swapped) {
	dir := pintest.Dir(t)
	m := openMaps(t, dir)
	node, pod := netns.New(t, "node"), netns.New(t, "pod")
	node.In(func() error {
		ctx := context.Background()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{gw4, bad4} {
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
				return err
			}
		}
		pairs, err := link.New(link.Config{Owner: "test"}, link.Deps{Log: log})
		if err != nil {
			return err
		}
		defer pairs.Close()
		cfg := options(clsact, filepath.Join(dir, "links"))
		l := newLoader(t, cfg, m)
		spec := link.Spec{HostIfName: paths.HostIf("c", "eth0"), NetNS: pod.Path(), IfName: "eth0", MTU: 1500,
			Addrs: []netip.Addr{pod4, pod6}, Gateways: []netip.Addr{gw4, gw6}}
		made, err := pairs.Create(ctx, spec)
		if err != nil {
			return err
		}
		allow := model.PolicyList{DefaultVerdict: model.VerdictAllow, DefaultRule: model.RuleNoPolicy}
		deny := model.PolicyList{DefaultVerdict: model.VerdictDeny, DefaultRule: model.RuleUser}
		target := endpoint.Target{Maps: m, Loader: l}
		e := model.Endpoint{ID: 7, HostIfIndex: made.HostIfIndex, MAC: made.MAC, HostMAC: made.HostMAC, IPv4: pod4, IPv6: pod6, Identity: 1000, PolicySet: 1}
		for _, err := range []error{
			m.PutLists(map[model.PolicyKey]model.PolicyList{{Set: 1}: allow, {Set: 1, Dir: model.Egress}: allow, {Set: 1, Class: 2}: deny}),
			m.PutClasses(map[model.Peer]model.ClassID{{Identity: model.IdentityHost}: 1, {Identity: 1000}: 1, {Identity: 1001}: 2}),
			m.PutIP(netip.PrefixFrom(gw4, 32), maps.IP{Identity: model.IdentityHost, Node: true}),
			m.PutIP(netip.PrefixFrom(bad4, 32), maps.IP{Identity: 1001}),
			m.PutIP(netip.PrefixFrom(pod4, 32), maps.IP{Identity: 1000}),
			target.UpsertEndpoint(ctx, e), target.Attach(ctx, e), pairs.Up(ctx, spec),
		} {
			if err != nil {
				return err
			}
		}

		var echo net.PacketConn
		pod.In(func() (err error) { echo, err = net.ListenPacket("udp4", pod4.String()+":7777"); return err })
		var passed atomic.Int64
		go func() {
			b := make([]byte, 64)
			for {
				n, from, err := echo.ReadFrom(b)
				if err != nil {
					return
				}
				if from.(*net.UDPAddr).AddrPort().Addr() == bad4 {
					passed.Add(1)
				}
				_, _ = echo.WriteTo(b[:n], from)
			}
		}()
		defer func() { _ = echo.Close() }()
		c, err := net.Dial("udp4", pod4.String()+":7777")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		bad, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(bad4, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(pod4, 7777)))
		if err != nil {
			return err
		}
		defer func() { _ = bad.Close() }()
		var stop atomic.Bool
		denied := make(chan int)
		go func() {
			n := 0
			for ; !stop.Load(); n++ {
				_, _ = bad.Write([]byte("bad!")) // refused by the program: the error says so
			}
			denied <- n
		}()
		type tally struct{ sent, lost int }
		done := make(chan tally)
		go func() {
			var n tally
			b := []byte("ping")
			for !stop.Load() {
				n.sent++
				_, err := c.Write(b)
				if err == nil {
					err = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // lost, not late on a busy machine
				}
				if err == nil {
					_, err = c.Read(b)
				}
				if err != nil {
					n.lost++
					stop.Store(true)
				}
			}
			done <- n
		}()
		agents := []*loader.Loader{newLoader(t, cfg, m), l}
		for i := range swaps {
			if _, err := agents[i%2].Adopt(); err != nil {
				t.Error(err)
				break
			}
			if stop.Load() {
				break
			}
		}
		stop.Store(true)
		n := <-done
		sum = swapped{echoes: n.sent, denied: <-denied}
		if p := passed.Load(); p > 0 || sum.denied == 0 {
			t.Errorf("%d of %d denied packets passed", p, sum.denied)
		}
		if n.lost != 0 || n.sent < swaps {
			t.Errorf("%d of %d echoes lost", n.lost, n.sent)
			for _, name := range []string{maps.Metrics, maps.CT} {
				_ = m.Dump(name, func(cs []maps.Column) bool { t.Log(name, cs); return true })
			}
		}
		return pairs.Delete(ctx, spec.HostIfName)
	})
	return sum
}
