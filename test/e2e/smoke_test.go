package e2e

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/workload"
)

// deviceKind is what kind of device a pod's eth0 is.
func deviceKind(ns *netns.NS) (kind string, err error) {
	err = ns.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			kind = l.Type()
		}
		return err
	})
	return kind, err
}

// TestSmoke is the least that a node must do on any kernel: pods of both nodes and outside reach each other where policy lets
// them and not where it does not, in both families, before, while and after the agents are killed.
func TestSmoke(t *testing.T) {
	for name, x := range map[string]struct {
		mode
		options map[string]any
	}{
		"overlay": {overlay, nil}, "native": {native, nil},
		"netkit overlay": {overlay, map[string]any{"datapath-mode": config.ModeNetkit}}, "netkit native": {native, map[string]any{"datapath-mode": config.ModeNetkit}},
	} {
		t.Run(name, func(t *testing.T) {
			if x.options != nil && !loader.Probe().Netkit {
				t.Skip("this kernel has no netkit")
			}
			m := x.mode
			c := start(t, m, 2, x.options)
			app, near, far := add(t, c, "app", 0), add(t, c, "near", 0, "id=friend"), add(t, c, "far", 1, "id=friend")
			stranger, distant := add(t, c, "stranger", 0), add(t, c, "distant", 1, "id=stranger")
			if err := c.ServeOutside(); err != nil {
				t.Fatal(err)
			}
			importPolicy(t, c, allow("friend", "app", workload.HTTPPort))
			importPolicy(t, c, allow("friend", "app", workload.EchoPort))
			probe := func(when string) {
				t.Helper()
				for _, v6 := range m.families() {
					to, outside := app.Addr(v6), netip.MustParseAddr(map[bool]string{false: "203.0.113.10", true: "2001:db8::10"}[v6])
					for name, from := range map[string]*netns.NS{"near": near.NS, "far": far.NS} {
						if _, err := fetch(from, to, workload.HTTPPort, yes); err != nil {
							t.Errorf("%s, %s: %s is not let in: %v", when, family(v6), name, err)
						}
					}
					for name, from := range map[string]*netns.NS{"stranger": stranger.NS, "distant": distant.NS} {
						if _, err := fetch(from, to, workload.HTTPPort, no); !dropped(err) {
							t.Errorf("%s, %s: %s is not dropped: %v", when, family(v6), name, err)
						}
					}
					if _, err := fetch(app.NS, outside, workload.HTTPPort, yes); err != nil {
						t.Errorf("%s, %s: outside is not reached: %v", when, family(v6), err)
					}
					if _, err := fetch(c.Nodes[1].NS, far.Addr(v6), workload.HTTPPort, yes); err != nil {
						t.Errorf("%s, %s: a node does not reach its pod: %v", when, family(v6), err)
					}
				}
			}
			if kind, err := deviceKind(app.NS); err != nil || (kind == "netkit") != (x.options != nil) {
				t.Errorf("the workload's device is %q (%v)", kind, err)
			}
			probe("at first")
			var streams []*stream
			for _, v6 := range m.families() {
				streams = append(streams, startStream(t, near.NS, app.Addr(v6)), startStream(t, far.NS, app.Addr(v6)))
			}
			for _, n := range c.Nodes {
				if err := n.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			probe("without agents")
			for _, n := range c.Nodes {
				if err := n.Start(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range c.Nodes {
				if err := n.WaitReady(t.Context(), len(c.Nodes)); err != nil {
					t.Fatal(err)
				}
			}
			probe("with new agents")
			for i, s := range streams {
				if err := s.alive(yes); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
			late := add(t, c, "late", 1, "id=friend")
			if _, err := fetch(late.NS, app.Addr(true), workload.HTTPPort, yes); err != nil {
				t.Errorf("a pod added afterwards: %v", err)
			}
		})
	}
}
