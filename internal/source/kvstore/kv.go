package kvstore

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// KV is one key as stored.
type KV struct {
	Key      string
	Value    []byte
	Revision int64
}

// ErrNoKey says that a key does not exist.
var ErrNoKey = errors.New("no such key")

var errNoName = errors.New("empty key")

// Get reads one key; ErrNoKey.
func (s *Store) Get(ctx context.Context, key string) (KV, error) {
	if key == "" {
		return KV{}, errNoName
	}
	rctx, cancel := s.request(ctx)
	defer cancel()
	resp, err := s.cli.Get(rctx, key)
	if err != nil {
		return KV{}, wrap(ctx, "get "+key, err)
	}
	if len(resp.Kvs) == 0 {
		return KV{}, fmt.Errorf("get %s: %w", key, ErrNoKey)
	}
	return KV{Key: key, Value: resp.Kvs[0].Value, Revision: resp.Kvs[0].ModRevision}, nil
}

// List reads all keys that begin with prefix, in order, as they are at one moment. An empty prefix means all.
func (s *Store) List(ctx context.Context, prefix string) ([]KV, error) {
	if prefix == "" {
		kvs, _, err := s.list(ctx, "\x00", clientv3.WithFromKey())
		return kvs, err
	}
	kvs, _, err := s.list(ctx, prefix)
	return kvs, err
}

// Set writes one key, without a lease.
func (s *Store) Set(ctx context.Context, key string, value []byte) (revision int64, err error) {
	if key == "" {
		return 0, errNoName
	}
	rctx, cancel := s.request(ctx)
	defer cancel()
	resp, err := s.cli.Put(rctx, key, string(value))
	if err != nil {
		return 0, wrap(ctx, "set "+key, err)
	}
	return resp.Header.Revision, nil
}

// Delete removes one key, or with prefix all that begin with it, and returns how many.
func (s *Store) Delete(ctx context.Context, key string, prefix bool) (int64, error) {
	if key == "" {
		return 0, errNoName
	}
	var opts []clientv3.OpOption
	if prefix {
		opts = append(opts, clientv3.WithPrefix())
	}
	rctx, cancel := s.request(ctx)
	defer cancel()
	resp, err := s.cli.Delete(rctx, key, opts...)
	if err != nil {
		return 0, wrap(ctx, "delete "+key, err)
	}
	return resp.Deleted, nil
}
