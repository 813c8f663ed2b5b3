// Package prefilter brings a list of denied sources into the kernel: their rows, and the XDP program that reads them onto the
// outside devices. A device has one such program. Where services are accelerated it does both and is always there, else only while
// there is something to deny.
package prefilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/datapath/device"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Deps are what a target needs from others.
type Deps struct {
	Maps   *maps.Maps
	Loader *loader.Loader
}

// Config says what the programs do besides.
type Config struct {
	Fast loader.Fast // how services are accelerated
}

// Target is the kernel's side of the list. It is for one caller at a time.
type Target struct {
	cfg  Config
	deps Deps
	rows *rows            // in the kernel; nil: they have to be read
	idle bool             // nothing is attached, for sure
	slow map[string]error // devices that do not accelerate, and why
}

type rows struct {
	revision uint64
	deny     []netip.Prefix
}

// New makes a target; what is in the kernel stays until Sync.
func New(cfg Config, deps Deps) *Target { return &Target{cfg: cfg, deps: deps} }

// Held is what the kernel has by now: the revision, 0 if there never was one, and the sources in order.
func (t *Target) Held() (revision uint64, deny []netip.Prefix, err error) {
	s, err := t.deps.Maps.DeniedState()
	if err != nil {
		return 0, nil, err
	}
	deny, err = t.deps.Maps.Denied()
	return s.Revision, model.SortCIDRs(deny), err
}

// Fits says whether the kernel has room for a list; the error is maps.ErrFull.
func (t *Target) Fits(deny []netip.Prefix) error {
	exact := 0
	for _, p := range deny {
		if p.IsSingleIP() {
			exact++
		}
	}
	for what, n := range map[string]int{"addresses": exact, "prefixes": len(deny) - exact} {
		if n > maps.DeniedMost {
			return fmt.Errorf("%w: %d %s, there is room for %d", maps.ErrFull, n, what, maps.DeniedMost)
		}
	}
	return nil
}

// Slow are the devices of the last Sync that do not accelerate services, by name, and why.
func (t *Target) Slow() map[string]error { return t.slow }

// Sync makes the kernel hold this list, sorted, and nothing else, and puts the program onto the devices that there are; takes it
// off all of them when it has nothing to do. What is so already costs no more than a look at each device. After an error the next
// call goes on. A device that cannot accelerate services is no error.
func (t *Target) Sync(revision uint64, deny []netip.Prefix, devices []device.Device) error {
	if err := t.write(revision, deny); err != nil {
		return err
	}
	if len(deny) == 0 && t.cfg.Fast == loader.FastOff {
		devices = nil
		if t.idle {
			return nil
		}
	}
	err := t.attach(devices, len(deny) > 0)
	t.idle = err == nil && len(devices) == 0
	return err
}

// write brings the rows up to date.
func (t *Target) write(revision uint64, deny []netip.Prefix) error {
	if t.rows == nil {
		held, have, err := t.Held()
		if err != nil {
			return err
		}
		t.rows = &rows{held, have}
	}
	gone, come := model.DiffCIDRs(t.rows.deny, deny)
	if len(gone)+len(come) == 0 && t.rows.revision == revision {
		return nil
	}
	t.rows = nil
	err := t.deps.Maps.Deny(deny, gone, come)
	if err == nil {
		err = t.deps.Maps.PutDeniedState(maps.DeniedState{Revision: revision, Prefix4: prefixes(deny, false), Prefix6: prefixes(deny, true)})
	}
	if err == nil {
		t.rows = &rows{revision, deny}
	}
	return err
}

// prefixes says whether there are prefixes of an IP version that are more than one address.
func prefixes(deny []netip.Prefix, v6 bool) bool {
	return slices.ContainsFunc(deny, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Addr().Is6() == v6 })
}

// attach puts the programs onto these devices, and off all others.
func (t *Target) attach(devices []device.Device, denied bool) (failed error) {
	want, fast := map[int]bool{}, map[uint32]bool{}
	t.slow = map[string]error{}
	for _, d := range devices {
		if t.cfg.Fast != loader.FastOff {
			err := t.accelerate(d)
			if err == nil {
				want[d.Index], fast[uint32(d.Index)] = true, true
				continue
			}
			t.slow[d.Name] = err
		}
		if !denied {
			continue
		}
		want[d.Index] = true
		if err := t.deps.Loader.Attach(role(d), d.Index); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", d.Name, err))
		}
	}
	return errors.Join(failed, t.open(fast), t.deps.Loader.Prune(func(a loader.Attachment) bool {
		return !filters(a.Role) || want[a.IfIndex]
	}))
}

// What a device may be that accelerates nothing.
var (
	errHeadless = errors.New("it has no link layer")
	errTagged   = errors.New("there are VLANs on it, whose tags its driver may hide from XDP")
)

func (t *Target) accelerate(d device.Device) error {
	switch {
	case d.L3:
		return errHeadless
	case d.Tagged:
		return errTagged
	}
	return t.deps.Loader.Attach(loader.Accelerated, d.Index)
}

// open lets XDP send by these devices, and no others.
func (t *Target) open(devices map[uint32]bool) error {
	have, err := t.deps.Maps.XDPDevices()
	for _, d := range have {
		if !devices[d] {
			err = errors.Join(err, t.deps.Maps.DeleteXDPDevice(d))
		}
	}
	for d := range devices {
		if !slices.Contains(have, d) {
			err = errors.Join(err, t.deps.Maps.PutXDPDevice(d))
		}
	}
	return err
}

func role(d device.Device) loader.Role {
	if d.L3 {
		return loader.PrefilterL3
	}
	return loader.Prefilter
}

// filters says whether a role's program denies sources.
func filters(r loader.Role) bool {
	return r == loader.Prefilter || r == loader.PrefilterL3 || r == loader.Accelerated
}
