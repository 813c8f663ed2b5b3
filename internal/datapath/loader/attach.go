package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/bpf/xdp"
)

// Role is what a device is to the datapath: which programs belong on it.
type Role string

// The roles of devices.
const (
	Pod     Role = "pod"     // host side of a workload's pair
	Overlay Role = "overlay" // the tunnel device
	Device  Role = "device"  // outside device of the node

	Prefilter   Role = "prefilter"    // outside device on which denied sources are dropped
	PrefilterL3 Role = "prefilter_l3" // the same, without a link layer
	Accelerated Role = "fast"         // outside device on which services are accelerated and denied sources dropped
)

// programs are those of each role, by hook.
var programs = map[Role]map[ebpf.AttachType]string{
	Pod:         {ebpf.AttachTCXIngress: pod.FromPod, ebpf.AttachTCXEgress: pod.ToPod},
	Overlay:     {ebpf.AttachTCXIngress: overlay.FromOverlay, ebpf.AttachTCXEgress: overlay.ToOverlay},
	Device:      {ebpf.AttachTCXIngress: host.FromNetdev, ebpf.AttachTCXEgress: host.ToNetdev},
	Prefilter:   {ebpf.AttachXDP: xdp.Prefilter},
	PrefilterL3: {ebpf.AttachXDP: xdp.PrefilterL3},
	Accelerated: {ebpf.AttachXDP: xdp.Fast},
}

// hook is one side of a device.
type hook struct {
	name   string // in the pin's name
	attach ebpf.AttachType
}

var hooks = [...]hook{{"ingress", ebpf.AttachTCXIngress}, {"egress", ebpf.AttachTCXEgress}, {"xdp", ebpf.AttachXDP}}

// tcHooks are those where a clsact filter can take the place of a link.
var tcHooks = hooks[:2]

// program is the name of the program of a role on a hook, "" if there is none.
func (r Role) program(h hook) string { return programs[r][h.attach] }

// Attach puts the programs of a role onto a device, or makes sure that they are there in their newest form. An
// attached program is replaced without a gap.
func (l *Loader) Attach(r Role, ifindex int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == Accelerated {
		return l.accelerate(ifindex)
	}
	return l.attach(r, ifindex)
}

// AttachPod attaches to the host side of a workload's pair. Do it before the device is up.
func (l *Loader) AttachPod(ifindex int) error { return l.Attach(Pod, ifindex) }

// AttachOverlay attaches to the tunnel device.
func (l *Loader) AttachOverlay(ifindex int) error { return l.Attach(Overlay, ifindex) }

// AttachDevice attaches to an outside device.
func (l *Loader) AttachDevice(ifindex int) error { return l.Attach(Device, ifindex) }

func (l *Loader) attach(r Role, ifindex int) error {
	if l.progs == nil {
		return fmt.Errorf("attach %s programs to device %d: loader is closed", r, ifindex)
	}
	for _, h := range hooks {
		name := r.program(h)
		if name == "" {
			continue
		}
		prog := l.progs[name]
		if prog == nil {
			return fmt.Errorf("attach to device %d: there is no program %s", ifindex, name)
		}
		var err error
		if l.linkable(h) {
			err = l.attachDevice(r, ifindex, h, prog)
		} else {
			err = attachFilter(ifindex, h, name, prog)
		}
		if err != nil {
			return fmt.Errorf("attach %s to device %d: %w", name, ifindex, err)
		}
	}
	return nil
}

// Attached says what a device lacks of the programs of its role, nil if it has all, in their newest form.
func (l *Loader) Attached(r Role, ifindex int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hooks {
		name := r.program(h)
		if name == "" {
			continue
		}
		if l.linkable(h) {
			have, err := link.LoadPinnedLink(l.pin(r, ifindex, h), nil)
			if err != nil {
				return fmt.Errorf("program %s is not on device %d: %w", name, ifindex, err)
			}
			on, running := linked(have, ifindex)
			if err := have.Close(); err != nil {
				return err
			}
			if on != ifindex || running != l.ids[name] {
				return fmt.Errorf("program %s is not on device %d", name, ifindex)
			}
		} else if ok, err := filtered(ifindex, h, name); err != nil || !ok {
			return errors.Join(fmt.Errorf("program %s is not on device %d", name, ifindex), err)
		}
	}
	return nil
}

