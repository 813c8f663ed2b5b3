package route

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

var (
	p4, p6 = netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")
	taken  = netip.MustParsePrefix("10.2.0.0/24")
)

// own lists the destinations of routes with a protocol number.
func own(t *testing.T, proto netlink.RouteProtocol) (out []string) {
	t.Helper()
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := netlink.RouteListFiltered(f, &netlink.Route{Protocol: proto}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			out = append(out, strings.TrimSpace(r.Dst.String()+" "+gw(r.Gw)))
		}
	}
	slices.Sort(out)
	return out
}

func gw(ip []byte) string {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return ""
	}
	return a.Unmap().String()
}

func TestRoutes(t *testing.T) {
	a, b := netns.New(t, "a"), netns.New(t, "b")
	netns.Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "192.0.2.1/24", "fd01::1/64")
	a.In(func() error {
		ctx := context.Background()
		target, err := New()
		if err != nil {
			return err
		}
		defer target.Close()
		foreign, err := foreignTo(taken)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(foreign); err != nil {
			return err
		}
		r4 := model.Route{Prefix: p4, Via: netip.MustParseAddr("192.0.2.2"), Src: netip.MustParseAddr("192.0.2.1"), MTU: 1400}
		r6 := model.Route{Prefix: p6, Via: netip.MustParseAddr("fd01::2")}
		for range 2 {
			for _, r := range []model.Route{r4, r6} {
				if err := target.Update(ctx, r.Prefix, r); err != nil {
					return err
				}
			}
		}
		if d := cmp.Diff([]string{"10.1.0.0/24 192.0.2.2", "fd00:1::/64 fd01::2"}, own(t, Protocol)); d != "" {
			t.Error(d)
		}
		// A changed next hop takes the place of the old one.
		r4.Via, r6.Via = netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("fd01::3")
		for _, r := range []model.Route{r4, r6} {
			if err := target.Update(ctx, r.Prefix, r); err != nil {
				return err
			}
		}
		dev := model.Route{Prefix: netip.MustParsePrefix("10.3.0.0/24"), Device: "eth0"}
		if err := target.Update(ctx, dev.Prefix, dev); err != nil {
			return err
		}
		if d := cmp.Diff([]string{"10.1.0.0/24 192.0.2.3", "10.3.0.0/24", "fd00:1::/64 fd01::3"}, own(t, Protocol)); d != "" {
			t.Error(d)
		}
		// What is not ours stays, even where we want to be.
		bad := model.Route{Prefix: taken, Via: netip.MustParseAddr("192.0.2.2")}
		if err := target.Update(ctx, taken, bad); !errors.Is(err, ErrForeign) {
			t.Errorf("took a foreign route's place: %v", err)
		}
		if err := target.Delete(ctx, taken); err != nil {
			t.Error(err)
		}
		if err := target.Update(ctx, p4, model.Route{Prefix: p4, Device: "nodevice"}); err == nil {
			t.Error("a device that is not there was taken")
		}
		if err := target.Prune(ctx, map[netip.Prefix]model.Route{p6: r6}); err != nil {
			return err
		}
		if d := cmp.Diff([]string{"fd00:1::/64 fd01::3"}, own(t, Protocol)); d != "" {
			t.Error(d)
		}
		for range 2 {
			if err := target.Delete(ctx, p6); err != nil {
				return err
			}
		}
		if left := own(t, Protocol); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if d := cmp.Diff([]string{"10.2.0.0/24 192.0.2.9"}, own(t, 4)); d != "" {
			t.Error(d)
		}
		return nil
	})
}

// foreignTo is a route as an administrator makes it.
func foreignTo(p netip.Prefix) (*netlink.Route, error) {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	return &netlink.Route{Dst: ipNet(p), Gw: netip.MustParseAddr("192.0.2.9").AsSlice(), LinkIndex: l.Attrs().Index, Protocol: 4}, nil
}

// What others do to our routes is found at the next look, and mended.
func TestLook(t *testing.T) {
	a := netns.New(t, "a")
	a.In(func() error {
		ctx := context.Background()
		target, err := New()
		if err != nil {
			return err
		}
		defer target.Close()
		r := model.Route{Prefix: p4, Device: "lo"}
		if err := target.Update(ctx, p4, r); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.RouteDel(&netlink.Route{Dst: ipNet(p4), LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
			return err
		}
		if err := errors.Join(target.Look(ctx), target.Update(ctx, p4, r)); err != nil {
			return err
		}
		if d := cmp.Diff([]string{"10.1.0.0/24"}, own(t, Protocol)); d != "" {
			t.Error(d)
		}
		return nil
	})
}
