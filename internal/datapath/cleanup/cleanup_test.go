package cleanup_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/datapath/cleanup"
	"github.com/hypha-net/hypha/internal/datapath/host"
	"github.com/hypha-net/hypha/internal/datapath/link"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/datapath/route"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// All that a node can have, and then nothing of it.
func TestNothingIsLeft(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	bpf := pintest.Dir(t)
	p := paths.Paths{State: t.TempDir(), BPF: filepath.Join(bpf, "node")}
	node, pod, peer := netns.New(t, "node"), netns.New(t, "pod"), netns.New(t, "peer")
	netns.Veth(t, node, "eth0", peer, "eth0")
	node.Addr("eth0", "192.0.2.1/24")
	node.In(func() error {
		ctx := context.Background()
		before := node.Run("sh", "-c", "ip -o link | cut -d: -f2; ip -o addr | grep -v scope.link; ip route; ip -6 route | grep -v fe80; tc filter show dev eth0 ingress; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding")
		m, err := maps.Open(maps.Config{Dir: p.Maps(), CT: 4096, NAT: 4096, Ring: 4096}, maps.Deps{Log: log})
		if err != nil {
			return err
		}
		gw4 := netip.MustParseAddr("10.0.0.1")
		if err := host.Apply(host.Config{Record: p.HostRecord(), Routers: []netip.Addr{gw4}}); err != nil {
			return err
		}
		l, err := loader.New(loader.Config{Links: p.Links(), Options: loader.Options{IPv4: true}}, loader.Deps{Log: log, Kernel: loader.Probe(), Maps: m.Replacements()})
		if err != nil {
			return err
		}
		clsact, err := loader.New(loader.Config{Links: p.Links(), Clsact: true, Options: loader.Options{IPv4: true}}, loader.Deps{Log: log, Kernel: loader.Probe(), Maps: m.Replacements()})
		if err != nil {
			return err
		}
		over, err := overlay.Ensure(overlay.Config{Port: 8472, MTU: 1450})
		if err != nil {
			return err
		}
		if again, err := overlay.Ensure(overlay.Config{Port: 8472, MTU: 1400}); err != nil || again != over {
			t.Errorf("the overlay device was made anew: %v", err)
		}
		if again, err := overlay.Ensure(overlay.Config{Port: 8473, MTU: 1400}); err != nil || again == over {
			t.Errorf("the overlay device keeps its old port: %v", err)
		} else {
			over = again
		}
		pairs, err := link.New(link.Config{Owner: p.Owner()}, link.Deps{Log: log})
		if err != nil {
			return err
		}
		defer pairs.Close()
		spec := link.Spec{HostIfName: paths.HostIf("c", "eth0"), NetNS: pod.Path(), IfName: "eth0", MTU: 1400,
			Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}, Gateways: []netip.Addr{gw4}}
		made, err := pairs.Create(ctx, spec)
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		routes, err := route.New()
		if err != nil {
			return err
		}
		defer routes.Close()
		remote := netip.MustParsePrefix("10.0.1.0/24")
		for _, err := range []error{l.AttachOverlay(over), overlay.Up(), l.AttachPod(made.HostIfIndex), clsact.AttachDevice(eth0.Attrs().Index),
			pairs.Up(ctx, spec), routes.Update(ctx, remote, model.Route{Prefix: remote, Device: overlay.Name, Src: gw4})} {
			if err != nil {
				return err
			}
		}
		if err := l.AttachDevice(eth0.Attrs().Index); err != nil {
			return err
		}
		for _, c := range []interface{ Close() error }{l, clsact, m} {
			if err := c.Close(); err != nil {
				return err
			}
		}
		for range 2 {
			if err := cleanup.Run(ctx, p, log); err != nil {
				t.Error(err)
			}
		}
		after := node.Run("sh", "-c", "ip -o link | cut -d: -f2; ip -o addr | grep -v scope.link; ip route; ip -6 route | grep -v fe80; tc filter show dev eth0 ingress; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding")
		if before != after {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if left, err := os.ReadDir(bpf); err == nil && len(left) != 0 {
			t.Errorf("pins left: %v", left)
		}
		if left, err := os.ReadDir(p.State); err != nil || len(left) != 0 {
			t.Errorf("files left: %v %v", left, err)
		}
		return nil
	})
}
