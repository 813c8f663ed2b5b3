package maps

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of the maps; their pins have the same names.
const (
	Area         = "area_v1"
	Class        = "class_v1"
	ClassAt      = "class_at_v1"
	CT           = "ct_v1"
	Devices      = "devices_v1"
	Endpoints    = "endpoints_v1"
	EventCount   = "event_count_v1"
	Events       = "events_v1"
	Frag         = "frag_v1"
	IPCacheExact = "ipcache_exact_v1"
	IPCache      = "ipcache_v1"
	IPCacheWas   = "ipcache_was_v1"
	LBAddress    = "lb_address_v1"
	LBAffinity   = "lb_affinity_v1"
	LBFrontend   = "lb_frontend_v1"
	LBMaglev     = "lb_maglev_v1"
	LBMember     = "lb_member_v1"
	LBReverse    = "lb_reverse_v1"
	LBSlot       = "lb_slot_v1"
	LBSource     = "lb_source_v1"
	Metrics      = "metrics_v1"
	NAT          = "nat_v2"
	Overflow     = "policy_overflow_v1"
	Policy       = "policy_v1"
	Prefilter    = "prefilter_v1"
	State        = "state_v1"

	PrefilterCount = "prefilter_count_v1"
	PrefilterExact = "prefilter_exact_v1"
	PrefilterState = "prefilter_state_v1"

	XDPCount   = "xdp_count_v1"
	XDPDevices = "xdp_devices_v1"
)

// ErrFull says that a map has no room for a row. Nothing was opened by the failed write.
var ErrFull = errors.New("map is full")

// handle is one open map with the record of its failures.
type handle struct {
	*ebpf.Map
	name string
	pin  string
	old  *ebpf.Map // the map it replaced, until Settle

	writes atomic.Uint64 // rows written or deleted, as far as the kernel was asked

	mu      sync.Mutex
	errors  uint64
	lastErr error
}

// failed wraps and records the failure of a write; nil stays nil.
func (h *handle) failed(verb string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w (%d rows; raise its size): %w", ErrFull, h.MaxEntries(), err)
	}
	err = fmt.Errorf("%s %s: %w", verb, h.name, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errors++
	h.lastErr = err
	return err
}

// put writes one row.
func put[K, V any](h *handle, k K, v V) error {
	h.writes.Add(1)
	return h.failed("write", h.Update(&k, &v, ebpf.UpdateAny))
}

// del removes one row; one that is not there is no error.
func del[K any](h *handle, k K) error {
	h.writes.Add(1)
	err := h.Delete(&k)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return h.failed("delete from", err)
}

// get reads one row.
func get[K, V any](h *handle, k K) (v V, ok bool, err error) {
	err = h.Lookup(&k, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fmt.Errorf("read %s: %w", h.name, err)
	}
	return v, true, nil
}

// putAll writes rows, in one call where the kernel can. When it fails some of them may have been written.
func putAll[K, V any](h *handle, ks []K, vs []V) error {
	if len(ks) == 0 {
		return nil
	}
	n, err := h.BatchUpdate(ks, vs, nil)
	if err != nil && n >= len(ks) {
		n = 0 // where the kernel did not get as far as to count, as where this type of map has no batches, the number is ours
	}
	h.writes.Add(uint64(max(n, 0)))
	if err == nil {
		return nil
	}
	// Write singly what is left: an old kernel has no batches, and the error of the one row it refuses is the better one.
	for i := max(n, 0); i < len(ks); i++ {
		if err := put(h, ks[i], vs[i]); err != nil {
			return err
		}
	}
	return nil
}

// batch is rows to be written together.
type batch[K, V any] struct {
	ks []K
	vs []V
}

// newBatch makes one with room for n rows.
func newBatch[K, V any](n int) *batch[K, V] {
	return &batch[K, V]{ks: make([]K, 0, n), vs: make([]V, 0, n)}
}

func (b *batch[K, V]) add(k K, v V) { b.ks, b.vs = append(b.ks, k), append(b.vs, v) }

// put is putAll.
func (b *batch[K, V]) put(h *handle) error { return putAll(h, b.ks, b.vs) }

// delAll removes rows; those that are not there are no error.
func delAll[K any](h *handle, ks []K) error {
	if len(ks) == 0 {
		return nil
	}
	n, err := h.BatchDelete(ks, nil)
	if err == nil {
		h.writes.Add(uint64(n))
		return nil
	}
	var failed error // a batch stops at the first absent row, if there are batches
	for _, k := range ks {
		failed = errors.Join(failed, del(h, k))
	}
	return failed
}

// batchRows is how many rows one call reads: more than any bucket holds.
const batchRows = 4096

// each calls fn for every row until it says false. Rows written meanwhile may be missed, or come twice in a map that
// others write to.
func each[K, V any](h *handle, fn func(k *K, v *V) bool) error { return eachOf(h.name, h.Map, fn) }

func eachOf[K, V any](name string, m *ebpf.Map, fn func(k *K, v *V) bool) error {
	rows := min(batchRows, int(m.MaxEntries()))
	ks, vs := make([]K, rows), make([]V, rows)
	var cur ebpf.MapBatchCursor
	for first := true; ; first = false {
		n, err := m.BatchLookup(&cur, ks, vs, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			if first {
				return eachSingly(name, m, fn)
			}
			return fmt.Errorf("read %s: %w", name, err)
		}
		for i := range n {
			if !fn(&ks[i], &vs[i]) {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}

func eachSingly[K, V any](name string, m *ebpf.Map, fn func(k *K, v *V) bool) error {
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		if !fn(&k, &v) {
			return nil
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
