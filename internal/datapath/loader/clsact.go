package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where tcx is missing, programs sit in filters of the clsact qdisc, at a place of their own: fixed handle and priority,
// so that a replacement is atomic and other people's filters are not touched. A filter belongs to its device, and so to
// the agent of that network namespace.
const (
	filterHandle   = 0x6879
	filterPriority = 0x6879
	filterPrefix   = "hypha_" // of the filter's name, followed by the program's
)

func clsactQdisc(ifindex int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex,
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

func (h hook) parent() uint32 {
	if h.attach == ebpf.AttachTCXIngress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func filter(ifindex int, h hook) netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: ifindex, Parent: h.parent(), Handle: filterHandle, Priority: filterPriority,
		Protocol: unix.ETH_P_ALL}
}

func attachFilter(ifindex int, h hook, name string, prog *ebpf.Program) error {
	if err := netlink.QdiscAdd(clsactQdisc(ifindex)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	f := &netlink.BpfFilter{FilterAttrs: filter(ifindex, h), Fd: prog.FD(), Name: filterPrefix + name, DirectAction: true}
	if err := netlink.FilterReplace(f); err != nil {
		return fmt.Errorf("replace filter: %w", err)
	}
	return nil
}

// filtered says whether a device has this program's filter.
func filtered(ifindex int, h hook, name string) (bool, error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, err
	}
	fs, err := netlink.FilterList(dev, h.parent())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(fs, func(f netlink.Filter) bool {
		b, ok := f.(*netlink.BpfFilter)
		return ok && b.Name == filterPrefix+name && b.Attrs().Handle == filterHandle
	}), nil
}

func detachFilter(ifindex int, h hook) error {
	err := netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: filter(ifindex, h)})
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // EINVAL: the device has no clsact qdisc
	}
	return fmt.Errorf("delete filter: %w", err)
}

// filterRoles reads from a device's filters what it is to this agent.
func filterRoles(dev netlink.Link) ([]Role, error) {
	var out []Role
	for _, h := range tcHooks {
		fs, err := netlink.FilterList(dev, h.parent())
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list filters of device %s: %w", dev.Attrs().Name, err)
		}
		for _, f := range fs {
			b, ok := f.(*netlink.BpfFilter)
			if !ok || b.Handle != filterHandle || b.Priority != filterPriority {
				continue
			}
			for r := range programs {
				if p := r.program(h); p != "" && b.Name == filterPrefix+p && !slices.Contains(out, r) {
					out = append(out, r)
				}
			}
		}
	}
	return out, nil
}

// RemoveFilters deletes this agent's filters from all devices of the network namespace; for cleanup.
func RemoveFilters() error {
	devs, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, d := range devs {
		roles, e := filterRoles(d)
		err = errors.Join(err, e)
		if len(roles) == 0 {
			continue
		}
		for _, h := range tcHooks {
			err = errors.Join(err, detachFilter(d.Attrs().Index, h))
		}
	}
	return err
}
