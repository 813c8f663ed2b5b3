package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/xdp"
)

// Fast says how services are accelerated in XDP.
type Fast string

// The ways: not at all, in the devices' drivers, or behind them.
const (
	FastOff     Fast = ""
	FastNative  Fast = "native"
	FastGeneric Fast = "generic"
)

type xdpMode struct {
	name Fast
	flag link.XDPAttachFlags
}

var xdpNative, xdpGeneric = xdpMode{FastNative, link.XDPDriverMode}, xdpMode{FastGeneric, link.XDPGenericMode}

// xdpModes are the modes that a role's program may run in, the best first.
func (l *Loader) xdpModes(r Role) []xdpMode {
	switch {
	case r != Accelerated:
		return []xdpMode{xdpNative, xdpGeneric}
	case l.cfg.Fast == FastGeneric:
		return []xdpMode{xdpGeneric}
	}
	return []xdpMode{xdpNative}
}

// newXDP attaches an XDP program in the first mode that the device can.
func newXDP(ifindex int, prog *ebpf.Program, modes []xdpMode) (link.Link, error) {
	var failed error
	for _, m := range modes {
		l, err := link.AttachXDP(link.XDPOptions{Interface: ifindex, Program: prog, Flags: m.flag})
		if err == nil {
			return l, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name, err))
	}
	if inTheWay(failed) {
		return nil, fmt.Errorf("another XDP program is there (`ip link show` names it): %w", failed)
	}
	return nil, failed
}

func inTheWay(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) }

// What keeps a device from accelerating services.
var (
	ErrPeer    = errors.New("the other end of the pair takes no frames from XDP: it needs generic receive offload (ethtool -K DEVICE gro on) or an XDP program")
	ErrNoFrame = errors.New("its driver runs XDP programs but sends nothing for them")
)

// accelerate puts the program that accelerates services onto a device, in the place of the one that denies sources. After an error
// that one, or none, is still there.
func (l *Loader) accelerate(ifindex int) error {
	if l.cfg.Fast == FastGeneric {
		return l.attachIn(FastGeneric, ifindex)
	}
	if err := l.slow[ifindex]; err != nil {
		return err
	}
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return fmt.Errorf("look at device %d: %w", ifindex, err)
	}
	veth := dev.Type() == "veth"
	if veth && !takesFrames(ifindex, false) { // which its other end can change any time
		return ErrPeer
	}
	err = l.attachIn(FastNative, ifindex)
	if err == nil && !veth && !takesFrames(ifindex, true) {
		err = ErrNoFrame
	}
	if err != nil && !inTheWay(err) {
		l.slow[ifindex] = err // trying again would set up the device's queues anew each time
	}
	return err
}

// attachIn attaches the program in this mode. A program of ours that runs in the other one has to go first.
func (l *Loader) attachIn(mode Fast, ifindex int) error {
	have, err := XDPMode(ifindex)
	if err != nil {
		return err
	}
	if have != "" && have != string(mode) {
		if err := l.detach(Accelerated, ifindex); err != nil {
			return err
		}
	}
	return l.attach(Accelerated, ifindex)
}

// keepsFast says whether a program that accelerates services and is there belongs there still.
func (l *Loader) keepsFast(ifindex int) bool {
	mode, err := XDPMode(ifindex)
	return err == nil && l.cfg.Fast != FastOff && mode == string(l.cfg.Fast)
}

// runsFast says whether a program is one that accelerates services.
func runsFast(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer func() { _ = p.Close() }()
	info, err := p.Info()
	return err == nil && info.Name == xdp.Fast
}

// takesFrames says whether a device sends what XDP gives it; unsure is the answer where the kernel does not tell (before 6.3).
func takesFrames(ifindex int, unsure bool) bool {
	features, err := xdpFeatures(ifindex)
	if err != nil {
		return unsure
	}
	return features&netdevSends != 0
}

// Of the generic netlink family "netdev" (linux/netdev.h).
const (
	netdevGet      = 1      // NETDEV_CMD_DEV_GET
	netdevIndex    = 1      // NETDEV_A_DEV_IFINDEX
	netdevFeatures = 3      // NETDEV_A_DEV_XDP_FEATURES
	netdevSends    = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
)

// genlHeader is struct genlmsghdr: command, version, and what has to be zero, which nl.Genlmsg leaves as it is in memory.
type genlHeader [nl.SizeofGenlmsg]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

// xdpFeatures asks what a device's driver can do for XDP (Documentation/netlink/specs/netdev.yaml).
func xdpFeatures(ifindex int) (uint64, error) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0, fmt.Errorf("ask for XDP features: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genlHeader{netdevGet, 1})
	req.AddData(nl.NewRtAttr(netdevIndex, nl.Uint32Attr(uint32(ifindex))))
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for XDP features of device %d: %w", ifindex, err)
	}
	for _, a := range answers {
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, fmt.Errorf("read XDP features of device %d: %w", ifindex, err)
		}
		for _, x := range attrs {
			if x.Attr.Type == netdevFeatures && len(x.Value) == 8 {
				return nl.NativeEndian().Uint64(x.Value), nil
			}
		}
	}
	return 0, fmt.Errorf("the kernel tells no XDP features of device %d", ifindex)
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