func (l *Loader) tcx() bool { return l.deps.Kernel.TCX && !l.cfg.Clsact }

// linkable says whether a hook takes a link, else a filter.
func (l *Loader) linkable(h hook) bool { return h.attach == ebpf.AttachXDP || l.tcx() }

func (l *Loader) pin(r Role, ifindex int, h hook) string {
	if r == Accelerated { // in the same place, so that one program takes the other's
		r = Prefilter
	}
	return filepath.Join(l.cfg.Links, fmt.Sprintf("%s-%d-%s", r, ifindex, h.name))
}

// attachDevice puts a program onto a hook of a device.
func (l *Loader) attachDevice(r Role, ifindex int, h hook, prog *ebpf.Program) error {
	return l.attachLink(l.pin(r, ifindex, h), prog, func(have link.Link) (bool, ebpf.ProgramID) {
		on, running := linked(have, ifindex)
		return on == ifindex, running
	}, func() (link.Link, error) { return l.newLink(r, ifindex, h, prog) })
}

// attachLink updates a pinned link, or makes one where there is none or it is not where it belongs: sits says that, and
// which program it runs.
func (l *Loader) attachLink(pin string, prog *ebpf.Program, sits func(link.Link) (bool, ebpf.ProgramID), make func() (link.Link, error)) error {
	have, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		if here, running := sits(have); here {
			if id := programID(prog); id == 0 || id != running {
				err = have.Update(prog)
			}
			return errors.Join(err, l.hold(pin, have))
		}
		if err := have.Close(); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		l.deps.Log.Warn("Replacing a pinned link that does not open", "pin", pin, "error", err)
	}
	// Closing would detach what is elsewhere too, but some time later.
	if err := unpinLink(pin); err != nil {
		return err
	}
	if ok, err := l.repin(pin, prog, sits); ok || err != nil {
		return err
	}
	next, err := make()
	if err != nil {
		return err
	}
	if err := next.Pin(pin); err != nil {
		return errors.Join(err, next.Close()) // closing detaches
	}
	return l.hold(pin, next)
}

// hold keeps a link open, besides its pin: should somebody remove the pin, the program stays until the link is pinned again.
func (l *Loader) hold(pin string, next link.Link) error {
	err := l.release(pin)
	l.held[pin] = next
	return err
}

// repin pins a link again that lives on without its pin, in its newest form.
func (l *Loader) repin(pin string, prog *ebpf.Program, sits func(link.Link) (bool, ebpf.ProgramID)) (done bool, err error) {
	have := l.held[pin]
	if have == nil {
		return false, nil
	}
	if here, _ := sits(have); !here {
		return false, l.release(pin)
	}
	info, err := have.Info()
	if err != nil {
		return false, err
	}
	again, err := link.NewFromID(info.ID) // the one that is held believes that it is pinned
	if err != nil {
		return false, err
	}
	if err := errors.Join(again.Update(prog), again.Pin(pin)); err != nil {
		return false, errors.Join(err, again.Close())
	}
	return true, l.hold(pin, again)
}

// release closes the link that is held for a pin.
func (l *Loader) release(pin string) error {
	have := l.held[pin]
	delete(l.held, pin)
	if have == nil {
		return nil
	}
	return have.Close()
}

// newLink attaches to a hook. What a workload sends into a netkit pair is judged while it is sent, before it is queued
// anywhere; what it receives passes the same hook as with veth.
func (l *Loader) newLink(r Role, ifindex int, h hook, prog *ebpf.Program) (link.Link, error) {
	if h.attach == ebpf.AttachXDP {
		return newXDP(ifindex, prog, l.xdpModes(r))
	}
	if r == Pod && h.attach == ebpf.AttachTCXIngress {
		dev, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			return nil, err
		}
		if dev.Type() == "netkit" {
			return link.AttachNetkit(link.NetkitOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachNetkitPeer, Anchor: link.Head()})
		}
	}
	return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: h.attach, Anchor: link.Head()})
}

