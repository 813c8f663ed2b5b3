package endpoint

import (
	"context"
	"errors"

	"github.com/hypha-net/hypha/internal/model"
)

// verify looks whether somebody took away what running workloads need on the node: device, routes, programs, kernel rows.
// Run mends what it finds; until then the endpoint says that it is not ready.
func (m *Manager) verify(ctx context.Context) {
	var specs []LinkSpec
	var rows []model.Endpoint
	for _, row := range m.tab.Snapshot().All() {
		if row.State == model.EndpointReady {
			rows = append(rows, row)
			specs = append(specs, LinkSpec{HostIfName: row.HostIfName, Addrs: row.Addrs()})
		}
	}
	if len(rows) == 0 {
		return
	}
	wrong, err := m.deps.Links.Verify(ctx, specs)
	if err != nil {
		m.log.Debug("the node's devices could not be looked at", "error", err)
	}
	for _, row := range rows {
		err := wrong[row.HostIfName]
		if err == nil {
			err = m.deps.Datapath.Verify(ctx, row)
		}
		if err != nil && ctx.Err() == nil {
			m.damaged(ctx, row, err)
		}
	}
}

// damaged has an endpoint mended, unless it is on its way out or somebody is at it already.
func (m *Manager) damaged(ctx context.Context, row model.Endpoint, what error) {
	k := Key{row.ContainerID, row.IfName}
	_, end, err := m.begin(ctx, k)
	if err != nil {
		return // whoever is at it knows better; the next look comes soon
	}
	defer end()
	e := m.lookup(k)
	now, ok := m.tab.Get(row.ID)
	if e == nil || e.id != row.ID || e.phase != phaseReady || e.redo || !ok || now.HostIfIndex != row.HostIfIndex {
		return
	}
	m.log.Warn("workload's attachment was damaged from outside, mending it", "endpoint", row.ID, "attachment", k.String(), "error", what)
	m.journal.fail(row.ID, model.EndpointRegenerating, what)
	m.setState(row.ID, model.EndpointRegenerating)
	if !errors.Is(what, ErrNoDevice) {
		// At once: a device without its programs is one that nobody polices, and what follows may wait for the store.
		if err := m.deps.Datapath.Attach(ctx, row); err != nil {
			m.log.Error("programs are not back on a workload's device", "endpoint", row.ID, "error", err)
		}
	}
	e.redo, e.relink = true, errors.Is(what, ErrNoDevice)
	m.again(k)
}

// relink makes the device pair again that somebody deleted. The row gets its new index; addresses and MAC stay.
func (m *Manager) relink(ctx context.Context, e *entry, row *model.Endpoint) error {
	spec := m.linkSpec(e)
	spec.MAC = row.MAC
	made, err := m.deps.Links.Create(ctx, spec)
	if err != nil {
		return err
	}
	old := *row
	row.HostIfIndex, row.MAC, row.HostMAC = made.HostIfIndex, made.MAC, made.HostMAC
	m.setRow(e.id, func(r *model.Endpoint) { r.HostIfIndex, r.MAC, r.HostMAC = made.HostIfIndex, made.MAC, made.HostMAC })
	e.relink = false
	return m.deps.Datapath.Detach(ctx, old) // what is left of the old device
}
