package kvstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaser keeps keys in the store under one lease. It holds what is wanted and works until the store agrees: also after
// the lease was lost, the store replaced or a key removed by somebody. Waiting goes by the monotonic clock.
type leaser struct {
	s *Store

	mu       sync.Mutex
	lease    clientv3.LeaseID // 0: none
	due      time.Time        // next keepalive
	want     map[string]*leasedKey
	gone     map[string]goneKey
	removing map[string]bool // deletions on their way
	expected map[string]int  // keys that callers of expect are about to store
	err      error
	changed  chan struct{} // closed after a round
	kick     chan struct{}
}

// leasedKey is a key to be kept. ensure, where set, stores it in its own way; else it is a plain write.
type leasedKey struct {
	value  string
	ensure func(ctx context.Context, lease clientv3.LeaseID) error
	stored clientv3.LeaseID // under which it was written; 0: not yet
}

// goneKey is a key to be removed: if it is still under lease, or unchanged since rev.
type goneKey struct {
	lease clientv3.LeaseID
	rev   int64
}

func newLeaser(s *Store) *leaser {
	return &leaser{s: s, want: map[string]*leasedKey{}, gone: map[string]goneKey{}, removing: map[string]bool{},
		expected: map[string]int{}, changed: make(chan struct{}), kick: make(chan struct{}, 1)}
}

// put wants key to have value.
func (l *leaser) put(key, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.gone, key)
	if k := l.want[key]; k != nil && k.value == value && k.ensure == nil && !l.removing[key] {
		return
	}
	l.want[key] = &leasedKey{value: value}
	l.wake()
}

// expect says that the caller is about to store key itself: no removal of it is under way when expect returns, and none
// begins before the caller calls done. A removal that comes behind the caller's write would take a key that is in use.
func (l *leaser) expect(ctx context.Context, key string) (done func(), err error) {
	for {
		l.mu.Lock()
		if !l.removing[key] {
			break
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer l.mu.Unlock()
	delete(l.gone, key)
	l.expected[key]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.expected[key]--; l.expected[key] == 0 {
			delete(l.expected, key)
		}
	}, nil
}

// keep wants key to be kept by ensure, which has stored it under lease already (0: not yet).
func (l *leaser) keep(key string, lease clientv3.LeaseID, ensure func(context.Context, clientv3.LeaseID) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.gone, key)
	if lease != l.lease {
		lease = 0
	}
	l.want[key] = &leasedKey{ensure: ensure, stored: lease}
	if lease == 0 {
		l.wake()
	}
}

// drop wants key gone, if it is ours.
func (l *leaser) drop(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.want[key] == nil {
		return
	}
	delete(l.want, key)
	if l.lease != 0 {
		l.gone[key] = goneKey{lease: l.lease}
		l.wake()
	}
}

// dropOld wants key, left by an earlier run, gone as it was at rev, unless it is wanted by now.
func (l *leaser) dropOld(key string, rev int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.want[key] == nil {
		l.gone[key] = goneKey{rev: rev}
		l.wake()
	}
}

// lost says that the store does not know the lease any more.
func (l *leaser) lost(lease clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == lease && lease != 0 {
		l.lease = 0
		for _, k := range l.want {
			k.stored = 0
		}
		l.wake()
	}
}

func (l *leaser) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// current waits for a lease.
func (l *leaser) current(ctx context.Context) (clientv3.LeaseID, error) {
	for {
		l.mu.Lock()
		lease, changed := l.lease, l.changed
		l.mu.Unlock()
		if lease != 0 {
			return lease, nil
		}
		select {
		case <-changed:
		case <-l.s.ctx.Done():
			return 0, l.s.ctx.Err()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (l *leaser) state() (lease clientv3.LeaseID, published, pending int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.want {
		if k.stored != 0 {
			published++
		} else {
			pending++
		}
	}
	return l.lease, published, pending + len(l.gone) + len(l.removing), l.err
}

func (l *leaser) flush(ctx context.Context) error {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		_, _, pending, err := l.state()
		if pending == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-l.s.ctx.Done():
			return errors.New("publish: kvstore is closed")
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("publish: %d keys still to be stored: %w", pending, ctx.Err()), err)
		}
	}
}

func (l *leaser) run(ctx context.Context) {
	wait := retryMin
	for {
		replaced := l.s.health.replacement()
		err := l.round(ctx)
		l.mu.Lock()
		l.err = err
		close(l.changed)
		l.changed = make(chan struct{})
		next := time.Until(l.due)
		l.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.s.log.Debug("publish", "err", err, "wait", wait)
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, l.s.cfg.Retry)
			continue
		}
		wait = retryMin
		t := time.NewTimer(max(next, 0))
		select {
		case <-ctx.Done():
		case <-l.kick:
		case <-replaced:
			l.mu.Lock()
			l.due = time.Now()
			l.mu.Unlock()
		case <-t.C:
		}
		t.Stop()
	}
}

// round brings the store as near to what is wanted as it gets now.
func (l *leaser) round(ctx context.Context) error {
	lease, err := l.renew(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(l.write(ctx, lease), l.remove(ctx))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		l.lost(lease)
	}
	return err
}