// elsewhere is where a link sits that sits somewhere, but not on the expected device.
const elsewhere = -1

// linked is where a link sits (0 when its device is gone) and which program it runs. A netkit link tells the end
// inside the workload, by its number there: expected is the host side that it should belong to.
func linked(l link.Link, expected int) (ifindex int, prog ebpf.ProgramID) {
	info, err := l.Info()
	if err != nil {
		return 0, 0
	}
	if n := info.Netkit(); n != nil {
		if n.Ifindex == 0 {
			return 0, info.Program
		}
		dev, err := netlink.LinkByIndex(expected)
		if err != nil || dev.Type() != "netkit" || dev.Attrs().ParentIndex != int(n.Ifindex) {
			return elsewhere, info.Program
		}
		return expected, info.Program
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex), info.Program
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex), info.Program
	}
	if g := info.Cgroup(); g != nil && g.CgroupId != 0 {
		return elsewhere, info.Program
	}
	return 0, 0
}

// programIDs are the kernel's numbers of programs, by name. One that the kernel does not tell is missing.
func programIDs(progs map[string]*ebpf.Program) map[string]ebpf.ProgramID {
	ids := make(map[string]ebpf.ProgramID, len(progs))
	for name, p := range progs {
		if id := programID(p); id != 0 {
			ids[name] = id
		}
	}
	return ids
}

// programID is 0 where the kernel does not tell.
func programID(p *ebpf.Program) ebpf.ProgramID {
	info, err := p.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return id
}

func removePin(pin string) error {
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

// ErrInUse says that a workload's device still exists: without programs it would be an ordinary device that nobody
// polices, so it has to be deleted first.
var ErrInUse = errors.New("device still exists, delete it first")

// DetachPod forgets the attachment of a workload's device that has been deleted. Nothing attached is no error.
func (l *Loader) DetachPod(ifindex int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hooks {
		if have, err := link.LoadPinnedLink(l.pin(Pod, ifindex, h), nil); err == nil {
			on, _ := linked(have, ifindex)
			if err := have.Close(); err != nil {
				return err
			}
			if on != 0 {
				return fmt.Errorf("detach from device %d: %w", ifindex, ErrInUse)
			}
		}
	}
	if !l.tcx() {
		if dev, err := netlink.LinkByIndex(ifindex); err == nil {
			if roles, err := filterRoles(dev); err != nil || slices.Contains(roles, Pod) {
				return errors.Join(fmt.Errorf("detach from device %d: %w", ifindex, ErrInUse), err)
			}
		}
	}
	return l.detach(Pod, ifindex)
}

// DetachDevice takes the program off an outside device. Nothing attached is no error.
func (l *Loader) DetachDevice(ifindex int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.detach(Device, ifindex)
}

func (l *Loader) detach(r Role, ifindex int) error {
	var failed error
	for _, h := range hooks {
		if r.program(h) == "" {
			continue
		}
		failed = errors.Join(failed, unpinLink(l.pin(r, ifindex, h)), l.release(l.pin(r, ifindex, h)))
		if !l.linkable(h) {
			failed = errors.Join(failed, detachFilter(ifindex, h))
		}
	}
	return failed
}

// unpinLink detaches a pinned link, whoever else holds it, and removes its pin.
func unpinLink(pin string) error {
	have, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if d, ok := have.(interface{ Detach() error }); ok {
			if on, _ := linked(have, 0); on != 0 {
				err = d.Detach()
			}
		}
		err = errors.Join(err, have.Close())
	} else {
		err = nil // not a link: the pin goes
	}
	return errors.Join(err, removePin(pin))
}
