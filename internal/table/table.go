// Package table holds rows in memory: typed tables with immutable snapshots and a signal on change. Sources write,
// control reads and writes, datapath reads; they meet here and nowhere else. All methods are safe for concurrent use.
// A row must not be changed once it is in.
package table

import (
	"cmp"
	"iter"
	"slices"
	"sync"

	"github.com/tidwall/btree"
)

// Table maps keys to rows in key order. The zero value is not usable: see New.
type Table[K, V any] struct {
	name string

	mu       sync.RWMutex
	tree     *tree[K, V] // not written any more: the next change writes a copy, which shares with it what stays as it is
	rev      uint64
	changed  chan struct{} // closed at the next change
	complete bool
	log      []change[K] // the newest changes, oldest first
	floor    uint64      // revision of the newest change that the log has no more
}

// change is a row that was set or deleted.
type change[K any] struct {
	rev uint64
	key K
}

// entry is a key with its row. Rows are behind a pointer, so that a copy of a part of the tree is small.
type entry[K, V any] struct {
	key K
	row *V
}

type tree[K, V any] = btree.BTreeG[entry[K, V]]

// degree of the trees: half as many rows as this, and up to twice as many, are copied at each level for one write.
const degree = 16

// New makes an empty, incomplete table in the order of compare.
func New[K, V any](name string, compare func(a, b K) int) *Table[K, V] {
	less := func(a, b entry[K, V]) bool { return compare(a.key, b.key) < 0 }
	return &Table[K, V]{name: name, changed: make(chan struct{}),
		tree: btree.NewBTreeGOptions(less, btree.Options{Degree: degree, NoLocks: true})}
}

// Name is the table's name, for messages.
func (t *Table[K, V]) Name() string { return t.name }

// Set inserts or replaces a row and returns what was there.
func (t *Table[K, V]) Set(k K, v V) (old V, existed bool) {
	t.Update(func(x *Txn[K, V]) { old, existed = x.set(k, v) })
	return old, existed
}

// Delete removes a row and returns it.
func (t *Table[K, V]) Delete(k K) (old V, existed bool) {
	t.Update(func(x *Txn[K, V]) { old, existed = x.remove(k) })
	return old, existed
}

// Txn is a set of writes that readers see together or not at all.
type Txn[K, V any] struct {
	was, tree *tree[K, V] // tree is was until something is written
	keys      []K         // written
}

// Update runs fn on a transaction and publishes it as one change. fn must not use the table otherwise.
func (t *Table[K, V]) Update(fn func(*Txn[K, V])) {
	t.mu.Lock()
	defer t.mu.Unlock()
	txn := &Txn[K, V]{was: t.tree, tree: t.tree}
	fn(txn)
	if len(txn.keys) > 0 {
		t.tree = txn.tree
		t.bump(txn.keys...)
	}
}

func (x *Txn[K, V]) writable() *tree[K, V] {
	if x.tree == x.was {
		x.tree = x.was.Copy()
	}
	return x.tree
}

// Set inserts or replaces a row.
func (x *Txn[K, V]) Set(k K, v V) { x.set(k, v) }

func (x *Txn[K, V]) set(k K, v V) (old V, existed bool) {
	prev, existed := x.writable().Set(entry[K, V]{k, &v})
	x.keys = append(x.keys, k)
	if existed {
		old = *prev.row
	}
	return old, existed
}

// Delete removes a row.
func (x *Txn[K, V]) Delete(k K) { x.remove(k) }

func (x *Txn[K, V]) remove(k K) (old V, existed bool) {
	if old, existed = x.Get(k); existed { // else nothing is to be copied
		x.writable().Delete(entry[K, V]{key: k})
		x.keys = append(x.keys, k)
	}
	return old, existed
}

// Get reads inside the transaction.
func (x *Txn[K, V]) Get(k K) (V, bool) { return get(x.tree, k) }

// All walks the transaction's own state in key order; rows must not be written meanwhile.
func (x *Txn[K, V]) All() iter.Seq2[K, V] { return walk(x.tree) }

