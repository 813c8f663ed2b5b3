package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/table"
)

// name of an object.
type name struct{ namespace, name string }

func (n name) String() string { return key(n.namespace, n.name) }

// writer makes objects of this node be as they are declared, and objects that it no longer declares be gone. Whether one that it
// does not know is this node's, it asks.
type writer struct {
	client   rest.Interface
	resource string
	manager  string // of the fields it applies
	// stale says whether what is there is this node's to delete, and which object that is.
	stale func(ctx context.Context, n name) (uid, version string, ok bool, err error)
	fault *fault.Fault
	queue workqueue.TypedRateLimitingInterface[name]

	mu   sync.Mutex
	want map[name]json.RawMessage
	done map[name]json.RawMessage // as last applied, and not heard of as changed since
	todo map[name]bool
}

func newWriter(s *Store, client rest.Interface, resource string, stale func(context.Context, name) (string, string, bool, error)) *writer {
	w := &writer{client: client, resource: resource, manager: "hypha-agent-" + s.cfg.NodeName, stale: stale,
		fault: fault.New(s.log, resource+" not written", resource+" written again"),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[name](50*time.Millisecond, 15*time.Second)),
		want:  map[name]json.RawMessage{}, done: map[name]json.RawMessage{}, todo: map[name]bool{}}
	for range 4 {
		s.run(w.work)
	}
	s.run(func(ctx context.Context) { <-ctx.Done(); w.queue.ShutDown() })
	return w
}

// put declares an object: all fields that are this node's business.
func (w *writer) put(n name, o any) error {
	body, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("declare %s %s: %w", w.resource, n, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Equal(w.want[n], body) && bytes.Equal(w.done[n], body) {
		return nil
	}
	w.want[n] = body
	w.again(n)
	return nil
}

// drop declares that there is no such object of this node's.
func (w *writer) drop(n name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.want, n)
	w.again(n)
}

// disturbed says that an object is not as it was applied.
func (w *writer) disturbed(n name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.done, n)
	if w.want[n] != nil {
		w.again(n)
	}
}

// declared says whether an object is declared.
func (w *writer) declared(n name) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.want[n] != nil
}

// again has an object looked after; mu is held.
func (w *writer) again(n name) {
	w.todo[n] = true
	w.queue.Add(n)
}

func (w *writer) pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.todo)
}

func (w *writer) work(ctx context.Context) {
	for {
		n, down := w.queue.Get()
		if down {
			return
		}
		err := w.settle(ctx, n)
		w.fault.Note(err)
		if err != nil && ctx.Err() == nil {
			w.queue.AddRateLimited(n)
		} else {
			w.queue.Forget(n)
		}
		w.queue.Done(n)
	}
}

// settle brings one object in order.
func (w *writer) settle(ctx context.Context, n name) error {
	w.mu.Lock()
	body := w.want[n]
	same := body != nil && bytes.Equal(body, w.done[n])
	w.mu.Unlock()
	var err error
	switch {
	case same:
	case body == nil:
		err = w.remove(ctx, n)
	default:
		err = w.apply(ctx, n, body)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if body == nil {
		delete(w.done, n)
	} else {
		w.done[n] = body
	}
	if bytes.Equal(w.want[n], body) {
		delete(w.todo, n)
	}
	return nil
}

func (w *writer) apply(ctx context.Context, n name, body json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := w.client.Patch(types.ApplyPatchType).NamespaceIfScoped(n.namespace, n.namespace != "").Resource(w.resource).Name(n.name).
		Param("fieldManager", w.manager).Param("force", "true").Body([]byte(body)).Do(ctx).Error()
	return wrap(fmt.Sprintf("write %s %s", w.resource, n), err)
}

func (w *writer) remove(ctx context.Context, n name) error {
	doing := fmt.Sprintf("delete %s %s", w.resource, n)
	uid, version, ok, err := w.stale(ctx, n)
	if err != nil || !ok {
		return wrap(doing, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = w.client.Delete().NamespaceIfScoped(n.namespace, n.namespace != "").Resource(w.resource).Name(n.name).
		Body(preconditions(uid, version)).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrap(doing, err) // a conflict too: it is looked at again
}

// retry tries until it works or ctx ends, slower and slower.
func retry(ctx context.Context, try func() error) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil && try() != nil; pause = min(2*pause, 15*time.Second) {
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// replaceAll makes a table hold exactly these rows, in one change, and says that they are complete.
func replaceAll[K comparable, V any](t *table.Table[K, V], rows map[K]V, equal func(a, b V) bool) {
	t.Update(func(x *table.Txn[K, V]) { table.Replace(x, rows, equal) })
	t.SetComplete()
}

// all are the objects that are declared.
func (w *writer) all() []name {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.want))
}
