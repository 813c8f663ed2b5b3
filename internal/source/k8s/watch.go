package k8s

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// resource is what is watched.
type resource struct {
	client         rest.Interface
	name           string
	labels, fields string // selectors
	optional       bool   // there may be no such resource; then there are no objects of it
}

// sink takes what a watch tells, one call at a time, and keeps of it what it likes.
type sink[T any] struct {
	replace func(all []T) // these are all there are: at first, and after a gap
	put     func(T)
	remove  func(T) // as it last was

	synced chan struct{} // closed after the first replace
	once   sync.Once
}

// Add implements cache.ReflectorStore, as the other methods do.
func (k *sink[T]) Add(obj any) error { k.put(obj.(T)); return nil }

// Update is Add: whether it is new, the sink knows itself.
func (k *sink[T]) Update(obj any) error { return k.Add(obj) }

// Delete says that an object is gone.
func (k *sink[T]) Delete(obj any) error { k.remove(obj.(T)); return nil }

// Resync has nothing to do: nothing is kept that could be told again.
func (k *sink[T]) Resync() error { return nil }

// Replace tells all objects.
func (k *sink[T]) Replace(objs []any, _ string) error {
	all := make([]T, len(objs))
	for i := range objs {
		all[i] = objs[i].(T)
	}
	k.replace(all)
	k.once.Do(func() { close(k.synced) })
	return nil
}

// longest is the longest pause before a watch that failed is tried again: longer than that no policy should wait for an API server that
// is back.
const longest = 10 * time.Second

// absent is how long it takes to look again for a resource that there was not.
const absent = 30 * time.Second

// follow brings a resource's objects into a sink until the store is closed.
func follow[T runtime.Object](s *Store, r resource, example T, k *sink[T]) {
	k.synced = make(chan struct{})
	s.synced = append(s.synced, k.synced)
	missing := func(err error) bool { return r.optional && apierrors.IsNotFound(err) }
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = r.labels, r.fields
			list, err := r.client.Get().Resource(r.name).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Get()
			if missing(err) { // which is an answer, too
				s.health.note(r.name, nil)
				return &metav1.List{}, nil
			}
			s.health.note(r.name, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector, o.Watch = r.labels, r.fields, true
			w, err := r.client.Get().Resource(r.name).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
			if missing(err) && o.SendInitialEvents == nil {
				return newIdle(ctx, absent), nil
			}
			if !missing(err) {
				s.health.note(r.name, err)
			}
			return w, err
		},
	}
	log := logr.Discard() // health says what is wrong, once
	reflector := cache.NewReflectorWithOptions(lw, example, k, cache.ReflectorOptions{Name: r.name, Logger: &log, Backoff: &wait.Backoff{
		Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 5, Cap: longest}})
	s.run(func(ctx context.Context) { reflector.RunWithContext(klog.NewContext(ctx, log)) })
}

// idle is a watch in which nothing happens, and which then ends.
type idle struct{ events chan watch.Event }

func newIdle(ctx context.Context, d time.Duration) *idle {
	w := &idle{make(chan watch.Event)}
	go func() {
		defer close(w.events)
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}()
	return w
}

// Stop implements watch.Interface: it ends by itself.
func (w *idle) Stop() {}

// ResultChan implements watch.Interface.
func (w *idle) ResultChan() <-chan watch.Event { return w.events }
