package fake

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/model"
)

// Kernel is a copy of what the kernel holds.
type Kernel struct {
	Devices []string
	Rows    map[string]Row
	Pins    map[uint16]int
}

// Snapshot copies what the kernel holds.
func (w *World) Snapshot() Kernel {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := Kernel{Rows: map[string]Row{}, Pins: maps.Clone(w.Pins)}
	for _, d := range w.Devices {
		k.Devices = append(k.Devices, fmt.Sprint(d))
	}
	slices.Sort(k.Devices)
	for a, r := range w.Rows {
		k.Rows[a.String()] = r
	}
	return k
}

// RemoveDevice takes a device away behind the agent's back.
func (w *World) RemoveDevice(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.Devices, host)
}

// Compare says what on the node is not exactly what these ready endpoints need, "" if nothing.
func (w *World) Compare(rows []model.Endpoint, records []endpoint.Record) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	saved := map[uint16]endpoint.Record{}
	for _, r := range records {
		saved[r.Endpoint.ID] = r
	}
	addrs, refs := map[netip.Addr]bool{}, map[model.IdentityID]int{}
	for _, e := range rows {
		d, ok := w.Devices[e.HostIfName]
		switch {
		case e.State != model.EndpointReady:
			return fmt.Sprintf("endpoint %d is %s", e.ID, e.State)
		case !ok || !d.Up || d.HostIfIndex != e.HostIfIndex:
			return fmt.Sprintf("endpoint %d: device %+v", e.ID, d)
		case w.Pins[e.ID] != e.HostIfIndex:
			return fmt.Sprintf("endpoint %d: programs on %d, not %d", e.ID, w.Pins[e.ID], e.HostIfIndex)
		case w.Known[e.ID] != e.Identity:
			return fmt.Sprintf("endpoint %d: policy of identity %d, not %d", e.ID, w.Known[e.ID], e.Identity)
		case e.PolicySet != uint32(w.set(e.Identity)):
			return fmt.Sprintf("endpoint %d: set %d, not %d", e.ID, e.PolicySet, w.set(e.Identity))
		case w.numbers[e.Labels.Key()] != e.Identity:
			return fmt.Sprintf("endpoint %d: identity %d is not that of %v", e.ID, e.Identity, e.Labels)
		case !saved[e.ID].Endpoint.Labels.Equal(e.Labels) || saved[e.ID].Endpoint.Identity != e.Identity || saved[e.ID].Endpoint.Audit != e.Audit:
			return fmt.Sprintf("endpoint %d: state file has %+v", e.ID, saved[e.ID].Endpoint)
		}
		refs[e.Identity]++
		for _, a := range e.Addrs() {
			want := Row{ID: e.ID, IfIndex: e.HostIfIndex, Identity: e.Identity, Set: model.SetID(e.PolicySet), Audit: e.Audit}
			if w.Rows[a] != want || w.Published[a] != e.Identity || w.Taken[a] == "" || addrs[a] {
				return fmt.Sprintf("endpoint %d: %s: row %+v, published as %d, taken by %q", e.ID, a, w.Rows[a], w.Published[a], w.Taken[a])
			}
			addrs[a] = true
		}
	}
	if n := len(rows); len(w.Devices) != n || len(w.Pins) != n || len(w.Known) != n || len(saved) != n ||
		len(w.Rows) != len(addrs) || len(w.Published) != len(addrs) || len(w.Taken) != len(addrs) || !maps.Equal(w.Refs, refs) {
		return fmt.Sprintf("left over: devices %v, pins %v, policy %v, files %d, rows %v, published %v, addresses %v, identities %v, want %v",
			w.Devices, w.Pins, w.Known, len(saved), w.Rows, w.Published, w.Taken, w.Refs, refs)
	}
	return ""
}