// Replace makes these rows all there are, and says whether that changed anything. Rows that are equal stay as they are.
func Replace[K comparable, V any](x *Txn[K, V], rows map[K]V, equal func(a, b V) bool) (changed bool) {
	var gone []K
	for k := range x.All() {
		if _, ok := rows[k]; !ok {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		x.Delete(k)
		changed = true
	}
	for k, v := range rows {
		if old, ok := x.Get(k); !ok || !equal(old, v) {
			x.Set(k, v)
			changed = true
		}
	}
	return changed
}

// SetComplete says that the source has delivered everything it had at start: only now may a reader conclude from an
// absent row that it does not exist.
func (t *Table[K, V]) SetComplete() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.complete {
		t.complete = true
		t.bump()
	}
}

// bump ends a change of these rows.
func (t *Table[K, V]) bump(keys ...K) {
	t.rev++
	if room := max(logFloor, t.tree.Len()/4); len(keys) > room {
		t.log, t.floor = nil, t.rev
	} else {
		for _, k := range keys {
			t.log = append(t.log, change[K]{t.rev, k})
		}
		if len(t.log) > 2*room {
			old := len(t.log) - room
			t.floor = t.log[old-1].rev
			t.log = slices.Clone(t.log[old:])
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// logFloor is how many changes are remembered at least. A reader that is further behind than a part of the table may as
// well look at all of it.
const logFloor = 256

// Since returns the keys of the rows that were set or deleted after a revision, some perhaps more than once. ok is false
// when that is too long ago to tell.
func (t *Table[K, V]) Since(rev uint64) (keys []K, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if rev < t.floor {
		return nil, false
	}
	from, _ := slices.BinarySearchFunc(t.log, rev+1, func(c change[K], rev uint64) int { return cmp.Compare(c.rev, rev) })
	for _, c := range t.log[from:] {
		keys = append(keys, c.key)
	}
	return keys, true
}

// Get returns one row.
func (t *Table[K, V]) Get(k K) (V, bool) { return t.Snapshot().Get(k) }

// Snapshot is the table as it is now; later writes do not show in it. It costs nothing.
func (t *Table[K, V]) Snapshot() Snapshot[K, V] {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return Snapshot[K, V]{tree: t.tree, rev: t.rev, complete: t.complete, changed: t.changed}
}

// Snapshot is an immutable view of a table. The zero value is that of an empty one.
type Snapshot[K, V any] struct {
	tree     *tree[K, V]
	rev      uint64
	complete bool
	changed  chan struct{}
}

// Get returns one row.
func (s Snapshot[K, V]) Get(k K) (row V, ok bool) {
	if s.tree == nil {
		return row, false
	}
	return get(s.tree, k)
}

// Ref is one row where the table has it, for who keeps it along with the table; nil: there is none. Nobody may change it.
func (s Snapshot[K, V]) Ref(k K) *V {
	if s.tree == nil {
		return nil
	}
	e, _ := s.tree.Get(entry[K, V]{key: k})
	return e.row
}

// Len is the number of rows.
func (s Snapshot[K, V]) Len() int {
	if s.tree == nil {
		return 0
	}
	return s.tree.Len()
}

// Revision counts the table's changes up to this snapshot.
func (s Snapshot[K, V]) Revision() uint64 { return s.rev }

// Complete says whether SetComplete had been called.
func (s Snapshot[K, V]) Complete() bool { return s.complete }

// Changed is closed once the table differs from this snapshot.
func (s Snapshot[K, V]) Changed() <-chan struct{} { return s.changed }

// All walks the rows in key order.
func (s Snapshot[K, V]) All() iter.Seq2[K, V] {
	if s.tree == nil {
		return func(func(K, V) bool) {}
	}
	return walk(s.tree)
}

func get[K, V any](t *tree[K, V], k K) (row V, ok bool) {
	e, ok := t.Get(entry[K, V]{key: k})
	if ok {
		row = *e.row
	}
	return row, ok
}

func walk[K, V any](t *tree[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		t.Scan(func(e entry[K, V]) bool { return yield(e.key, *e.row) })
	}
}
