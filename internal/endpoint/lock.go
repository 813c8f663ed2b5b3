package endpoint

import (
	"context"
	"sync"
)

// keyLocks serialises the calls for one attachment. A waiter gives up when its context ends.
type keyLocks struct {
	mu sync.Mutex
	m  map[Key]*keyLock
}

type keyLock struct {
	ch   chan struct{} // holds one token while free
	refs int           // holders and waiters
}

func (l *keyLocks) lock(ctx context.Context, k Key) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[Key]*keyLock{}
	}
	kl := l.m[k]
	if kl == nil {
		kl = &keyLock{ch: make(chan struct{}, 1)}
		kl.ch <- struct{}{}
		l.m[k] = kl
	}
	kl.refs++
	l.mu.Unlock()

	drop := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if kl.refs--; kl.refs == 0 {
			delete(l.m, k)
		}
	}
	select {
	case <-kl.ch:
		return func() { kl.ch <- struct{}{}; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}
