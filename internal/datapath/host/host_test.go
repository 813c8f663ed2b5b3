package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// values are what Apply may change.
func values(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/eth1/accept_ra"} {
		v, err := get(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = v
	}
	return out
}

func loAddrs(t *testing.T) string {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	as, err := netlink.AddrList(lo, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range as {
		if !a.IP.IsLoopback() {
			out = append(out, a.IPNet.String())
		}
	}
	return strings.Join(out, " ")
}

func TestApplyAndRestore(t *testing.T) {
	a, b := netns.New(t, "a"), netns.New(t, "b")
	netns.Veth(t, a, "eth0", b, "eth0")
	netns.Veth(t, a, "eth1", b, "eth1")
	record := filepath.Join(t.TempDir(), "node", "host.json")
	a.In(func() error {
		for path, v := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0",
			"net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/eth1/accept_ra": "0"} {
			if err := set(path, v); err != nil {
				return err
			}
		}
		before := values(t)
		cfg := Config{Record: record, Routers: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
		for range 2 { // again, as after a restart: what was there first counts
			if err := Apply(cfg); err != nil {
				return err
			}
		}
		want := map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
			"net/ipv6/conf/eth0/accept_ra": "2", "net/ipv6/conf/eth1/accept_ra": "0"}
		if d := cmp.Diff(want, values(t)); d != "" {
			t.Error(d)
		}
		if got := loAddrs(t); got != "10.0.0.1/32 fd00::1/128" {
			t.Errorf("router addresses: %s", got)
		}
		cfg.Routers[0] = netip.MustParseAddr("10.0.1.1")
		if err := Apply(cfg); err != nil {
			return err
		}
		if got := loAddrs(t); got != "10.0.1.1/32 fd00::1/128" {
			t.Errorf("router addresses after another range: %s", got)
		}
		for range 2 {
			if err := Restore(record); err != nil {
				return err
			}
		}
		if d := cmp.Diff(before, values(t)); d != "" {
			t.Error(d)
		}
		if got := loAddrs(t); got != "" {
			t.Errorf("router addresses left: %s", got)
		}
		if _, err := os.Stat(record); !os.IsNotExist(err) {
			t.Errorf("record left: %v", err)
		}
		// A damaged record is set aside, not trusted.
		if err := os.WriteFile(record, []byte(`{"sysctls":{"net/ipv4/ip_forw`), 0o600); err != nil {
			return err
		}
		if err := Apply(cfg); err != nil {
			return err
		}
		if _, err := os.Stat(record + ".damaged"); err != nil {
			t.Error(err)
		}
		return Restore(record)
	})
}
