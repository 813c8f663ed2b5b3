package endpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/paths"
)

// Delete detaches a workload; found says whether there was one. Detaching what is not attached is no error. After an
// error the workload is unreachable, and Run goes on removing what is left of it.
func (m *Manager) Delete(ctx context.Context, k Key) (found bool, err error) {
	if err := (&Spec{ContainerID: k.ContainerID, IfName: k.IfName}).checkKey(); err != nil {
		return false, err
	}
	ctx, end, err := m.begin(ctx, k)
	if err != nil {
		return false, fmt.Errorf("detach %s: %w", k, err)
	}
	defer end()
	e := m.lookup(k)
	if e != nil {
		if err := m.remove(ctx, e); err != nil {
			return true, fmt.Errorf("detach %s: %w", k, err)
		}
	}
	if err := pending.Remove(m.cfg.Paths.PendingDel(), k.ContainerID, k.IfName); err != nil {
		return e != nil, fmt.Errorf("detach %s: %w", k, err)
	}
	return e != nil, nil
}

// DeleteID detaches the workload with this number; one that is not there is no error.
func (m *Manager) DeleteID(ctx context.Context, id uint16) (found bool, err error) {
	row, ok := m.tab.Get(id)
	if !ok {
		return false, nil
	}
	return m.Delete(ctx, Key{row.ContainerID, row.IfName})
}

// Sweep detaches what belongs to a CNI network and is not in valid, and returns what it detached. A failure with
// one does not keep it from the others.
func (m *Manager) Sweep(ctx context.Context, network string, valid []Key) (deleted []Key, err error) {
	m.mu.Lock()
	if !m.restored {
		m.mu.Unlock()
		return nil, ErrNotReady
	}
	var stale []*entry
	for k, e := range m.entries {
		if e.spec.Network == network && !slices.Contains(valid, k) {
			stale = append(stale, e)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(stale, func(a, b *entry) int { return int(a.id) - int(b.id) })
	for _, e := range stale {
		if one := m.sweep(ctx, e); one != nil {
			err = errors.Join(err, fmt.Errorf("detach %s: %w", e.key, one))
			continue
		}
		deleted = append(deleted, e.key)
	}
	return deleted, err
}

// sweep removes one entry unless another has taken its place meanwhile.
func (m *Manager) sweep(ctx context.Context, e *entry) error {
	ctx, end, err := m.begin(ctx, e.key)
	if err != nil {
		return err
	}
	defer end()
	if m.lookup(e.key) != e {
		return nil
	}
	return m.remove(ctx, e)
}

// remove undoes everything that was begun for an entry, whose lock is held. What fails stays noted, and the entry with
// it, for Run to try again. The device goes before its programs, and the addresses are free only when all is gone.
func (m *Manager) remove(ctx context.Context, e *entry) error {
	e.phase = phaseDeleting
	row, inTable := m.tab.Get(e.id)
	if inTable {
		if row.State != model.EndpointDisconnected {
			m.journal.note(e.id, model.EndpointDisconnected, "detaching")
		}
		m.setState(e.id, model.EndpointDisconnected)
	} else {
		row = model.Endpoint{ID: e.id, IPv4: e.v4, IPv6: e.v6, ContainerID: e.key.ContainerID, IfName: e.key.IfName,
			HostIfName: paths.HostIf(e.key.ContainerID, e.key.IfName)}
	}
	if err := m.undo(ctx, e, row); err != nil {
		m.journal.fail(e.id, model.EndpointDisconnected, err)
		m.again(e.key)
		return err
	}
	m.tab.Delete(e.id)
	if e.policy {
		m.deps.Policy.Forget(e.id)
	}
	for _, id := range e.held {
		m.deps.Identities.Release(id)
	}
	for _, a := range e.addrs() {
		m.deps.IPAM.Release(a)
	}
	m.mu.Lock()
	delete(m.entries, e.key)
	m.ids.give(e.id)
	m.mu.Unlock()
	m.journal.forget(e.id)
	return nil
}

func (m *Manager) undo(ctx context.Context, e *entry, row model.Endpoint) error {
	if e.saved {
		if err := m.deps.Store.Remove(e.id); err != nil {
			// The workload goes all the same: after a restart it is taken for one whose device is gone.
			m.log.Warn("state file stays behind for now", "endpoint", e.id, "error", err)
		} else {
			e.saved = false
		}
	}
	if e.public {
		m.deps.Publisher.Withdraw(row)
		e.public = false
	}
	if e.policy {
		if err := m.deps.Datapath.DeleteEndpoint(ctx, row); err != nil {
			return fmt.Errorf("delete endpoint rows: %w", err)
		}
	}
	if e.link {
		if err := m.deps.Links.Delete(ctx, row.HostIfName); err != nil {
			return fmt.Errorf("delete device pair: %w", err)
		}
		e.link = false
	}
	if e.attached {
		if err := m.deps.Datapath.Detach(ctx, row); err != nil {
			return fmt.Errorf("detach programs: %w", err)
		}
		e.attached = false
	}
	if e.saved {
		return m.deps.Store.Remove(e.id)
	}
	return nil
}
