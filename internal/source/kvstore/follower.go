package kvstore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"time"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/table"
)

// follower brings what is under a prefix into a table, and keeps a copy of the table in a file for the next start.
type follower[K comparable, V any] struct {
	s      *Store
	prefix string
	cache  string // file name in the state directory
	tab    *table.Table[K, V]
	synced chan struct{} // closed when the table is complete
	// unsaved is why the file could not be written.
	unsaved *fault.Fault

	// parse reads one key (without the prefix) and value. Without error and not ok: none of the table's business.
	parse func(key string, value []byte) (k K, v V, ok bool, err error)
	rowOf func(V) K
	// cached, where set, completes a row read from the file.
	cached func(V) V
	// after runs behind every batch, in order, once the table holds it.
	after func(batch []Event)

	keys map[string]K // etcd key -> row, as reported
}

const cacheDelay = 2 * time.Second // changes that come together are written together

// load fills the table from the file that the last run left. The table stays incomplete.
func (f *follower[K, V]) load() {
	f.keys, f.synced = map[string]K{}, make(chan struct{})
	f.unsaved = fault.New(f.s.log, "cluster state not cached", "cluster state cached again")
	var rows []V
	if err := file.ReadJSON(f.path(), &rows); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.s.log.Warn("cached cluster state not used", "err", err)
		}
		return
	}
	f.tab.Update(func(x *table.Txn[K, V]) {
		for _, v := range rows {
			if f.cached != nil {
				v = f.cached(v)
			}
			x.Set(f.rowOf(v), v)
		}
	})
}

func (f *follower[K, V]) path() string { return filepath.Join(f.s.cfg.Paths.State, f.cache) }

func (f *follower[K, V]) run(ctx context.Context) {
	f.s.wg.Go(func() { f.save(ctx) })
	f.s.follow(ctx, f.prefix, f.apply)
}

func (f *follower[K, V]) apply(batch []Event) {
	synced := false
	f.tab.Update(func(x *table.Txn[K, V]) {
		for _, e := range batch {
			switch e.Kind {
			case EventSynced:
				synced = true
				f.sweep(x)
			case EventDelete:
				f.remove(x, e.Key)
			case EventPut:
				k, v, ok, err := f.parse(e.Key[len(f.prefix):], e.Value)
				if err != nil {
					f.s.log.Warn("kvstore holds something unreadable", "key", e.Key, "err", err)
				}
				if err != nil || !ok {
					f.remove(x, e.Key)
					continue
				}
				if old, had := f.keys[e.Key]; had && old != k {
					x.Delete(old)
				}
				f.keys[e.Key] = k
				if old, had := x.Get(k); !had || !reflect.DeepEqual(old, v) {
					x.Set(k, v)
				}
			}
		}
	})
	if synced {
		f.tab.SetComplete()
	}
	if f.after != nil {
		f.after(batch)
	}
	if synced {
		close(f.synced)
	}
}

func (f *follower[K, V]) remove(x *table.Txn[K, V], key string) {
	if k, ok := f.keys[key]; ok {
		delete(f.keys, key)
		x.Delete(k)
	}
}

// sweep removes the rows of the last run that the store did not report.
func (f *follower[K, V]) sweep(x *table.Txn[K, V]) {
	reported := make(map[K]bool, len(f.keys))
	for _, k := range f.keys {
		reported[k] = true
	}
	var old []K
	for k := range x.All() {
		if !reported[k] {
			old = append(old, k)
		}
	}
	for _, k := range old {
		x.Delete(k)
	}
}

// save writes the table to its file some time after each change, and at the end.
func (f *follower[K, V]) save(ctx context.Context) {
	snap := f.tab.Snapshot()
	saved := snap.Revision()
	for {
		var again <-chan time.Time // the disk did not take it
		if snap.Revision() != saved {
			again = time.After(f.s.cfg.Retry)
		}
		select {
		case <-snap.Changed():
			sleep(ctx, cacheDelay)
		case <-again:
		case <-ctx.Done():
		}
		if snap = f.tab.Snapshot(); snap.Revision() != saved {
			rows := make([]V, 0, snap.Len())
			for _, v := range snap.All() {
				rows = append(rows, v)
			}
			err := file.ReplaceJSON(f.path(), rows, 0o600)
			if f.unsaved.Note(err, "prefix", f.prefix); err == nil {
				saved = snap.Revision()
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}
