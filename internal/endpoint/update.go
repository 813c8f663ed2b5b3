package endpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

// Change is what may change about a workload while it runs.
type Change struct {
	Labels       []string // "[source:]key[=value]", in place of all the workload's own; nil: as they are
	AddLabels    []string // "[source:]key[=value]"; replaces the value of the same key
	DeleteLabels []string // "[source:]key[=value]"; must be there
	Audit        *bool    // nil: as it is
}

// Update changes labels and audit mode. The policy of the new labels is in force before the workload has them, and
// then it has them at once: no packet sees a mixture. After an error everything is as before.
func (m *Manager) Update(ctx context.Context, id uint16, c Change) (model.Endpoint, error) {
	old, ok := m.tab.Get(id)
	if !ok {
		return model.Endpoint{}, fmt.Errorf("endpoint %d: %w", id, ErrNotFound)
	}
	ctx, end, err := m.beginFor(ctx, Key{old.ContainerID, old.IfName}, m.cfg.Timeout+m.cfg.Grace) // what waits is no work
	if err != nil {
		return model.Endpoint{}, fmt.Errorf("update endpoint %d: %w", id, err)
	}
	defer end()
	e := m.lookup(Key{old.ContainerID, old.IfName})
	if e == nil || e.id != id || e.phase == phaseDeleting {
		return model.Endpoint{}, fmt.Errorf("endpoint %d: %w", id, ErrNotFound)
	}
	if e.phase == phaseAdopted || e.redo {
		if err := m.regenerate(ctx, e); err != nil {
			return model.Endpoint{}, fmt.Errorf("update endpoint %d: %w", id, err)
		}
	}
	old, _ = m.tab.Get(id)
	labels := own(old.Labels)
	if c.Labels != nil {
		labels, err = parseLabels(c.Labels)
	}
	if err == nil {
		labels, err = change(labels, c.AddLabels, c.DeleteLabels)
	}
	if err != nil {
		return model.Endpoint{}, fmt.Errorf("update endpoint %d: %w", id, err)
	}
	want := old
	want.Labels = m.resolve(old.Namespace, old.Name, labels, old.Labels)
	if c.Audit != nil {
		want.Audit = *c.Audit
	}
	if want.Labels.Equal(old.Labels) && want.Audit == old.Audit {
		return old, nil
	}
	if err := m.replace(ctx, e, old, want); err != nil {
		return model.Endpoint{}, fmt.Errorf("update endpoint %d: %w", id, err)
	}
	row, _ := m.tab.Get(id)
	return row, nil
}

// replace takes a running workload from one row to another, or back if that fails.
func (m *Manager) replace(ctx context.Context, e *entry, old, want model.Endpoint) (err error) {
	if want.Identity, err = m.deps.Identities.Allocate(ctx, want.Labels, 0); err != nil {
		return fmt.Errorf("allocate identity: %w", err)
	}
	e.held = append(e.held, want.Identity)
	if want.Identity != old.Identity { // other nodes refuse an identity that they do not expect: they are to know of it first
		if err = m.publish(ctx, want); err == nil {
			err = pause(ctx, m.cfg.Grace)
		}
	}
	if err == nil {
		err = m.enforce(ctx, e, want)
	}
	if err == nil {
		err = m.save(e)
	}
	if err == nil {
		m.releaseOld(e)
		m.journal.note(e.id, model.EndpointReady, "labels %v, audit %v", want.Labels.Strings(), want.Audit)
		return nil
	}
	m.journal.fail(e.id, old.State, err)
	after, cancel := m.aftermath(ctx)
	defer cancel()
	if back := m.revert(after, e, old); back != nil {
		// The row says what was and is to be again; Run brings it about. Both identities stay held until then.
		m.setRow(e.id, func(r *model.Endpoint) {
			r.Labels, r.Identity, r.Audit, r.State = old.Labels, old.Identity, old.Audit, model.EndpointRegenerating
		})
		e.redo = true
		m.again(e.key)
		return errors.Join(err, fmt.Errorf("undo: %w", back))
	}
	last := len(e.held) - 1
	e.held = e.held[:last:last]
	m.deps.Identities.Release(want.Identity)
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (m *Manager) revert(ctx context.Context, e *entry, old model.Endpoint) error {
	if err := m.enforce(ctx, e, old); err != nil {
		return err
	}
	if err := m.publish(ctx, old); err != nil {
		return err
	}
	return m.save(e)
}

// regenerate brings about what the row of an entry says: identity, policy, programs, publication. It is how a workload
// found at start is taken over; until it succeeds, the kernel goes on as before.
func (m *Manager) regenerate(ctx context.Context, e *entry) error {
	row, ok := m.tab.Get(e.id)
	if !ok {
		return fmt.Errorf("endpoint %d: %w", e.id, ErrNotFound)
	}
	if e.relink {
		if err := m.relink(ctx, e, &row); err != nil {
			return fmt.Errorf("make its device again: %w", err)
		}
	}
	identity, err := m.deps.Identities.Allocate(ctx, row.Labels, e.hint)
	if err != nil {
		return fmt.Errorf("allocate identity: %w", err)
	}
	e.held = append(e.held, identity)
	row.Identity = identity
	if err := m.enforce(ctx, e, row); err != nil {
		return err
	}
	m.releaseOld(e)
	if err := m.deps.Datapath.Attach(ctx, row); err != nil {
		return fmt.Errorf("attach programs: %w", err)
	}
	if err := m.publish(ctx, row); err != nil {
		return err
	}
	if err := m.deps.Links.Up(ctx, m.linkSpec(e)); err != nil {
		return fmt.Errorf("bring link up: %w", err)
	}
	if err := m.save(e); err != nil {
		return err
	}
	e.phase, e.redo, e.told = phaseReady, false, ""
	m.setState(e.id, model.EndpointReady)
	m.journal.note(e.id, model.EndpointReady, "regenerated")
	return nil
}

func (m *Manager) publish(ctx context.Context, row model.Endpoint) error {
	if err := m.deps.Publisher.Publish(ctx, row); err != nil {
		return fmt.Errorf("publish addresses: %w", err)
	}
	return nil
}

// releaseOld lets go of every identity of an entry but the one in force.
func (m *Manager) releaseOld(e *entry) {
	last := len(e.held) - 1
	for _, id := range e.held[:last] {
		m.deps.Identities.Release(id)
	}
	e.held = e.held[last:]
}
