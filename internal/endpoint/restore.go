package endpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
)

// Restore finds again what a former agent left. Workloads with a state file and a device keep running as they are, and
// Run confirms them; devices without a file, files without a device, and kernel rows without either are removed. It
// comes once, before anything else, and needs no cluster store. After an error nothing is known and the agent must not go on.
func (m *Manager) Restore(ctx context.Context) error {
	records, damaged, err := m.deps.Store.Load()
	if err != nil {
		return fmt.Errorf("restore endpoints: %w", err)
	}
	if damaged != nil {
		m.log.Error("state of a workload is damaged, its device is removed; start the workload again", "error", damaged)
	}
	links, err := m.deps.Links.List(ctx)
	if err != nil {
		return fmt.Errorf("restore endpoints: list devices: %w", err)
	}
	orphans := make(map[string]Link, len(links))
	for _, l := range links {
		orphans[l.HostIfName] = l
	}
	var rows []model.Endpoint
	for _, r := range records {
		l, ok := orphans[r.Endpoint.HostIfName]
		if ok {
			err = m.adopt(ctx, r, l)
		} else {
			err = errors.New("its device is gone")
		}
		if err != nil {
			m.log.Warn("workload is not there any more", "endpoint", r.Endpoint.ID, "attachment", r.Spec.Key().String(), "reason", err)
			if err := m.deps.Store.Remove(r.Endpoint.ID); err != nil {
				m.log.Warn("state file stays behind", "error", err)
			}
			continue
		}
		delete(orphans, r.Endpoint.HostIfName)
		rows = append(rows, m.adopted(r.Endpoint))
	}
	for name := range orphans { // devices before programs
		if err := m.deps.Links.Delete(ctx, name); err != nil {
			return fmt.Errorf("restore endpoints: delete device %s that nobody knows: %w", name, err)
		}
		m.log.Info("removed a device that no workload's state knows", "device", name)
	}
	if err := m.deps.Datapath.Prune(ctx, rows); err != nil {
		return fmt.Errorf("restore endpoints: prune kernel rows: %w", err)
	}
	m.publishRows(rows)
	m.finishPending(ctx)
	m.log.Info("endpoints restored", "count", len(rows), "orphans", len(orphans))
	return nil
}

// adopt takes over an endpoint whose device is there.
func (m *Manager) adopt(ctx context.Context, r Record, l Link) error {
	row := &r.Endpoint
	k := r.Spec.Key()
	if l.HostIfIndex != row.HostIfIndex || l.HostMAC != "" && l.HostMAC != row.HostMAC {
		return errors.New("its device is another one of the same name")
	}
	m.mu.Lock()
	free := m.entries[k] == nil && m.ids.claim(row.ID)
	if free {
		m.entries[k] = &entry{
			key: k, spec: r.Spec, id: row.ID, v4: row.IPv4, v6: row.IPv6,
			link: true, policy: true, attached: true, public: true, saved: true, phase: phaseAdopted,
		}
		if m.adopted(*row).Labels.Equal(row.Labels) { // else today's configuration makes other labels of them
			m.entries[k].hint = row.Identity
		}
		m.todo[k] = true
	}
	m.mu.Unlock()
	if !free {
		return errors.New("another endpoint has its number or its attachment")
	}
	for _, a := range row.Addrs() {
		if err := m.deps.IPAM.Keep(row.Namespace+"/"+row.Name, a); err != nil {
			// Better an address outside of the node's range than a workload cut off because the range is not known yet.
			m.log.Warn("address of a running workload could not be reserved", "endpoint", row.ID, "address", a, "error", err)
		}
	}
	m.journal.note(row.ID, model.EndpointRegenerating, "found at start")
	return nil
}

// adopted is the row of an endpoint found at start: its labels as today's configuration has them, its policy unconfirmed.
func (m *Manager) adopted(row model.Endpoint) model.Endpoint {
	row.Labels = m.resolve(row.Namespace, row.Name, own(row.Labels), row.Labels)
	row.PolicySet, row.PolicyRev, row.State = 0, 0, model.EndpointRegenerating
	return row
}

func (m *Manager) publishRows(rows []model.Endpoint) {
	for _, r := range rows {
		m.tab.Set(r.ID, r)
	}
	m.tab.SetComplete()
	m.mu.Lock()
	m.restored = true
	m.mu.Unlock()
}

// finishPending does what DELs asked for that came while no agent ran.
func (m *Manager) finishPending(ctx context.Context) (left bool) {
	notes, err := pending.List(m.cfg.Paths.PendingDel())
	if err != nil {
		m.log.Warn("notes of the CNI plugin cannot be read", "error", err)
	}
	for _, n := range notes {
		k := Key{n.ContainerID, n.IfName}
		found, err := m.Delete(ctx, k)
		switch {
		case errors.Is(err, ErrInvalid): // not from our plugin
			m.log.Warn("note of a pending delete makes no sense", "error", err)
			err = pending.Remove(m.cfg.Paths.PendingDel(), n.ContainerID, n.IfName)
		case err == nil:
			m.log.Info("finished a delete that came while the agent was down", "attachment", k.String(), "found", found)
		}
		if err != nil {
			m.log.Warn("pending delete could not be finished, trying again", "attachment", k.String(), "error", err)
			left = true
		}
	}
	return left
}
