package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrGenNone: the kernel makes no link-local address.
const addrGenNone = 1

// Config of Pairs.
type Config struct {
	Owner  string // of the devices (paths.Owner): agents that share a network namespace have different ones
	Netkit bool   // new pairs are netkit, not veth; those that there are stay what they are
}

// Deps are what New needs from others.
type Deps struct {
	Log *slog.Logger
}

// Pairs makes and removes device pairs in the agent's network namespace.
type Pairs struct {
	log    *slog.Logger
	host   *netlink.Handle
	alias  string // of the host sides
	netkit bool
}

// New opens a netlink socket in the calling thread's network namespace.
func New(cfg Config, deps Deps) (*Pairs, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Pairs{log: deps.Log, host: h, alias: "hypha " + cfg.Owner, netkit: cfg.Netkit}, nil
}

// Close closes the socket.
func (p *Pairs) Close() { p.host.Close() }

// Create makes the pair, addresses included, both ends down; one that is there already is completed. On an error
// nothing of it is left. The error is fs.ErrNotExist when there is no such network namespace.
func (p *Pairs) Create(ctx context.Context, spec Spec) (_ Link, err error) {
	if err := spec.check(); err != nil {
		return Link{}, fmt.Errorf("make device pair: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Link{}, err
	}
	s, err := enter(spec.NetNS)
	if err != nil {
		return Link{}, err
	}
	defer func() { _ = s.Close() }()
	host, pod, err := p.find(s, &spec)
	if err != nil {
		return Link{}, err
	}
	if host == nil {
		defer func() {
			if err != nil {
				err = errors.Join(err, p.Delete(context.WithoutCancel(ctx), spec.HostIfName))
			}
		}()
		if host, pod, err = p.add(s, &spec); err != nil {
			return Link{}, err
		}
	}
	if err := p.configure(s, host, pod, &spec); err != nil {
		return Link{}, err
	}
	return Link{HostIfName: spec.HostIfName, HostIfIndex: host.Attrs().Index, MAC: pod.Attrs().HardwareAddr.String(),
		HostMAC: host.Attrs().HardwareAddr.String()}, ctx.Err()
}

// find returns both ends if they are a pair already. A host side whose other end is elsewhere is a left-over: it is deleted.
func (p *Pairs) find(s *space, spec *Spec) (host, pod netlink.Link, err error) {
	host, err = p.host.LinkByName(spec.HostIfName)
	if notFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find device %s: %w", spec.HostIfName, err)
	}
	if !paired(host) || !p.own(host) {
		return nil, nil, fmt.Errorf("device %s: %w", spec.HostIfName, ErrForeign)
	}
	pod, err = s.LinkByName(spec.IfName)
	if err == nil && isPair(host, pod) {
		return host, pod, nil
	}
	if err != nil && !notFound(err) {
		return nil, nil, fmt.Errorf("find device %s inside: %w", spec.IfName, err)
	}
	p.log.Info("Deleting a left-over device", "device", spec.HostIfName)
	return nil, nil, p.host.LinkDel(host)
}

// own says whether a host side is this agent's, or nobody's: one that was made when its maker died before it could mark it.
func (p *Pairs) own(host netlink.Link) bool {
	return host.Attrs().Alias == p.alias || host.Attrs().Alias == ""
}

// paired says whether a device is of a kind that Create makes.
func paired(l netlink.Link) bool { return l.Type() == "veth" || l.Type() == "netkit" }

// isPair says whether two devices of different namespaces are ends of one pair.
func isPair(host, pod netlink.Link) bool {
	return pod.Type() == host.Type() && host.Attrs().ParentIndex == pod.Attrs().Index &&
		pod.Attrs().ParentIndex == host.Attrs().Index
}

// add makes the pair with one end inside at once: no other namespace ever sees that end.
func (p *Pairs) add(s *space, spec *Spec) (host, pod netlink.Link, err error) {
	mac, err := spec.mac()
	if err != nil {
		return nil, nil, fmt.Errorf("make device pair: %w", err)
	}
	if err := p.host.LinkAdd(p.device(spec, mac, netlink.NsFd(int(s.f.Fd())))); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("%w (is there a device %s inside already?)", err, spec.IfName)
		}
		return nil, nil, fmt.Errorf("make device pair %s: %w", spec.HostIfName, err)
	}
	if host, err = p.host.LinkByName(spec.HostIfName); err != nil {
		return nil, nil, fmt.Errorf("find device %s: %w", spec.HostIfName, err)
	}
	if pod, err = s.LinkByName(spec.IfName); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("find device %s inside: %w", spec.IfName, err), p.host.LinkDel(host))
	}
	return host, pod, nil
}

