package loader_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

func mode(t *testing.T, ifindex int, want string) {
	t.Helper()
	if got, err := loader.XDPMode(ifindex); err != nil || got != want {
		t.Errorf("device %d runs XDP %q, %v; want %q", ifindex, got, err, want)
	}
}

// The prefilter runs in the driver where there is one for it, else behind it; it outlives its loader, comes back when it is taken
// away, gives way to nobody's program that is there, and goes without a trace.
func TestPrefilter(t *testing.T) {
	dir := pintest.Dir(t)
	m := openMaps(t, dir)
	netns.New(t, "node").In(func() error {
		cfg := options(false, filepath.Join(dir, "links"))
		t.Cleanup(func() { _ = loader.Unpin(cfg.Links) })
		l := newLoader(t, cfg, m)
		native, generic, busy := dummyPair(t, "veth"), bridge(t, "br"), dummyPair(t, "busy")
		other, err := link.AttachXDP(link.XDPOptions{Interface: busy, Program: passAll(t)})
		if err != nil {
			return err
		}
		defer func() { _ = other.Close() }()
		for _, dev := range []int{native, generic} {
			if err := l.Attach(loader.Prefilter, dev); err != nil {
				return err
			}
		}
		if err := l.Attach(loader.Prefilter, busy); err == nil {
			t.Error("attached beside another XDP program")
		}
		mode(t, native, "native")
		mode(t, generic, "generic")
		if err := l.Close(); err != nil {
			return err
		}
		mode(t, native, "native")

		l = newLoader(t, cfg, m)
		if got, err := l.Adopt(); err != nil || len(got) != 2 {
			t.Errorf("adopted %v, %v", got, err)
		}
		for _, dev := range []int{native, generic} {
			if err := l.Attached(loader.Prefilter, dev); err != nil {
				t.Error(err)
			}
		}
		// A pin that somebody removed, and a program that somebody took off.
		if err := os.Remove(filepath.Join(cfg.Links, pinName(native))); err != nil {
			return err
		}
		off, err := link.LoadPinnedLink(filepath.Join(cfg.Links, pinName(generic)), nil)
		if err != nil {
			return err
		}
		if err := off.Detach(); err != nil {
			return err
		}
		_ = off.Close()
		mode(t, native, "native")
		mode(t, generic, "")
		for _, dev := range []int{native, generic} {
			if l.Attached(loader.Prefilter, dev) == nil {
				t.Errorf("device %d: what was taken away is not missed", dev)
			}
			if err := l.Attach(loader.Prefilter, dev); err != nil {
				t.Error(err)
			}
			if err := l.Attached(loader.Prefilter, dev); err != nil {
				t.Error(err)
			}
		}
		mode(t, native, "native")
		mode(t, generic, "generic")

		if err := l.Prune(func(a loader.Attachment) bool { return a.IfIndex == generic }); err != nil {
			return err
		}
		mode(t, native, "")
		mode(t, generic, "generic")
		mode(t, busy, "native") // somebody else's
		return nil
	})
}

// takeFrames lets the other end of dummyPair's device take what XDP sends.
func takeFrames(t *testing.T, ifindex int) {
	t.Helper()
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByIndex(dev.Attrs().ParentIndex)
	if err == nil {
		err = errors.Join(netlink.LinkSetUp(dev), netlink.LinkSetUp(peer))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Interface: peer.Attrs().Index, Program: passAll(t), Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// The program that accelerates services takes the place of the prefilter and gives it back, under one link: nobody denied gets in
// meanwhile. Where the driver runs no XDP, or the other end of a pair takes no frames, it says so and leaves things as they were.
func TestAccelerated(t *testing.T) {
	dir := pintest.Dir(t)
	m := openMaps(t, dir)
	netns.New(t, "node").In(func() error {
		cfg := options(false, filepath.Join(dir, "links"))
		t.Cleanup(func() { _ = loader.Unpin(cfg.Links) })
		plain := newLoader(t, cfg, m)
		dev, deaf, br := dummyPair(t, "veth"), dummyPair(t, "deaf"), bridge(t, "br")
		takeFrames(t, dev)
		for _, d := range []int{dev, deaf, br} {
			if err := plain.Attach(loader.Prefilter, d); err != nil {
				return err
			}
		}
		link0 := linkOf(t, cfg.Links, dev)
		if err := plain.Close(); err != nil {
			return err
		}

		cfg.Fast = loader.FastNative
		l := newLoader(t, cfg, m)
		if got, err := l.Adopt(); err != nil || len(got) != 3 || got[0].Role != loader.Prefilter {
			t.Errorf("adopted %v, %v", got, err)
		}
		if err := l.Attach(loader.Accelerated, dev); err != nil {
			return err
		}
		runs(t, dev, "fast")
		mode(t, dev, "native")
		if got := linkOf(t, cfg.Links, dev); got != link0 {
			t.Errorf("link %d took the place of %d: there was a gap", got, link0)
		}
		if err := l.Attach(loader.Accelerated, deaf); !errors.Is(err, loader.ErrPeer) {
			t.Errorf("a pair whose other end takes no frames: %v", err)
		}
		runs(t, deaf, "prefilter")
		if err := l.Attach(loader.Accelerated, br); err == nil {
			t.Error("a driver without XDP accelerates")
		}

		// A restart finds it as it is.
		if err := l.Close(); err != nil {
			return err
		}
		l = newLoader(t, cfg, m)
		got, err := l.Adopt()
		if err != nil || !slices.Contains(got, loader.Attachment{Role: loader.Accelerated, IfIndex: dev}) {
			t.Errorf("adopted %v, %v", got, err)
		}
		if err := l.Attached(loader.Accelerated, dev); err != nil {
			t.Error(err)
		}
		runs(t, dev, "fast")

		// Off again, and denied sources stay denied; then the other mode, which takes another link.
		for _, next := range []struct {
			fast loader.Fast
			want string
		}{{loader.FastOff, "prefilter"}, {loader.FastGeneric, "fast"}} {
			if err := l.Close(); err != nil {
				return err
			}
			cfg.Fast = next.fast
			l = newLoader(t, cfg, m)
			if _, err := l.Adopt(); err != nil {
				return err
			}
			if next.fast != loader.FastOff {
				for _, d := range []int{dev, br} {
					if err := l.Attach(loader.Accelerated, d); err != nil {
						t.Error(err)
					}
				}
				mode(t, dev, "generic")
				mode(t, br, "generic")
			}
			runs(t, dev, next.want)
		}
		return l.Prune(func(loader.Attachment) bool { return false })
	})
}

// linkOf is the number of a device's link.
func linkOf(t *testing.T, links string, ifindex int) link.ID {
	t.Helper()
	l, err := link.LoadPinnedLink(filepath.Join(links, pinName(ifindex)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// runs checks which program a device runs in XDP.
func runs(t *testing.T, ifindex int, want string) {
	t.Helper()
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(dev.Attrs().Xdp.ProgId))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if info, err := p.Info(); err != nil || info.Name != want {
		t.Errorf("device %d runs %q, %v; want %q", ifindex, info.Name, err, want)
	}
}

func pinName(ifindex int) string { return fmt.Sprintf("prefilter-%d-xdp", ifindex) }

// bridge makes a device whose driver knows no XDP.
func bridge(t *testing.T, name string) int {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	b := &netlink.Bridge{LinkAttrs: a}
	if err := netlink.LinkAdd(b); err != nil {
		t.Fatal(err)
	}
	return b.Index
}

func passAll(t *testing.T) *ebpf.Program {
	t.Helper()
	const xdpPass = 2
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}
