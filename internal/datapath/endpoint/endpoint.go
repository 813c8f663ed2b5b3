// Package endpoint writes the kernel's rows about local workloads and attaches programs to their devices. It implements
// what the attachment of workloads asks of the datapath; order and retries are its caller's.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Target is the datapath of workloads. All methods are idempotent.
type Target struct {
	Maps   *maps.Maps
	Loader *loader.Loader
}

// UpsertEndpoint writes the rows of endpoints_v1, one for each address. Where that changes who an address is, connections
// are judged again: those on record may be somebody else's who had it before.
func (t *Target) UpsertEndpoint(_ context.Context, e model.Endpoint) error {
	row, err := rowOf(&e)
	if err != nil {
		return fmt.Errorf("write endpoint %d: %w", e.ID, err)
	}
	changed := false
	for _, a := range e.Addrs() {
		row.NoMasq = e.IPv4NoMasq
		if a.Is6() {
			row.NoMasq = e.IPv6NoMasq
		}
		have, ok, err := t.Maps.Endpoint(a)
		if err == nil {
			err = t.Maps.PutEndpoint(a, row)
		}
		if err != nil {
			return fmt.Errorf("write endpoint %d: %w", e.ID, err)
		}
		changed = changed || !ok || have != row
	}
	if !changed {
		return nil
	}
	if err := t.Maps.BumpEpoch(); err != nil {
		return fmt.Errorf("write endpoint %d: %w", e.ID, err)
	}
	return nil
}

func rowOf(e *model.Endpoint) (maps.Endpoint, error) {
	row := maps.Endpoint{ID: e.ID, IfIndex: uint32(e.HostIfIndex), Identity: e.Identity, Set: model.SetID(e.PolicySet), Audit: e.Audit}
	for _, m := range []struct {
		text string
		to   *[6]byte
	}{{e.MAC, &row.MAC}, {e.HostMAC, &row.HostMAC}} {
		mac, err := net.ParseMAC(m.text)
		if err != nil || len(mac) != len(m.to) {
			return row, fmt.Errorf("MAC address %q: want six bytes", m.text)
		}
		copy(m.to[:], mac)
	}
	if e.ID == 0 || e.HostIfIndex <= 0 || e.PolicySet == 0 {
		return row, errors.New("it has no number, no device or no policy set yet")
	}
	return row, nil
}

// DeleteEndpoint removes the rows. Rows that are another endpoint's by now stay. Connections on record, which know the
// device, are judged again.
func (t *Target) DeleteEndpoint(_ context.Context, e model.Endpoint) error {
	var failed error
	for _, a := range e.Addrs() {
		failed = errors.Join(failed, t.Maps.DeleteEndpoint(a, e.ID))
	}
	return errors.Join(failed, t.Maps.BumpEpoch())
}

// Attach puts the programs on the host side, or brings those that are there up to date.
func (t *Target) Attach(_ context.Context, e model.Endpoint) error {
	return t.Loader.AttachPod(e.HostIfIndex)
}

// Verify says what is missing of what UpsertEndpoint and Attach made; nil if nothing is.
func (t *Target) Verify(_ context.Context, e model.Endpoint) error {
	want, err := rowOf(&e)
	if err != nil {
		return err
	}
	for _, a := range e.Addrs() {
		if have, ok, err := t.Maps.Endpoint(a); err != nil {
			return err
		} else if !ok || have.ID != want.ID || have.IfIndex != want.IfIndex {
			return fmt.Errorf("the kernel's row of %s is not the endpoint's", a)
		}
	}
	return t.Loader.Attached(loader.Pod, e.HostIfIndex)
}

// Detach removes what Attach left. It is called when the device is gone.
func (t *Target) Detach(_ context.Context, e model.Endpoint) error {
	return t.Loader.DetachPod(e.HostIfIndex)
}

// Prune removes rows and pins of endpoints that are not in keep. Rows of those that are stay as they are.
func (t *Target) Prune(_ context.Context, keep []model.Endpoint) error {
	want := map[netip.Addr]uint16{}
	for i := range keep {
		for _, a := range keep[i].Addrs() {
			want[a] = keep[i].ID
		}
	}
	rows, err := t.Maps.Endpoints()
	pruned := false
	for a, row := range rows {
		if id, ok := want[a]; !ok || id != row.ID {
			err, pruned = errors.Join(err, t.Maps.DeleteEndpoint(a, row.ID)), true
		}
	}
	if pruned {
		err = errors.Join(err, t.Maps.BumpEpoch())
	}
	// Devices that exist keep their programs; this forgets those that do not.
	return errors.Join(err, t.Loader.Prune(func(loader.Attachment) bool { return true }))
}
