// Package table holds rows in memory: typed tables with immutable snapshots and a signal on change. Sources write,
// control reads and writes, datapath reads; they meet here and nowhere else. All methods are safe for concurrent use.
// A row must not be changed once it is in.
package table

import (
	"iter"
	"sync"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Table maps keys to rows in key order. The zero value is not usable: see New.
type Table[K, V any] struct {
	name   string
	encode func(K) []byte

	mu       sync.RWMutex
	tree     *iradix.Tree[entry[K, V]]
	rev      uint64
	changed  chan struct{} // closed at the next change
	complete bool
}

type entry[K, V any] struct {
	key K
	row V
}

// New makes an empty, incomplete table. encode must give different keys different bytes; their order is the table's.
func New[K, V any](name string, encode func(K) []byte) *Table[K, V] {
	return &Table[K, V]{name: name, encode: encode, tree: iradix.New[entry[K, V]](), changed: make(chan struct{})}
}

// Name is the table's name, for messages.
func (t *Table[K, V]) Name() string { return t.name }

// Set inserts or replaces a row and returns what was there.
func (t *Table[K, V]) Set(k K, v V) (old V, existed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tree, prev, existed := t.tree.Insert(t.encode(k), entry[K, V]{k, v})
	t.tree = tree
	t.bump()
	return prev.row, existed
}

// Delete removes a row and returns it.
func (t *Table[K, V]) Delete(k K) (old V, existed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tree, prev, existed := t.tree.Delete(t.encode(k))
	if existed {
		t.tree = tree
		t.bump()
	}
	return prev.row, existed
}

// Txn is a set of writes that readers see together or not at all.
type Txn[K, V any] struct {
	t   *Table[K, V]
	txn *iradix.Txn[entry[K, V]]
	n   int
}

// Update runs fn on a transaction and publishes it as one change. fn must not use the table otherwise.
func (t *Table[K, V]) Update(fn func(*Txn[K, V])) {
	t.mu.Lock()
	defer t.mu.Unlock()
	txn := &Txn[K, V]{t: t, txn: t.tree.Txn()}
	fn(txn)
	if txn.n > 0 {
		t.tree = txn.txn.Commit()
		t.bump()
	}
}

// Set inserts or replaces a row.
func (x *Txn[K, V]) Set(k K, v V) { x.txn.Insert(x.t.encode(k), entry[K, V]{k, v}); x.n++ }

// Delete removes a row.
func (x *Txn[K, V]) Delete(k K) {
	if _, ok := x.txn.Delete(x.t.encode(k)); ok {
		x.n++
	}
}

// Get reads inside the transaction.
func (x *Txn[K, V]) Get(k K) (V, bool) { e, ok := x.txn.Get(x.t.encode(k)); return e.row, ok }

// All walks the transaction's own state in key order; rows must not be written meanwhile.
func (x *Txn[K, V]) All() iter.Seq2[K, V] { return walk(x.txn.Root()) }

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

func (t *Table[K, V]) bump() {
	t.rev++
	close(t.changed)
	t.changed = make(chan struct{})
}

// Get returns one row.
func (t *Table[K, V]) Get(k K) (V, bool) { return t.Snapshot().Get(k) }

// Snapshot is the table as it is now; later writes do not show in it. It costs nothing.
func (t *Table[K, V]) Snapshot() Snapshot[K, V] {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return Snapshot[K, V]{tree: t.tree, encode: t.encode, rev: t.rev, complete: t.complete, changed: t.changed}
}

// Snapshot is an immutable view of a table.
type Snapshot[K, V any] struct {
	tree     *iradix.Tree[entry[K, V]]
	encode   func(K) []byte
	rev      uint64
	complete bool
	changed  chan struct{}
}

// Get returns one row.
func (s Snapshot[K, V]) Get(k K) (V, bool) { e, ok := s.tree.Get(s.encode(k)); return e.row, ok }

// Len is the number of rows.
func (s Snapshot[K, V]) Len() int { return s.tree.Len() }

// Revision counts the table's changes up to this snapshot.
func (s Snapshot[K, V]) Revision() uint64 { return s.rev }

// Complete says whether SetComplete had been called.
func (s Snapshot[K, V]) Complete() bool { return s.complete }

// Changed is closed once the table differs from this snapshot.
func (s Snapshot[K, V]) Changed() <-chan struct{} { return s.changed }

// All walks the rows in key order.
func (s Snapshot[K, V]) All() iter.Seq2[K, V] { return walk(s.tree.Root()) }

func walk[K, V any](root *iradix.Node[entry[K, V]]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		it := root.Iterator()
		for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
			if !yield(e.key, e.row) {
				return
			}
		}
	}
}
