package kvstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// Errors of Allocate and Release.
var (
	ErrLabels    = errors.New("labels cannot have an identity")
	ErrExhausted = errors.New("all identities of the cluster are in use")
	ErrNotHeld   = errors.New("identity is not held by this node")
)

// Moved says that labels this node uses got another number.
type Moved = state.Moved

// Identities is what numbers label sets have in the cluster. The protocol is in claim.go.
type Identities struct {
	s        *Store
	f        *follower[model.IdentityID, model.Identity]
	min, max model.IdentityID
	moved    chan Moved

	mu     sync.Mutex
	refs   map[string]*idRef // held by this node, by labels
	byID   map[model.IdentityID]*idRef
	known  map[string]model.IdentityID // what the table says, by labels
	names  map[model.IdentityID]string // its inverse
	taking map[model.IdentityID]int    // numbers on their way to the store
}

// idRef is an identity this node holds. Fields but n do not change once done is closed, except id under mu.
type idRef struct {
	key    string // labels
	labels model.Labels
	n      int // users
	done   chan struct{}
	id     model.IdentityID
	err    error
}

func newIdentities(s *Store) *Identities {
	d := &Identities{
		s: s, min: model.IdentityClusterMin, max: model.IdentityClusterMax, moved: make(chan Moved, 4096),
		refs: map[string]*idRef{}, byID: map[model.IdentityID]*idRef{},
		known: map[string]model.IdentityID{}, names: map[model.IdentityID]string{}, taking: map[model.IdentityID]int{},
	}
	if s.cfg.ClusterID > 0 {
		d.min = model.IdentityID(s.cfg.ClusterID) << 16
		d.max = d.min + 1<<16 - 1
	}
	d.f = &follower[model.IdentityID, model.Identity]{
		s: s, prefix: identityMaster, cache: "identities.json",
		tab:   table.New[model.IdentityID, model.Identity]("identities", table.Uint[model.IdentityID]),
		rowOf: func(v model.Identity) model.IdentityID { return v.ID },
		parse: d.parse,
		after: d.after,
	}
	d.f.load()
	for id, v := range d.f.tab.Snapshot().All() {
		d.note(v.Labels.Key(), id)
	}
	return d
}

func (d *Identities) run(ctx context.Context) { d.f.run(ctx) }

// Table holds the identities that the cluster has handed out; reserved ones are not in it.
func (d *Identities) Table() *table.Table[model.IdentityID, model.Identity] { return d.f.tab }

// Moved reports numbers that changed under a user's feet; see Moved. Users must replace Old by New everywhere.
func (d *Identities) Moved() <-chan Moved { return d.moved }

// Allocate returns the number of a label set, in the whole cluster the same, and holds it until as many calls of Release.
// isNew says that the number did not exist before. While the store is away, labels whose number is known still get it,
// others ErrUnreachable.
func (d *Identities) Allocate(ctx context.Context, labels model.Labels) (id model.IdentityID, isNew bool, err error) {
	return d.AllocateHint(ctx, labels, 0)
}

// AllocateHint is Allocate that prefers a number, the one these labels had before a restart, in case the store has
// forgotten them. 0 is no preference.
func (d *Identities) AllocateHint(ctx context.Context, labels model.Labels, hint model.IdentityID) (id model.IdentityID, isNew bool, err error) {
	key := labels.Key()
	if err := checkLabels(labels, key); err != nil {
		return 0, false, fmt.Errorf("allocate identity: %w", err)
	}
	for {
		d.mu.Lock()
		r := d.refs[key]
		if r == nil {
			r = &idRef{key: key, labels: labels, n: 1, done: make(chan struct{})}
			d.refs[key] = r
			d.mu.Unlock()
			isNew := d.obtain(ctx, r, hint)
			if r.err != nil {
				return 0, false, fmt.Errorf("allocate identity for %s: %w", key, r.err)
			}
			return d.current(r), isNew, nil
		}
		r.n++
		d.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			d.release(r)
			return 0, false, fmt.Errorf("allocate identity for %s: %w", key, ctx.Err())
		}
		if r.err == nil {
			return d.current(r), false, nil
		}
		if ctx.Err() != nil || !errors.Is(r.err, context.Canceled) {
			return 0, false, fmt.Errorf("allocate identity for %s: %w", key, r.err)
		}
		// Whoever asked first gave up; ask ourselves.
	}
}

func (d *Identities) current(r *idRef) model.IdentityID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.id
}