// renew has a lease that lives, and finds out which keys it has lost.
func (l *leaser) renew(ctx context.Context) (clientv3.LeaseID, error) {
	l.mu.Lock()
	lease, due := l.lease, l.due
	l.mu.Unlock()
	rctx, cancel := l.s.request(ctx)
	defer cancel()
	if lease != 0 && time.Now().Before(due) {
		return lease, nil
	}
	if lease != 0 {
		_, err := l.s.cli.KeepAliveOnce(rctx, lease)
		if err == nil {
			return lease, l.verify(rctx, lease)
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return 0, wrap(ctx, "renew lease", err)
		}
		l.s.log.Warn("kvstore lease was lost, publishing everything again", "lease", int64(lease))
		l.lost(lease)
	}
	resp, err := l.s.cli.Grant(rctx, int64(l.s.cfg.LeaseTTL/time.Second))
	if err != nil {
		return 0, wrap(ctx, "get lease", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.due = resp.ID, time.Now().Add(l.s.cfg.LeaseTTL/3)
	close(l.changed)
	l.changed = make(chan struct{})
	return resp.ID, nil
}

func (l *leaser) verify(ctx context.Context, lease clientv3.LeaseID) error {
	resp, err := l.s.cli.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
	if err != nil {
		return wrap(ctx, "verify lease", err)
	}
	held := make(map[string]bool, len(resp.Keys))
	for _, k := range resp.Keys {
		held[string(k)] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, k := range l.want {
		if !held[key] {
			k.stored = 0
		}
	}
	for key := range held { // a claim whose answer got lost
		if l.want[key] == nil && l.expected[key] == 0 && strings.HasPrefix(key, identityValue) {
			l.gone[key] = goneKey{lease: lease}
		}
	}
	l.due = time.Now().Add(l.s.cfg.LeaseTTL / 3)
	return nil
}

// write stores what is not stored yet: plain keys in transactions, others each in its own way, some at a time.
func (l *leaser) write(ctx context.Context, lease clientv3.LeaseID) error {
	l.mu.Lock()
	todo := map[string]*leasedKey{}
	for key, k := range l.want {
		if k.stored != lease {
			todo[key] = k
		}
	}
	l.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	var plain []string
	var own []func() error
	for _, key := range slices.Sorted(maps.Keys(todo)) {
		if k := todo[key]; k.ensure != nil {
			own = append(own, func() error {
				err := k.ensure(ctx, lease)
				if err == nil {
					l.done(lease, k)
				}
				return err
			})
		} else {
			plain = append(plain, key)
		}
	}
	var failed error
	for batch := range slices.Chunk(plain, defaultTxnOps) {
		ops := make([]clientv3.Op, len(batch))
		keys := make([]*leasedKey, len(batch))
		for i, key := range batch {
			keys[i] = todo[key]
			ops[i] = clientv3.OpPut(key, keys[i].value, clientv3.WithLease(lease))
		}
		rctx, cancel := l.s.request(ctx)
		_, err := l.s.cli.Txn(rctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			failed = errors.Join(failed, wrap(ctx, "publish", err))
			continue
		}
		l.done(lease, keys...)
	}
	return errors.Join(failed, parallel(16, own))
}

func (l *leaser) done(lease clientv3.LeaseID, keys ...*leasedKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == lease {
		for _, k := range keys {
			k.stored = lease
		}
	}
}

// remove deletes what is to go, each under its condition.
func (l *leaser) remove(ctx context.Context) error {
	l.mu.Lock()
	todo := l.gone
	l.gone = map[string]goneKey{}
	for key := range todo {
		l.removing[key] = true
	}
	l.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	var mu sync.Mutex
	var jobs []func() error
	for key, g := range todo {
		jobs = append(jobs, func() error {
			cond := clientv3.Compare(clientv3.LeaseValue(key), "=", g.lease)
			if g.lease == 0 {
				cond = clientv3.Compare(clientv3.ModRevision(key), "=", g.rev)
			}
			rctx, cancel := l.s.request(ctx)
			defer cancel()
			_, err := l.s.cli.Txn(rctx).If(cond).Then(clientv3.OpDelete(key)).Commit()
			if err != nil {
				return wrap(ctx, "withdraw "+key, err)
			}
			mu.Lock()
			delete(todo, key)
			mu.Unlock()
			return nil
		})
	}
	err := parallel(16, jobs)
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.removing)
	for key, g := range todo { // what did not work
		if l.want[key] == nil {
			l.gone[key] = g
		}
	}
	return err
}

// parallel runs jobs, at most n at a time, and returns the first few errors.
func parallel(n int, jobs []func() error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	slots := make(chan struct{}, n)
	for _, job := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := job(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if len(errs) < 3 {
					errs = append(errs, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// dropOthers wants all keys under prefix gone but those to keep.
func (l *leaser) dropOthers(prefix string, keep map[string]bool) {
	l.mu.Lock()
	var others []string
	for key := range l.want {
		if strings.HasPrefix(key, prefix) && !keep[key] {
			others = append(others, key)
		}
	}
	l.mu.Unlock()
	for _, key := range others {
		l.drop(key)
	}
}
