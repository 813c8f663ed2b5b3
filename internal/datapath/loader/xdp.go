package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// newXDP attaches an XDP program in the device's driver or, where that cannot, to what the kernel has made of its packets.
func newXDP(ifindex int, prog *ebpf.Program) (link.Link, error) {
	native, err := link.AttachXDP(link.XDPOptions{Interface: ifindex, Program: prog, Flags: link.XDPDriverMode})
	if err == nil {
		return native, nil
	}
	generic, gerr := link.AttachXDP(link.XDPOptions{Interface: ifindex, Program: prog, Flags: link.XDPGenericMode})
	switch {
	case gerr == nil:
		return generic, nil
	case errors.Is(gerr, unix.EBUSY) || errors.Is(gerr, unix.EEXIST):
		return nil, fmt.Errorf("another XDP program is there (`ip link show` names it): %w", gerr)
	}
	return nil, fmt.Errorf("native: %w; generic: %w", err, gerr)
}

// XDPMode is how a device runs its XDP program, whoever's that is: "native" in the driver, "generic" behind it, "offload" on the
// device itself; "" if it has none.
func XDPMode(ifindex int) (string, error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return "", fmt.Errorf("look at device %d: %w", ifindex, err)
	}
	x := dev.Attrs().Xdp
	if x == nil {
		return "", nil
	}
	switch x.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return "native", nil
	case nl.XDP_ATTACHED_SKB:
		return "generic", nil
	case nl.XDP_ATTACHED_HW:
		return "offload", nil
	}
	return "", nil
}
