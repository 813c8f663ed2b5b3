package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// StoredPolicy is one imported policy: the importer chooses its key, Import sets its revision.
type StoredPolicy = state.Policy

// PolicySnapshot is what was imported, as of exactly one revision.
type PolicySnapshot = state.PolicySnapshot

const policyCache = "policy.json"

type policyFile struct {
	Revision uint64         `json:"revision"`
	Policies []StoredPolicy `json:"policies"`
}

// Policies is what has been imported. How it is written is in policywrite.go.
type Policies struct {
	s      *Store
	tab    *table.Table[string, StoredPolicy]
	synced chan struct{}
	// unsaved is why the file for the next start could not be written.
	unsaved *fault.Fault

	mu    sync.Mutex
	state *policyState // as reported; only follow's goroutine writes it
	cur   PolicySnapshot
}

func newPolicies(s *Store) *Policies {
	p := &Policies{
		s: s, tab: table.New[string, StoredPolicy]("policies", table.String), synced: make(chan struct{}),
		state: newPolicyState(), cur: PolicySnapshot{Superseded: make(chan struct{})},
		unsaved: fault.New(s.log, "policy not cached: it will be missing if the agent starts without the store", "policy cached again"),
	}
	var last policyFile
	if err := file.ReadJSON(p.path(), &last); err == nil {
		p.publish(last.Revision, index(last.Policies), false)
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cached policy not used", "err", err)
	}
	return p
}

func (p *Policies) path() string { return filepath.Join(p.s.cfg.Paths.State, policyCache) }

func index(ps []StoredPolicy) map[string]StoredPolicy {
	m := make(map[string]StoredPolicy, len(ps))
	for _, sp := range ps {
		m[sp.Key] = sp
	}
	return m
}

// Table holds the policies by key. Use Snapshot to know their revision.
func (p *Policies) Table() *table.Table[string, StoredPolicy] { return p.tab }

// Snapshot is the current state, rows and revision of one moment.
func (p *Policies) Snapshot() PolicySnapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur
}

// WaitRevision waits until this agent has seen at least a revision.
func (p *Policies) WaitRevision(ctx context.Context, rev uint64) error {
	return state.WaitRevision(ctx, p.Snapshot, rev)
}

func (p *Policies) run(ctx context.Context) {
	p.s.wg.Go(func() { p.save(ctx) })
	p.s.follow(ctx, policyRoot, func(batch []Event) { p.apply(ctx, batch) })
}

func (p *Policies) apply(ctx context.Context, batch []Event) {
	first := false
	for _, e := range batch {
		switch e.Kind {
		case EventSynced:
			first = true
		case EventPut:
			if err := p.state.put(e.Key, e.Value, e.Revision); err != nil {
				p.s.log.Error("kvstore holds something unreadable, keeping the policy known before", "key", e.Key, "err", err)
			}
		case EventDelete:
			p.state.remove(e.Key)
		}
	}
	complete := first || p.Snapshot().Complete
	if cur := p.Snapshot(); !p.state.exists && cur.Revision > 0 {
		// Revisions only grow: without one, this is a store that has lost its data. Enforce what was in force, and
		// give it back to the store; the first agent to do so wins.
		p.s.log.Warn("kvstore has lost the policies, restoring them", "revision", cur.Revision, "policies", cur.Policies.Len())
		p.publish(cur.Revision, maps.Collect(cur.Policies.All()), complete)
		p.s.wg.Go(func() { p.restore(ctx, cur) })
	} else if rules, err := p.state.effective(); err != nil {
		p.s.log.Error("kvstore holds an incomplete policy change, keeping the policy known before", "err", err)
	} else {
		p.publish(p.state.revision, rules, complete)
	}
	if first {
		close(p.synced)
	}
}

// publish makes rules current.
func (p *Policies) publish(rev uint64, rules map[string]StoredPolicy, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := rev != p.cur.Revision || complete != p.cur.Complete
	p.tab.Update(func(x *table.Txn[string, StoredPolicy]) {
		if table.Replace(x, rules, func(a, b StoredPolicy) bool { return reflect.DeepEqual(a, b) }) {
			changed = true
		}
	})
	if complete {
		p.tab.SetComplete()
	}
	if !changed {
		return
	}
	close(p.cur.Superseded)
	p.cur = PolicySnapshot{Revision: rev, Policies: p.tab.Snapshot(), Complete: complete, Superseded: make(chan struct{}), Heard: time.Now()}
}

// rows are the policies of a snapshot, by key.
func rows(s table.Snapshot[string, StoredPolicy]) []StoredPolicy {
	out := make([]StoredPolicy, 0, s.Len())
	for _, v := range s.All() {
		out = append(out, v)
	}
	return out
}

// save keeps the file for the next start up to date: soon, since a policy must not be forgotten.
func (p *Policies) save(ctx context.Context) {
	snap := p.Snapshot()
	saved := snap.Revision
	for {
		var again <-chan time.Time // the disk did not take it
		if snap.Revision != saved {
			again = time.After(p.s.cfg.Retry)
		}
		select {
		case <-snap.Changed():
			sleep(ctx, 20*time.Millisecond)
		case <-again:
		case <-ctx.Done():
		}
		if snap = p.Snapshot(); snap.Revision != saved {
			err := file.WriteJSON(p.path(), policyFile{snap.Revision, rows(snap.Policies)}, 0o600)
			if p.unsaved.Note(err); err == nil {
				saved = snap.Revision
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// checkPolicies refuses what cannot be stored.
func checkPolicies(ps []StoredPolicy) error {
	seen := make(map[string]bool, len(ps))
	for _, sp := range ps {
		switch {
		case sp.Key == "" || len(sp.Key) > 1024 || strings.ContainsFunc(sp.Key, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("policy key %q: must be 1 to 1024 bytes without control characters", sp.Key)
		case seen[sp.Key]:
			return fmt.Errorf("policy key %q: given twice", sp.Key)
		case !json.Valid(sp.Raw):
			return fmt.Errorf("policy %q: not valid JSON", sp.Key)
		case len(sp.Raw) > maxRequest/2:
			return fmt.Errorf("policy %q: %d bytes; at most %d fit into the store", sp.Key, len(sp.Raw), maxRequest/2)
		}
		seen[sp.Key] = true
	}
	return nil
}
