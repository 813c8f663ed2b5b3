// Package overlay makes the tunnel device of the node: one VXLAN device in collect-metadata mode, so that every packet's
// peer and VNI are the programs' choice. It has no address and learns nothing; the programs on it must be attached
// before it is up, because without them it would accept anybody's packets.
package overlay

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Name of the device.
const Name = "hypha_vxlan"

// What VXLAN adds to a packet, by version of the underlay: outer IP, UDP, VXLAN and inner Ethernet headers.
const (
	Overhead4 = 20 + 8 + 8 + 14
	Overhead6 = 40 + 8 + 8 + 14
)

const addrGenNone = 1 // the kernel makes no link-local address

// Config says what the device is to be.
type Config struct {
	Port  uint16 // UDP, of the outer packets
	MTU   int    // bytes, of the inner packets: the underlay's less the overhead
	Index int    // of the device, should it have to be made: what loaded programs send to; 0: any
}

// Ensure makes the device, down, or adopts the one that is there, as it is; one of another kind or port is replaced. It
// returns the device's index. Attach the programs, then call Up.
func Ensure(cfg Config) (ifindex int, err error) {
	have, err := netlink.LinkByName(Name)
	switch {
	case err == nil && matches(have, cfg):
	case err == nil:
		if err := netlink.LinkDel(have); err != nil {
			return 0, fmt.Errorf("replace device %s: %w", Name, err)
		}
		have, err = add(cfg)
	case errors.As(err, new(netlink.LinkNotFoundError)):
		have, err = add(cfg)
	}
	if err != nil {
		return 0, fmt.Errorf("make device %s: %w", Name, err)
	}
	if have.Attrs().MTU != cfg.MTU {
		if err := netlink.LinkSetMTU(have, cfg.MTU); err != nil {
			return 0, fmt.Errorf("set MTU of %s: %w", Name, err)
		}
	}
	// The kernel then asks nobody for the address of a peer on the overlay: there is no link behind it.
	if err := netlink.LinkSetARPOff(have); err != nil {
		return 0, fmt.Errorf("turn ARP off on %s: %w", Name, err)
	}
	if err := netlink.LinkSetIP6AddrGenMode(have, addrGenNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return 0, fmt.Errorf("turn link-local addresses off on %s: %w", Name, err)
	}
	return have.Attrs().Index, nil
}

func add(cfg Config) (netlink.Link, error) {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Index = Name, cfg.MTU, cfg.Index
	// Outer UDP checksums are left out on IPv6 too (RFC 6935): the inner packet has its own.
	v := &netlink.Vxlan{LinkAttrs: a, FlowBased: true, Learning: false, Port: int(cfg.Port), UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true}
	if err := netlink.LinkAdd(v); err != nil {
		if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("%w (another tunnel uses UDP port %d: choose another with tunnel-port)", err, cfg.Port)
		}
		return nil, err
	}
	return netlink.LinkByName(Name)
}

func matches(l netlink.Link, cfg Config) bool {
	v, ok := l.(*netlink.Vxlan)
	return ok && v.FlowBased && v.Port == int(cfg.Port) && v.UDP6ZeroCSumRx
}

// Verify says what is wrong with the device, nil if it is up and as Ensure made it. It changes nothing.
func Verify(cfg Config) error {
	l, err := netlink.LinkByName(Name)
	switch {
	case err != nil:
		return fmt.Errorf("look at device %s: %w", Name, err)
	case !matches(l, cfg) || l.Attrs().Index != cfg.Index || l.Attrs().MTU != cfg.MTU:
		return fmt.Errorf("device %s is another one", Name)
	case l.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("device %s is down", Name)
	}
	return nil
}

// Up brings the device up.
func Up() error {
	l, err := netlink.LinkByName(Name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("bring up device %s: %w", Name, err)
	}
	return nil
}

// Delete removes the device; absent is no error.
func Delete() error {
	l, err := netlink.LinkByName(Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("delete device %s: %w", Name, err)
	}
	return nil
}
