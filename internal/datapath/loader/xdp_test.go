package loader_test

import (
	"fmt"
	"os"
	"path/filepath"
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
