package device

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// Where the IP header begins is taken from the kernel, not from a device's name.
func TestReadHeadless(t *testing.T) {
	a, b := netns.New(t, "a"), netns.New(t, "b")
	netns.Veth(t, a, "eth0", b, "eth0")
	a.In(func() error {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vpn"}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1, Flags: netlink.TUNTAP_NO_PI}
		if err := netlink.LinkAdd(tun); err != nil {
			return err
		}
		t.Cleanup(func() { _ = tun.Fds[0].Close() })
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		devs, err := read(h)
		if err != nil {
			return err
		}
		got := map[string]bool{}
		for _, d := range devs {
			got[d.Name] = d.L3
		}
		if l3, ok := got["vpn"]; !ok || !l3 || got["eth0"] || got["lo"] {
			t.Errorf("without a link layer: %v", got)
		}
		return nil
	})
}
