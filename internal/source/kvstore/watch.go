package kvstore

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// EventKind says what an Event reports.
type EventKind uint8

// Kinds of events.
const (
	EventPut    EventKind = iota // the key has this value now
	EventDelete                  // the key is gone
	EventSynced                  // all that was there at the start has been reported; comes once
)

// Event is a change of one key.
type Event struct {
	Kind     EventKind
	Key      string
	Value    []byte
	Revision int64 // of the key's last change
}

const listPage = 2000

// Watch reports every key under prefix and then its changes, in order, in batches: what one transaction wrote comes in
// one batch. When the store was away or has compacted its history, keys are listed again and the differences reported,
// so changes in between may be merged, never lost. The channel is closed when ctx or the Store ends.
func (s *Store) Watch(ctx context.Context, prefix string) <-chan []Event {
	out := make(chan []Event)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	go func() {
		defer close(out)
		defer cancel()
		defer stop()
		s.follow(ctx, prefix, func(batch []Event) {
			select {
			case out <- batch:
			case <-ctx.Done():
			}
		})
	}()
	return out
}

// follow is Watch with a function instead of a channel; it returns when ctx ends.
func (s *Store) follow(ctx context.Context, prefix string, fn func([]Event)) {
	known := map[string]int64{} // revisions of the keys reported
	synced := false
	wait := retryMin
	for {
		replaced := s.health.replacement()
		rev, batch, err := s.compare(ctx, prefix, known)
		began := time.Now()
		if err == nil {
			if !synced {
				synced = true
				batch = append(batch, Event{Kind: EventSynced, Revision: rev})
			}
			if len(batch) > 0 {
				fn(batch)
			}
			err = s.tail(ctx, prefix, rev, replaced, known, fn)
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, rpctypes.ErrCompacted) || time.Since(began) > 2*s.cfg.Retry {
			wait = retryMin // not the store's fault, or it has worked for a while
		}
		s.log.Debug("list again", "prefix", prefix, "err", err, "wait", wait)
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, s.cfg.Retry)
	}
}

// compare lists the prefix at one revision and returns the differences to known, which it brings up to date.
func (s *Store) compare(ctx context.Context, prefix string, known map[string]int64) (rev int64, batch []Event, err error) {
	kvs, rev, err := s.list(ctx, prefix)
	if err != nil {
		return 0, nil, err
	}
	seen := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		seen[kv.Key] = true
		if known[kv.Key] != kv.Revision {
			known[kv.Key] = kv.Revision
			batch = append(batch, Event{Kind: EventPut, Key: kv.Key, Value: kv.Value, Revision: kv.Revision})
		}
	}
	for key := range known {
		if !seen[key] {
			delete(known, key)
			batch = append(batch, Event{Kind: EventDelete, Key: key, Revision: rev})
		}
	}
	return rev, batch, nil
}

// list reads all keys under prefix as they are at one revision, in pages.
func (s *Store) list(ctx context.Context, prefix string, opts ...clientv3.OpOption) (kvs []KV, rev int64, err error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		rctx, cancel := s.request(ctx)
		resp, err := s.cli.Get(rctx, from, append([]clientv3.OpOption{
			clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev)}, opts...)...)
		cancel()
		if err != nil {
			return nil, 0, wrap(ctx, "list "+prefix, err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			kvs = append(kvs, KV{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision})
		}
		if !resp.More {
			return kvs, rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// tail reports changes after rev until it cannot.
func (s *Store) tail(ctx context.Context, prefix string, rev int64, replaced <-chan struct{}, known map[string]int64, fn func([]Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := s.cli.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	for {
		var resp clientv3.WatchResponse
		var ok bool
		select {
		case resp, ok = <-changes:
		case <-replaced:
			return errors.New("another store")
		}
		if err := resp.Err(); err != nil {
			return err
		}
		if !ok {
			return errors.New("watch ended")
		}
		batch := make([]Event, 0, len(resp.Events))
		for _, e := range resp.Events {
			key := string(e.Kv.Key)
			if e.Type == clientv3.EventTypeDelete {
				delete(known, key)
				batch = append(batch, Event{Kind: EventDelete, Key: key, Revision: e.Kv.ModRevision})
				continue
			}
			known[key] = e.Kv.ModRevision
			batch = append(batch, Event{Kind: EventPut, Key: key, Value: e.Kv.Value, Revision: e.Kv.ModRevision})
		}
		if len(batch) > 0 {
			fn(batch)
		}
	}
}
