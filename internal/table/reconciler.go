package table

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"
)

// Target is what a reconciler brings in line with a table: a set of kernel objects.
type Target[K comparable, V any] interface {
	// Update creates or changes the object of one row. It must be idempotent.
	Update(ctx context.Context, k K, v V) error
	// Delete removes the object of a row that is gone. An object that is not there is no error.
	Delete(ctx context.Context, k K) error
	// Prune removes what no row asks for. It is called only with a complete table.
	Prune(ctx context.Context, want map[K]V) error
}

// Looker is a Target that reads the kernel once for each round of updates, deletions and pruning, instead of for each row.
type Looker interface {
	Look(ctx context.Context) error
}

// Row is a key with its row.
type Row[K comparable, V any] struct {
	Key K
	Row V
}

// Batcher is a Target that brings many rows into force at less cost together than one by one.
type Batcher[K comparable, V any] interface {
	// UpdateAll is Update of all these rows. It says of each that failed why; the others are in force.
	UpdateAll(ctx context.Context, rows []Row[K, V]) map[K]error
}

// Reconciler keeps a target as a table wants it: changes at once, failures again after a pause that doubles, everything
// afresh every Config.Full. Nothing is deleted before the table is complete.
type Reconciler[K comparable, V any] struct {
	cfg    Config
	tab    *Table[K, V]
	target Target[K, V]

	mu     sync.Mutex
	seen   Snapshot[K, V] // as last worked through: its rows are in force, but those that are late
	left   map[K]V        // rows in force that are gone from a table that is not complete
	late   map[K]error    // rows that failed, and why
	pruned bool
	pErr   error // of pruning
	lErr   error // of looking
}

// Config tunes a reconciler; zero values mean the defaults.
type Config struct {
	RetryMin time.Duration // 50 ms
	RetryMax time.Duration // 10 s
	Full     time.Duration // 1 min: prune and update every row, repairing what others changed
}

// NewReconciler makes one; Run starts it.
func NewReconciler[K comparable, V any](cfg Config, tab *Table[K, V], target Target[K, V]) *Reconciler[K, V] {
	if cfg.RetryMin == 0 {
		cfg.RetryMin = 50 * time.Millisecond
	}
	if cfg.RetryMax == 0 {
		cfg.RetryMax = 10 * time.Second
	}
	if cfg.Full == 0 {
		cfg.Full = time.Minute
	}
	return &Reconciler[K, V]{cfg: cfg, tab: tab, target: target, left: map[K]V{}, late: map[K]error{}}
}

// Run works until ctx ends and returns nil then.
func (r *Reconciler[K, V]) Run(ctx context.Context) error {
	wait := r.cfg.RetryMin
	full := time.NewTicker(r.cfg.Full)
	defer full.Stop()
	all := false
	for {
		snap := r.tab.Snapshot()
		err := r.round(ctx, snap, all)
		all = false
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(wait)
			wait = min(2*wait, r.cfg.RetryMax)
		} else {
			wait = r.cfg.RetryMin
		}
		select {
		case <-ctx.Done():
			return nil
		case <-snap.Changed():
		case <-retry:
		case <-full.C:
			all = true
		}
	}
}

func (r *Reconciler[K, V]) round(ctx context.Context, snap Snapshot[K, V], all bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := r.due(snap, all)
	prune := snap.Complete() && (!r.pruned || all)
	if l, ok := r.target.(Looker); ok && (len(keys) > 0 || prune) {
		if r.lErr = l.Look(ctx); r.lErr != nil {
			return fmt.Errorf("%s: %w", r.tab.name, r.lErr)
		}
	}
	failed := r.settle(ctx, snap, keys, all)
	if prune {
		want := make(map[K]V, snap.Len())
		maps.Insert(want, snap.All())
		if r.pErr = r.target.Prune(ctx, want); r.pErr != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: prune: %w", r.tab.name, r.pErr))
		} else {
			r.pruned = true
		}
	}
	r.seen = snap
	return failed
}

// done is the row that is known to be in force.
func (r *Reconciler[K, V]) done(k K) (row V, ok bool) {
	if r.late[k] != nil {
		return row, false
	}
	if row, ok = r.left[k]; ok {
		return row, true
	}
	return r.seen.Get(k)
}

// due are the rows to be looked at: what has changed and what failed, or all there are and were.
func (r *Reconciler[K, V]) due(snap Snapshot[K, V], all bool) (keys []K) {
	changed, ok := r.tab.Since(r.seen.Revision())
	if ok && !all && r.seen.Complete() == snap.Complete() {
		seen := make(map[K]bool, len(changed)+len(r.late))
		for _, k := range changed {
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
		for k := range r.late {
			if !seen[k] {
				keys = append(keys, k)
			}
		}
		return keys
	}
	for k := range snap.All() {
		keys = append(keys, k)
	}
	for k := range r.seen.All() {
		if _, ok := snap.Get(k); !ok {
			keys = append(keys, k)
		}
	}
	other := func(k K) {
		_, ok := snap.Get(k)
		if _, was := r.seen.Get(k); !ok && !was {
			keys = append(keys, k)
		}
	}
	for k := range r.left {
		other(k)
	}
	for k := range r.late {
		other(k)
	}
	return keys
}

// settle brings the objects of rows in line, in this order. Afterwards seen is to be snap.
func (r *Reconciler[K, V]) settle(ctx context.Context, snap Snapshot[K, V], keys []K, all bool) (failed error) {
	var rows []Row[K, V] // that wait for a deletion or the end
	for i, k := range keys {
		v, ok := snap.Get(k)
		old, done := r.done(k)
		switch {
		case ok && done && !all && reflect.DeepEqual(old, v):
			delete(r.left, k)
		case ok:
			if rows == nil {
				rows = make([]Row[K, V], 0, len(keys)-i)
			}
			rows = append(rows, Row[K, V]{k, v})
		case snap.Complete() && (done || r.late[k] != nil): // an update that failed may have left something, too
			failed = errors.Join(failed, r.update(ctx, rows), r.remove(ctx, k))
			rows = nil
		case done:
			r.left[k] = old
		}
	}
	return errors.Join(failed, r.update(ctx, rows))
}

func (r *Reconciler[K, V]) update(ctx context.Context, rows []Row[K, V]) (failed error) {
	batch, ok := r.target.(Batcher[K, V])
	var errs map[K]error
	if ok && len(rows) > 0 {
		errs = batch.UpdateAll(ctx, rows)
	}
	for _, row := range rows {
		err := errs[row.Key]
		if !ok {
			err = r.target.Update(ctx, row.Key, row.Row)
		}
		if err != nil {
			r.late[row.Key] = err
			failed = errors.Join(failed, fmt.Errorf("%s: update %v: %w", r.tab.name, row.Key, err))
		} else {
			delete(r.late, row.Key)
		}
		delete(r.left, row.Key)
	}
	return failed
}

func (r *Reconciler[K, V]) remove(ctx context.Context, k K) error {
	delete(r.left, k)
	if err := r.target.Delete(ctx, k); err != nil {
		r.late[k] = err
		return fmt.Errorf("%s: delete %v: %w", r.tab.name, k, err)
	}
	delete(r.late, k)
	return nil
}

// Err joins the failures that stand now, nil if the target is as wanted.
func (r *Reconciler[K, V]) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.Join(r.pErr, r.lErr)
	for k, why := range r.late {
		err = errors.Join(err, fmt.Errorf("%s %v: %w", r.tab.name, k, why))
	}
	return err
}

// Revision is the table revision last worked through, failures included.
func (r *Reconciler[K, V]) Revision() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Revision()
}
