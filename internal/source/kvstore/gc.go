package kvstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
)

// idleRounds is how many rounds after the one that found it unused an identity is still kept, at least.
const idleRounds = 2

// runGC does what one agent does for all: collects identities that nobody uses, and keeps the heartbeat.
func (s *Store) runGC(ctx context.Context) {
	s.wg.Go(func() { s.lead(ctx, gcLock+"-heartbeat", heartbeatEvery, s.heartbeat) })
	c := &collector{s: s, idle: map[model.IdentityID]idleID{}}
	s.lead(ctx, gcLock, s.cfg.GCInterval, c.round)
}

// collector removes identities. It may run on several agents at once: that costs time, not safety, since removing one
// is a transaction on condition that there is still no user.
type collector struct {
	s    *Store
	idle map[model.IdentityID]idleID
}

type idleID struct {
	rev    int64 // of the master key when first seen unused
	rounds int
}

func (c *collector) round(ctx context.Context) error {
	masters, _, err := c.s.list(ctx, identityMaster)
	if err != nil {
		return err
	}
	uses, _, err := c.s.list(ctx, identityValue, clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	used := make(map[string]bool, len(uses))
	for _, kv := range uses {
		if labels, _, ok := valueLabels(kv.Key); ok {
			used[labels] = true
		}
	}
	idle := make(map[model.IdentityID]idleID, len(c.idle))
	keep := max(idleRounds, int((c.s.cfg.Idle+c.s.cfg.GCInterval-1)/c.s.cfg.GCInterval))
	var jobs []func() error
	var collected atomic.Int64
	for _, kv := range masters {
		id, ok := parseID(kv.Key[len(identityMaster):])
		if !ok || used[string(kv.Value)] {
			continue
		}
		was := c.idle[id]
		if was.rev != kv.Revision {
			was = idleID{rev: kv.Revision}
		}
		if was.rounds < keep {
			was.rounds++
			idle[id] = was
			continue
		}
		jobs = append(jobs, func() error {
			gone, err := c.collect(ctx, id, string(kv.Value), kv.Revision)
			if gone {
				collected.Add(1)
			}
			return err
		})
	}
	c.idle = idle
	err = parallel(8, jobs)
	if n := collected.Load(); n > 0 {
		c.s.log.Info("collected unused identities", "count", n)
	}
	return err
}

// collect removes one identity, if it is as it was and still nobody uses it, and lets its number rest.
func (c *collector) collect(ctx context.Context, id model.IdentityID, labels string, rev int64) (bool, error) {
	rctx, cancel := c.s.request(ctx)
	defer cancel()
	rest, err := c.s.cli.Grant(rctx, max(1, int64(c.s.cfg.Quarantine/time.Second)))
	if err != nil {
		return false, wrap(ctx, "collect identity", err)
	}
	use := identityValue + labels + "/"
	resp, err := c.s.cli.Txn(rctx).If(
		clientv3.Compare(clientv3.ModRevision(masterKey(id)), "=", rev),
		clientv3.Compare(clientv3.CreateRevision(use).WithPrefix(), "=", 0), // no such key at all
		clientv3.Compare(clientv3.Value(identityIndex+labels), "=", masterKey(id)[len(identityMaster):]),
	).Then(
		clientv3.OpDelete(masterKey(id)),
		clientv3.OpDelete(identityIndex+labels),
		clientv3.OpPut(freedKey(id), labels, clientv3.WithLease(rest.ID)),
	).Else(clientv3.OpGet(identityIndex + labels)).Commit()
	if err == nil && !resp.Succeeded && len(resp.Responses[0].GetResponseRange().Kvs) == 0 {
		// A number without an index, written by something else than an agent of ours: same conditions, no index.
		resp, err = c.s.cli.Txn(rctx).If(
			clientv3.Compare(clientv3.ModRevision(masterKey(id)), "=", rev),
			clientv3.Compare(clientv3.CreateRevision(use).WithPrefix(), "=", 0),
			clientv3.Compare(clientv3.CreateRevision(identityIndex+labels), "=", 0),
		).Then(
			clientv3.OpDelete(masterKey(id)),
			clientv3.OpPut(freedKey(id), labels, clientv3.WithLease(rest.ID)),
		).Commit()
	}
	if err == nil && resp.Succeeded {
		return true, nil
	}
	_, rerr := c.s.cli.Revoke(rctx, rest.ID)
	return false, wrap(ctx, "collect identity", errors.Join(err, rerr))
}
