// Package host sets what the node's own stack needs to carry workloads' traffic: the router addresses and a few sysctls
// of the agent's network namespace. It notes in a file what it found there, so that Restore can put it back.
//
// Needed, and nothing else:
//
//   - net.ipv4.ip_forward and net.ipv6.conf.all.forwarding = 1: bpf_fib_lookup refuses a device that does not forward,
//     and traffic from outside to workloads (native routing) passes the stack.
//   - net.ipv6.conf.<device>.accept_ra = 2 where it was 1: forwarding makes the kernel ignore router advertisements,
//     and a node that has its default route from one would lose it.
//
// rp_filter and accept_local stay as they are: every source that reaches the stack has its route back over the device
// it came by.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config says what to set.
type Config struct {
	Record  string       // file that holds what was there before
	Routers []netip.Addr // the node's own addresses in its pod ranges, on lo
}

// Apply sets what cfg says and takes router addresses of earlier configurations away. Call it on a thread of the
// agent's network namespace.
func Apply(cfg Config) error {
	rec, err := readRecord(cfg.Record)
	if err != nil {
		return err
	}
	old := rec.Routers
	want := map[string]string{"net/ipv4/ip_forward": "1"}
	v6 := false
	for _, r := range cfg.Routers {
		v6 = v6 || r.Is6()
	}
	if v6 {
		ras, err := raDevices()
		if err != nil {
			return err
		}
		for _, path := range ras {
			want[path] = "2"
		}
		want["net/ipv6/conf/all/forwarding"] = "1"
	}
	for path := range want {
		if err := rec.remember(path); err != nil {
			return err
		}
	}
	rec.Routers = cfg.Routers
	if err := rec.write(cfg.Record); err != nil { // before anything is changed
		return err
	}
	// accept_ra first: no advertisement may go unheard in between.
	const forwarding = "net/ipv6/conf/all/forwarding"
	for path, v := range want {
		if path != forwarding {
			if err := set(path, v); err != nil {
				return err
			}
		}
	}
	if v, ok := want[forwarding]; ok {
		if err := set(forwarding, v); err != nil {
			return err
		}
	}
	return routers(cfg.Routers, old)
}

// routers puts the addresses on lo and removes those of old that are not wanted any more.
func routers(want, old []netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	keep := map[netip.Addr]bool{}
	for _, a := range want {
		keep[a] = true
		x := &netlink.Addr{IPNet: single(a), Scope: unix.RT_SCOPE_UNIVERSE}
		if a.Is6() {
			x.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(lo, x); err != nil {
			return fmt.Errorf("set router address %s: %w", a, err)
		}
	}
	var failed error
	for _, a := range old {
		if keep[a] {
			continue
		}
		if err := netlink.AddrDel(lo, &netlink.Addr{IPNet: single(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			failed = errors.Join(failed, fmt.Errorf("remove router address %s: %w", a, err))
		}
	}
	return failed
}

// Restore puts back what Apply changed, as far as nobody else has changed it since, and removes the record.
func Restore(record string) error {
	rec, err := readRecord(record)
	if err != nil {
		return err
	}
	var failed error
	for path, was := range rec.Sysctls {
		if now, err := get(path); err != nil || now == was {
			continue // the device is gone, or it is as it was
		}
		failed = errors.Join(failed, set(path, was))
	}
	failed = errors.Join(failed, routers(nil, rec.Routers))
	if err := os.Remove(record); err != nil && !errors.Is(err, os.ErrNotExist) {
		failed = errors.Join(failed, fmt.Errorf("remove record: %w", err))
	}
	return failed
}

// raDevices are the accept_ra values of devices that listen to router advertisements only while they do not forward.
func raDevices() ([]string, error) {
	const conf = "/proc/sys/net/ipv6/conf/"
	entries, err := os.ReadDir(conf)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("this kernel has IPv6 switched off: start with enable-ipv6=false")
	}
	if err != nil {
		return nil, fmt.Errorf("list IPv6 devices: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.Name() == "all" || e.Name() == "default" || e.Name() == "lo" || strings.HasPrefix(e.Name(), "hy") {
			continue
		}
		path := "net/ipv6/conf/" + e.Name() + "/accept_ra"
		if v, err := get(path); err == nil && v == "1" {
			out = append(out, path)
		}
	}
	return out, nil
}

const sysctlRoot = "/proc/sys"

func get(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, path))
	return strings.TrimSpace(string(b)), err
}

func set(path, value string) error {
	if now, err := get(path); err == nil && now == value {
		return nil
	}
	if err := os.WriteFile(filepath.Join(sysctlRoot, path), []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", strings.ReplaceAll(path, "/", "."), value, err)
	}
	return nil
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
