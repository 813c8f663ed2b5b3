package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/fault"
)

const heartbeatEvery = time.Minute

// writeClusterConfig puts the cluster's configuration where other clusters look for it, unless it is there already.
func (s *Store) writeClusterConfig(ctx context.Context) {
	value, err := json.Marshal(map[string]any{
		"id":           s.cfg.ClusterID,
		"capabilities": map[string]any{"maxConnectedClusters": 255},
	})
	if err != nil {
		s.log.Error("cluster configuration not written", "err", err)
		return
	}
	key := clusterConfig + s.cfg.ClusterName
	for wait := retryMin; ; wait = min(2*wait, s.cfg.Retry) {
		rctx, cancel := s.request(ctx)
		_, err := s.cli.Txn(rctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(value))).Commit()
		cancel()
		if err == nil || !sleep(ctx, wait) {
			return
		}
	}
}

// lead runs work while this agent is the one that does what has to be done once in the cluster: at once, and then every
// interval. It holds a leased key, so another agent follows a lease's time after this one has died. Work must stand two
// leaders at a time: a leader that lost its lease learns of it late.
func (s *Store) lead(ctx context.Context, key string, every time.Duration, work func(context.Context) error) {
	failed := fault.New(s.log, "cluster-wide work failed, will try again", "cluster-wide work is done again")
	for {
		wait := every
		if err := s.elect(ctx, key); err == nil {
			if err := work(ctx); ctx.Err() == nil {
				failed.Note(err, "work", key)
			}
		} else {
			if !errors.Is(err, errFollower) {
				s.log.Debug("no election", "work", key, "err", err)
			}
			wait = min(every, max(s.cfg.LeaseTTL/3, time.Second))
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

var errFollower = errors.New("another agent leads")

func (s *Store) elect(ctx context.Context, key string) error {
	rctx, cancel := s.request(ctx)
	defer cancel()
	lease, err := s.leases.current(rctx)
	if err != nil {
		return err
	}
	resp, err := s.cli.Txn(rctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, s.cfg.NodeName, clientv3.WithLease(lease))).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return err
	}
	if resp.Succeeded {
		return nil
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 || kvs[0].Lease == int64(lease) {
		return nil
	}
	if string(kvs[0].Value) == s.cfg.NodeName { // an earlier run's: take it over
		_, err := s.cli.Txn(rctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", kvs[0].ModRevision)).
			Then(clientv3.OpPut(key, s.cfg.NodeName, clientv3.WithLease(lease))).Commit()
		return err
	}
	return errFollower
}

// heartbeat shows everybody that the store takes writes.
func (s *Store) heartbeat(ctx context.Context) error {
	rctx, cancel := s.request(ctx)
	defer cancel()
	_, err := s.cli.Put(rctx, heartbeatKey, time.Now().UTC().Format(time.RFC3339))
	return wrap(ctx, "write heartbeat", err)
}
