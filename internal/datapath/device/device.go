// Package device finds the node's outside devices and follows their changes. Every change of links, addresses or routes
// leads to a fresh look at everything, so a lost message (ENOBUFS) costs nothing but that look.
package device

import (
	"net/netip"
	"path"
	"strings"

	"github.com/hypha-net/hypha/internal/datapath/overlay"
)

// Device is an outside device: workloads leave the node through it.
type Device struct {
	Index int
	Name  string
	Masq4 netip.Addr // address that workloads leave under; invalid: none
	Masq6 netip.Addr
	MTU   int  // bytes
	L3    bool // no link-layer header
	// There are VLAN devices on it: frames of theirs pass it too.
	Tagged bool
}

// addr is an address of a device.
type addr struct {
	ip       netip.Addr
	usable   bool // global, not tentative, deprecated or temporary
	stayable bool // IPv4 primary, or IPv6 permanent
}

// dev is a device as the kernel tells it.
type dev struct {
	Device
	up       bool
	loopback bool
	slave    bool // port of a bond or bridge: its master counts
	def      bool // has a default route
	addrs    []addr
}

// choose picks the outside devices: those that a pattern names, or without patterns those with a default route or a
// node address. A pattern with a trailing "+" names all that begin with the rest; "*", "?" and "[...]" work too.
func choose(devs []dev, patterns []string, nodeAddrs []netip.Addr) []Device {
	var out []Device
	for _, d := range devs {
		if d.loopback || !d.up || d.Name == overlay.Name || ownName(d.Name) {
			continue
		}
		want := false
		if len(patterns) > 0 {
			want = matchAny(patterns, d.Name)
		} else if !d.slave {
			want = d.def
			for _, a := range d.addrs {
				for _, n := range nodeAddrs {
					want = want || a.ip == n
				}
			}
		}
		if want {
			d.Masq4, d.Masq6 = masq(d.addrs, nodeAddrs, false), masq(d.addrs, nodeAddrs, true)
			out = append(out, d.Device)
		}
	}
	return out
}

// masq is the address that workloads leave a device under: the node's own if the device has it, else the first that is
// good for long.
func masq(addrs []addr, nodeAddrs []netip.Addr, v6 bool) netip.Addr {
	var best netip.Addr
	rank := 0
	for _, a := range addrs {
		if a.ip.Is6() != v6 || !a.usable {
			continue
		}
		r := 1
		if a.stayable {
			r = 2
		}
		for _, n := range nodeAddrs {
			if a.ip == n {
				r = 3
			}
		}
		if r > rank {
			best, rank = a.ip, r
		}
	}
	return best
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if stem, ok := strings.CutSuffix(p, "+"); ok {
			if strings.HasPrefix(name, stem) {
				return true
			}
		} else if ok, err := path.Match(p, name); err == nil && ok {
			return true
		}
	}
	return false
}

// ownName says whether the name is that of a workload's host side.
func ownName(name string) bool {
	rest, ok := strings.CutPrefix(name, "hy")
	return ok && len(rest) == 10 && strings.Trim(rest, "0123456789abcdef") == ""
}