// obtain gets the number of a new reference, or removes the reference.
func (d *Identities) obtain(ctx context.Context, r *idRef, hint model.IdentityID) (isNew bool) {
	d.mu.Lock()
	if k, ok := d.known[r.key]; ok {
		hint = k
	}
	d.mu.Unlock()
	rctx, cancel := d.s.request(ctx)
	defer cancel()
	var lease clientv3.LeaseID
	var id model.IdentityID
	stored, err := d.s.leases.expect(rctx, d.useKey(r.key))
	if err == nil {
		defer stored()
		if lease, err = d.s.leases.current(rctx); err == nil {
			id, isNew, err = d.claim(rctx, r.key, hint, lease)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(r.done)
	if err != nil {
		err = wrap(ctx, "ask the store", err)
		k, ok := d.known[r.key]
		if !ok || !errors.Is(err, ErrUnreachable) {
			r.err = err
			delete(d.refs, r.key)
			return false
		}
		id, lease, isNew = k, 0, false // it is ours to use; the store hears of it when it is back
	}
	r.id = id
	d.note(r.key, id)
	d.byID[id] = r
	d.s.leases.keep(d.useKey(r.key), lease, func(ctx context.Context, lease clientv3.LeaseID) error { return d.ensure(ctx, r, lease) })
	return isNew
}

// ensure writes again that this node uses an identity, and the identity itself should the store have lost it.
func (d *Identities) ensure(ctx context.Context, r *idRef, lease clientv3.LeaseID) error {
	old := d.current(r)
	rctx, cancel := d.s.request(ctx)
	defer cancel()
	id, _, err := d.claim(rctx, r.key, old, lease)
	if err != nil {
		return wrap(ctx, "hold identity", err)
	}
	if id == old {
		return nil
	}
	d.mu.Lock()
	if d.byID[old] == r {
		delete(d.byID, old)
	}
	r.id = id
	d.byID[id] = r
	d.note(r.key, id)
	d.mu.Unlock()
	d.s.log.Error("identity was collected while this node was cut off, its labels have another number now",
		"labels", r.key, "old", uint32(old), "new", uint32(id))
	select {
	case d.moved <- Moved{Labels: r.labels, Old: old, New: id}:
	case <-ctx.Done():
	}
	return nil
}

// Release gives back one use of a number. The last one lets the cluster collect it, some time later.
func (d *Identities) Release(id model.IdentityID) error {
	d.mu.Lock()
	r := d.byID[id]
	d.mu.Unlock()
	if r == nil {
		return fmt.Errorf("release identity %d: %w", id, ErrNotHeld)
	}
	d.release(r)
	return nil
}

func (d *Identities) release(r *idRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.n--; r.n > 0 || d.refs[r.key] != r {
		return
	}
	select {
	case <-r.done:
	default: // still being obtained: its own caller holds it
		return
	}
	delete(d.refs, r.key)
	if d.byID[r.id] == r {
		delete(d.byID, r.id)
	}
	d.s.leases.drop(d.useKey(r.key))
}

func (d *Identities) useKey(labels string) string { return useKey(d.s.cfg.NodeName, labels) }

func (d *Identities) parse(key string, value []byte) (model.IdentityID, model.Identity, bool, error) {
	id, ok := parseID(key)
	if !ok {
		return 0, model.Identity{}, false, fmt.Errorf("identity %q: not a number", key)
	}
	if id < d.min || id > d.max {
		return 0, model.Identity{}, false, fmt.Errorf("identity %d: outside this cluster's range", id)
	}
	labels, err := parseLabels(string(value))
	if err != nil {
		return 0, model.Identity{}, false, fmt.Errorf("identity %d: %w", id, err)
	}
	return id, model.Identity{ID: id, Labels: labels}, true, nil
}

// after keeps known in step with the table, and has identities written again that this node uses and the store lost.
func (d *Identities) after(batch []Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range batch {
		if e.Kind == EventSynced {
			clear(d.known)
			clear(d.names)
			for id, v := range d.f.tab.Snapshot().All() {
				d.note(v.Labels.Key(), id)
			}
			for key, r := range d.refs {
				if r.id != 0 {
					d.note(key, r.id)
				}
			}
			continue
		}
		id, ok := parseID(e.Key[len(identityMaster):])
		if !ok {
			continue
		}
		r := d.byID[id]
		if e.Kind == EventPut {
			if r == nil || r.key != string(e.Value) {
				if _, ok := d.f.tab.Get(id); ok {
					d.note(string(e.Value), id)
				}
			}
			continue
		}
		if r != nil {
			d.s.leases.keep(d.useKey(r.key), 0, func(ctx context.Context, lease clientv3.LeaseID) error { return d.ensure(ctx, r, lease) })
			continue
		}
		if key := d.names[id]; d.known[key] == id {
			delete(d.known, key)
		}
		delete(d.names, id)
	}
}

// note remembers a number; mu is held.
func (d *Identities) note(labels string, id model.IdentityID) {
	d.known[labels], d.names[id] = id, labels
}

// checkLabels refuses label sets whose canonical form is not theirs alone: with it, somebody could take the identity of
// others (a value of "x;k8s:admin=true", say).
func checkLabels(labels model.Labels, key string) error {
	if len(labels) == 0 {
		return fmt.Errorf("%w: there are none", ErrLabels)
	}
	back, err := parseLabels(key)
	if err != nil || !back.Equal(labels) {
		return fmt.Errorf("%w: %q: not in canonical form", ErrLabels, key)
	}
	if len(key) > 16<<10 {
		return fmt.Errorf("%w: longer than 16 KiB together", ErrLabels)
	}
	for _, l := range labels {
		if strings.ContainsFunc(l.String(), func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) {
			return fmt.Errorf("%w: %q: control characters", ErrLabels, l)
		}
	}
	return nil
}

// parseLabels is the inverse of Labels.Key.
func parseLabels(key string) (model.Labels, error) {
	body, ok := strings.CutSuffix(key, ";")
	if !ok {
		return nil, fmt.Errorf("labels %q: do not end in a semicolon", key)
	}
	var ls []model.Label
	for part := range strings.SplitSeq(body, ";") {
		l, err := model.ParseLabel(part, "")
		if err != nil {
			return nil, err
		}
		ls = append(ls, l)
	}
	out := model.NewLabels(ls...)
	if out.Key() != key {
		return nil, fmt.Errorf("labels %q: not in canonical form", key)
	}
	return out, nil
}
