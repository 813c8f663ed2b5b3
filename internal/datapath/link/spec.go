package link

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
)

// Spec says what the device pair of a workload is to be.
type Spec struct {
	HostIfName  string // paths.HostIf
	ContainerID string // for messages
	NetNS       string // path; must not be the agent's own network namespace
	IfName      string // inside
	MAC         string // wished, else one is made
	Addrs       []netip.Addr
	Gateways    []netip.Addr // of the same versions; the source of the host's routes too
	MTU         int          // bytes
}

// Link is a device pair as it is.
type Link struct {
	HostIfName  string
	HostIfIndex int
	MAC         string // of the workload's end; "" where it was not asked
	HostMAC     string
}

// Errors that a caller may tell apart.
var (
	ErrOwnNetNS = errors.New("this is the agent's own network namespace")
	ErrNoNetNS  = errors.New("not a network namespace")
	ErrForeign  = errors.New("a device that is not Hypha's has this name")
)

var hostName = regexp.MustCompile(`^hy[0-9a-f]{10}$`)

func (s *Spec) check() error {
	if !hostName.MatchString(s.HostIfName) {
		return fmt.Errorf("host device %q: want hy and 10 hex digits", s.HostIfName)
	}
	if s.MTU < 68 {
		return fmt.Errorf("MTU %d: want at least 68 bytes", s.MTU)
	}
	if len(s.Addrs) == 0 {
		return errors.New("a workload needs an address")
	}
	for _, a := range s.Addrs {
		if !a.IsValid() || !s.gateway(a.Is6()).IsValid() {
			return fmt.Errorf("address %s: there is no gateway of its version", a)
		}
	}
	return nil
}

func (s *Spec) gateway(v6 bool) netip.Addr {
	for _, g := range s.Gateways {
		if g.Is6() == v6 {
			return g
		}
	}
	return netip.Addr{}
}

func (s *Spec) hasV6() bool {
	for _, a := range s.Addrs {
		if a.Is6() {
			return true
		}
	}
	return false
}

// mac reads the wished address or makes one: unicast, locally administered, random.
func (s *Spec) mac() (net.HardwareAddr, error) {
	if s.MAC != "" {
		mac, err := net.ParseMAC(s.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return nil, fmt.Errorf("MAC address %q: want a unicast Ethernet address", s.MAC)
		}
		return mac, nil
	}
	return randomMAC(), nil
}

func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails (crypto/rand)
	mac[0] = mac[0]&^1 | 2
	return mac
}

func ipNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func anyNet(v6 bool) *net.IPNet {
	if v6 {
		return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
}