// device describes a pair that is to be made. A netkit one carries nothing that comes from inside unless a program is there
// and lets it.
func (p *Pairs) device(spec *Spec, mac net.HardwareAddr, inside netlink.NsFd) netlink.Link {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr = spec.HostIfName, spec.MTU, randomMAC()
	if !p.netkit {
		v := netlink.NewVeth(a)
		v.PeerName, v.PeerHardwareAddr, v.PeerMTU, v.PeerNamespace = spec.IfName, mac, uint32(spec.MTU), inside
		return v
	}
	peer := netlink.NewLinkAttrs()
	peer.Name, peer.MTU, peer.HardwareAddr, peer.Namespace = spec.IfName, spec.MTU, mac, inside
	n := &netlink.Netkit{LinkAttrs: a, Mode: netlink.NETKIT_MODE_L2, Policy: netlink.NETKIT_POLICY_FORWARD,
		PeerPolicy: netlink.NETKIT_POLICY_BLACKHOLE, Scrub: netlink.NETKIT_SCRUB_DEFAULT, PeerScrub: netlink.NETKIT_SCRUB_DEFAULT}
	n.SetPeerAttrs(&peer)
	return n
}

// configure sets what both ends have while they are down.
func (p *Pairs) configure(s *space, host, pod netlink.Link, spec *Spec) error {
	if host.Attrs().Alias != p.alias { // the kernel takes none while it makes a device
		if err := p.host.LinkSetAlias(host, p.alias); err != nil {
			return fmt.Errorf("mark device %s: %w", spec.HostIfName, err)
		}
	}
	if spec.MAC != "" {
		mac, err := spec.mac()
		if err != nil {
			return err
		}
		if pod.Attrs().HardwareAddr.String() != mac.String() {
			if err := s.LinkSetHardwareAddr(pod, mac); err != nil {
				return fmt.Errorf("set MAC address of %s: %w", spec.IfName, err)
			}
			pod.Attrs().HardwareAddr = mac
		}
	}
	for _, end := range []struct {
		h *netlink.Handle
		l netlink.Link
	}{{p.host, host}, {s.Handle, pod}} {
		name := end.l.Attrs().Name
		if end.l.Attrs().MTU != spec.MTU {
			if err := end.h.LinkSetMTU(end.l, spec.MTU); err != nil {
				return fmt.Errorf("set MTU of %s: %w", name, err)
			}
		}
		// A kernel without IPv6 knows no such thing; then there is no link-local address either.
		if err := end.h.LinkSetIP6AddrGenMode(end.l, addrGenNone); err != nil && spec.hasV6() {
			return fmt.Errorf("turn link-local addresses off on %s: %w", name, err)
		}
	}
	if err := s.sysctls(podSysctls(spec.IfName, spec.hasV6())); err != nil {
		return err
	}
	for _, a := range spec.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := s.AddrReplace(pod, addr); err != nil {
			return fmt.Errorf("set address %s on %s: %w", a, spec.IfName, err)
		}
	}
	return nil
}

// Delete removes the pair; one that is not there, or is another agent's, is no error.
func (p *Pairs) Delete(_ context.Context, hostIfName string) error {
	if !hostName.MatchString(hostIfName) {
		return fmt.Errorf("delete device %q: %w", hostIfName, ErrForeign)
	}
	l, err := p.host.LinkByName(hostIfName)
	if notFound(err) {
		return nil
	}
	if err == nil && !paired(l) {
		err = ErrForeign
	}
	if err == nil && p.own(l) {
		if err = p.host.LinkDel(l); errors.Is(err, unix.ENODEV) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("delete device %s: %w", hostIfName, err)
	}
	return nil
}

// List returns the host sides that exist and are this agent's. MAC is empty.
func (p *Pairs) List(context.Context) ([]Link, error) {
	all, err := p.links()
	if err != nil {
		return nil, err
	}
	var out []Link
	for _, l := range all {
		a := l.Attrs()
		if paired(l) && hostName.MatchString(a.Name) && a.Alias == p.alias {
			out = append(out, Link{HostIfName: a.Name, HostIfIndex: a.Index, HostMAC: a.HardwareAddr.String()})
		}
	}
	return out, nil
}

// Netkit says whether any of this agent's pairs is, or will be, a netkit one.
func (p *Pairs) Netkit() (bool, error) {
	all, err := p.links()
	if err != nil || p.netkit {
		return p.netkit, err
	}
	for _, l := range all {
		if l.Type() == "netkit" && hostName.MatchString(l.Attrs().Name) && l.Attrs().Alias == p.alias {
			return true, nil
		}
	}
	return false, nil
}

// links lists devices, again when the list changed under the walk.
func (p *Pairs) links() ([]netlink.Link, error) {
	var all []netlink.Link
	var err error
	for range 5 {
		if all, err = p.host.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return all, nil
}

func notFound(err error) bool { return errors.As(err, new(netlink.LinkNotFoundError)) }
