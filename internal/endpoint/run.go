package endpoint

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/model"
)

const (
	workers  = 8
	maxPause = 15 * time.Second
)

// Run takes over what Restore found, finishes what could not be finished at once, and looks for notes of the CNI
// plugin. It works until ctx ends and returns nil then. Workloads stay attached.
func (m *Manager) Run(ctx context.Context) error {
	pause, verified := m.cfg.Retry, m.deps.Now()
	for ctx.Err() == nil {
		if now := m.deps.Now(); now.Sub(verified) >= m.cfg.Verify {
			m.verify(ctx)
			verified = now
		}
		left := m.finishPending(ctx)
		left = m.round(ctx) || left
		wait, wake := m.cfg.Poll, m.wake
		if left {
			wait, wake = pause, nil // what fails at once is not to be tried at once
			pause = min(2*pause, maxPause)
		} else {
			pause = m.cfg.Retry
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-wake:
		}
		t.Stop()
	}
	return nil
}

// round looks once after everything that needs it, several attachments at a time, and says whether some is left.
func (m *Manager) round(ctx context.Context) (left bool) {
	m.mu.Lock()
	keys := make(chan Key, len(m.todo))
	for k := range m.todo {
		keys <- k
	}
	m.mu.Unlock()
	close(keys)
	var wg sync.WaitGroup
	for range min(workers, len(keys)) {
		wg.Go(func() {
			for k := range keys {
				if ctx.Err() != nil {
					return
				}
				_ = m.mend(ctx, k) // told there; it stays in todo
			}
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.todo) > 0
}

// mend brings one attachment to where it should be. A failure is logged once, not at every try.
func (m *Manager) mend(ctx context.Context, k Key) error {
	ctx, end, err := m.begin(ctx, k)
	if err != nil {
		return err
	}
	defer end()
	if e := m.lookup(k); e != nil {
		switch {
		case e.phase == phaseDeleting:
			err = m.remove(ctx, e)
		case e.phase == phaseAdopted || e.redo:
			if err = m.regenerate(ctx, e); err != nil {
				row, _ := m.tab.Get(e.id)
				m.journal.fail(e.id, row.State, err)
			}
		}
		if err != nil {
			if text := err.Error(); text != e.told && ctx.Err() == nil {
				e.told = text
				m.log.Warn("endpoint is not as it should be, trying again", "attachment", k.String(), "error", err)
			}
			return fmt.Errorf("endpoint %d: %w", e.id, err)
		}
	}
	m.mu.Lock()
	delete(m.todo, k)
	m.mu.Unlock()
	return nil
}

// Renumber gives every endpoint with this identity the number that its labels have now: the store gave the old one to
// other labels. The work is Run's.
func (m *Manager) Renumber(ctx context.Context, old model.IdentityID) {
	for _, row := range m.tab.Snapshot().All() {
		if row.Identity != old {
			continue
		}
		k := Key{row.ContainerID, row.IfName}
		_, end, err := m.begin(ctx, k)
		if err != nil {
			m.log.Error("endpoint keeps an identity that is no longer its own", "attachment", k.String(), "error", err)
			continue
		}
		if e := m.lookup(k); e != nil && e.phase != phaseDeleting {
			e.redo = true
		}
		end()
		m.again(k)
	}
}
