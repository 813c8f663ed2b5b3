// Package endpointslice keeps CiliumEndpointSlices: what agents need of the CiliumEndpoints of a namespace, many in one object. Which
// endpoint is in which slice is decided in internal/control/slicing; what somebody else makes of a slice is put right.
package endpointslice

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	ciliumv2alpha1 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2alpha1"
	"github.com/hypha-net/hypha/internal/control/slicing"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/operator/metric"
)

// Config of it.
type Config struct {
	Keep  bool // false: only for as long as agents still read them
	Most  int  // endpoints in a slice
	Rates slicing.Rates
}

// linger is how long a slice waits to be written, so that what comes together is written together.
const linger = 100 * time.Millisecond

// Bounds of the wait after a write that failed.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
)

// Add runs it with the manager, whose cache has ByObject, for as long as it leads.
func Add(mgr ctrl.Manager, cfg Config, log *slog.Logger) error {
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		k := newKeeper(mgr, cfg, log)
		if cfg.Keep {
			return k.run(ctx)
		}
		return k.finish(ctx)
	}))
}

// ByObject is how the manager's cache is to keep endpoints: what goes into slices.
func ByObject() map[client.Object]ctrlcache.ByObject {
	return map[client.Object]ctrlcache.ByObject{&ciliumv2.CiliumEndpoint{}: {Transform: trim}}
}

func trim(o any) (any, error) {
	e, ok := o.(*ciliumv2.CiliumEndpoint)
	if !ok {
		return o, nil
	}
	e.ObjectMeta = metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name, UID: e.UID, ResourceVersion: e.ResourceVersion}
	e.Status = ciliumv2.EndpointStatus{Identity: e.Status.Identity, Networking: e.Status.Networking, NamedPorts: e.Status.NamedPorts}
	if e.Status.Identity != nil {
		e.Status.Identity.Labels = nil
	}
	return e, nil
}

// entry is what a slice says of an endpoint; nil: it is in none, because nobody could do anything with it.
func entry(e *ciliumv2.CiliumEndpoint) *ciliumv2alpha1.CoreEndpoint {
	st := &e.Status
	if st.Identity == nil || st.Identity.ID == 0 || st.Networking == nil ||
		!slices.ContainsFunc(st.Networking.Addressing, func(p ciliumv2.AddressPair) bool { return p.IPv4 != "" || p.IPv6 != "" }) {
		return nil
	}
	return &ciliumv2alpha1.CoreEndpoint{Name: e.Name, IdentityID: st.Identity.ID, Networking: st.Networking, NamedPorts: st.NamedPorts}
}

// keeper keeps the slices. What it wrote it knows before the cache does.
type keeper struct {
	cfg     Config
	c       client.Client
	server  client.Reader // the API server itself, not the cache
	cache   ctrlcache.Cache
	log     *slog.Logger
	fault   *fault.Fault
	metrics *metric.Metrics
	limit   *rate.Limiter
	queue   workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex
	book   *slicing.Book[*ciliumv2alpha1.CoreEndpoint]
	stored map[string]*ciliumv2alpha1.CiliumEndpointSlice // the newest that is known of each
	asked  map[string]time.Time                           // since when slices wait to be written
	nodes  int

	told bool // of who makes it go on
}

func newKeeper(mgr ctrl.Manager, cfg Config, log *slog.Logger) *keeper {
	first := cfg.Rates.For(0)
	return &keeper{cfg: cfg, c: mgr.GetClient(), server: mgr.GetAPIReader(), cache: mgr.GetCache(), log: log,
		fault:   fault.New(log, "endpoint slices not written", "endpoint slices written again"),
		metrics: metric.Get(), limit: rate.NewLimiter(rate.Limit(first.Limit), first.Burst),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](minRetry, maxRetry)),
		book: slicing.New(cfg.Most, func(a, b *ciliumv2alpha1.CoreEndpoint) bool { return reflect.DeepEqual(a, b) },
			func() string { return "ces-" + rand.String(9) + "-" + rand.String(5) }),
		stored: map[string]*ciliumv2alpha1.CiliumEndpointSlice{}, asked: map[string]time.Time{}}
}

// node takes in that there are so many more nodes.
func (k *keeper) node(more int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes += more
	r := k.cfg.Rates.For(k.nodes)
	k.limit.SetLimit(rate.Limit(r.Limit))
	k.limit.SetBurst(r.Burst)
}

// endpoint takes in what an endpoint is.
func (k *keeper) endpoint(e *ciliumv2.CiliumEndpoint, gone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := slicing.Key{Namespace: e.Namespace, Name: e.Name}
	if v := entry(e); v != nil && !gone {
		k.book.Put(key, v)
	} else {
		k.book.Drop(key)
	}
	k.ask()
}

// slice takes in what a slice is, unless something newer is known.
func (k *keeper) slice(o *ciliumv2alpha1.CiliumEndpointSlice) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.stored[o.Name]; old != nil && revision(o) < revision(old) {
		return
	}
	if o.ManagedFields != nil { // it does not come out of the cache, then
		o.ManagedFields = nil
	}
	k.stored[o.Name] = o
	s := &slicing.Slice[*ciliumv2alpha1.CoreEndpoint]{Namespace: o.Namespace, Entries: make(map[string]*ciliumv2alpha1.CoreEndpoint, len(o.Endpoints))}
	for i := range o.Endpoints {
		s.Entries[o.Endpoints[i].Name] = &o.Endpoints[i]
	}
	s.Twice = len(s.Entries) < len(o.Endpoints)
	k.book.Stored(o.Name, s)
	k.ask()
}

// noSlice takes in that a slice is gone: this one, not another of its name.
func (k *keeper) noSlice(name string, uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.stored[name]; old == nil || old.UID != uid {
		return
	}
	delete(k.stored, name)
	k.book.Stored(name, nil)
	k.ask()
}

// ask has slices written that are due; mu is held.
func (k *keeper) ask() {
	for _, name := range k.book.Due() {
		if _, waits := k.asked[name]; !waits {
			k.asked[name] = time.Now()
		}
		k.queue.AddAfter(name, linger)
	}
}

// revision is the version of an object. Of one resource they rise.
func revision(o client.Object) uint64 {
	n, _ := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	return n
}

// run works until the context ends.
func (k *keeper) run(ctx context.Context) error {
	defer k.queue.ShutDown()
	defer context.AfterFunc(ctx, k.queue.ShutDown)()
	if err := k.begin(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("keep endpoint slices: %w", err)
	}
	for {
		name, down := k.queue.Get()
		if down {
			return nil
		}
		err := k.settle(ctx, name)
		if ctx.Err() == nil {
			k.note(name, err)
		}
		k.queue.Done(name)
	}
}
