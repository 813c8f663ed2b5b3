package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
)

// How numbers are handed out. Four keys take part; every write is one transaction on condition that what was read of
// them still stands, so agents may race each other and the collector freely:
//
//	index   labels -> id     makes sure of one number for a label set
//	master  id -> labels     makes sure of one label set for a number
//	freed   id -> labels     the number was collected not long ago; only the same labels may have it
//	use     labels/node -> id  leased; while there is any, the number is not collected
//
// Index and master are written and removed together, and use is only written where both stand.

// claimed is what the store said about a label set and a candidate number for it. Revision 0: no such key.
type claimed struct {
	index, master, freed          string
	indexRev, masterRev, freedRev int64
}

// claim makes this node a user of the labels' number, giving them one if they have none. hint is tried first.
func (d *Identities) claim(ctx context.Context, labels string, hint model.IdentityID, lease clientv3.LeaseID) (id model.IdentityID, isNew bool, err error) {
	tried := map[model.IdentityID]bool{}
	if hint < d.min || hint > d.max {
		hint = 0
	}
	var seen claimed // a fresh number is likely to be free: try without asking
	id = hint
	if hint != 0 {
		if seen, err = d.look(ctx, labels, hint); err != nil {
			return 0, false, err
		}
	}
	for {
		switch {
		case seen.indexRev != 0:
			n, ok := parseID(seen.index)
			if !ok || n < d.min || n > d.max || n == id && seen.masterRev != 0 && seen.master != labels {
				return 0, false, fmt.Errorf("store is inconsistent: %s%s names %q, which these labels cannot have: delete that key", identityIndex, labels, seen.index)
			}
			if n != id {
				id = n
				if seen, err = d.look(ctx, labels, id); err != nil {
					return 0, false, err
				}
				continue
			}
		case id == 0 || seen.masterRev != 0 && seen.master != labels || seen.freedRev != 0 && seen.freed != labels:
			tried[id] = true
			if id, err = d.pick(tried); err != nil {
				return 0, false, err
			}
			seen = claimed{}
		}
		isNew = seen.masterRev == 0
		next, ok, err := d.take(ctx, labels, id, seen, lease)
		if err != nil {
			return 0, false, err
		}
		if ok {
			return id, isNew, nil
		}
		seen = next
	}
}

// take writes the claim if seen still stands, else returns what stands now.
func (d *Identities) take(ctx context.Context, labels string, id model.IdentityID, seen claimed, lease clientv3.LeaseID) (claimed, bool, error) {
	d.mu.Lock()
	d.taking[id]++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.taking[id]--; d.taking[id] == 0 {
			delete(d.taking, id)
		}
	}()
	num := strconv.FormatUint(uint64(id), 10)
	ops := []clientv3.Op{clientv3.OpPut(d.useKey(labels), num, clientv3.WithLease(lease))}
	if seen.indexRev == 0 {
		ops = append(ops, clientv3.OpPut(identityIndex+labels, num))
	}
	if seen.masterRev == 0 {
		ops = append(ops, clientv3.OpPut(masterKey(id), labels))
	}
	if seen.freedRev != 0 {
		ops = append(ops, clientv3.OpDelete(freedKey(id)))
	}
	resp, err := d.s.cli.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(identityIndex+labels), "=", seen.indexRev),
		clientv3.Compare(clientv3.ModRevision(masterKey(id)), "=", seen.masterRev),
		clientv3.Compare(clientv3.ModRevision(freedKey(id)), "=", seen.freedRev),
	).Then(ops...).Else(lookOps(labels, id)...).Commit()
	if err != nil {
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			d.s.leases.lost(lease)
			err = fmt.Errorf("%w: lease was lost, try again", ErrUnreachable)
		}
		return claimed{}, false, err
	}
	if resp.Succeeded {
		return claimed{}, true, nil
	}
	return readClaimed(resp), false, nil
}

func (d *Identities) look(ctx context.Context, labels string, id model.IdentityID) (claimed, error) {
	resp, err := d.s.cli.Txn(ctx).Then(lookOps(labels, id)...).Commit()
	if err != nil {
		return claimed{}, err
	}
	return readClaimed(resp), nil
}

func lookOps(labels string, id model.IdentityID) []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(identityIndex + labels), clientv3.OpGet(masterKey(id)), clientv3.OpGet(freedKey(id))}
}

func readClaimed(resp *clientv3.TxnResponse) (c claimed) {
	read := func(i int) (string, int64) {
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			return string(kvs[0].Value), kvs[0].ModRevision
		}
		return "", 0
	}
	c.index, c.indexRev = read(0)
	c.master, c.masterRev = read(1)
	c.freed, c.freedRev = read(2)
	return c
}

// pick chooses a number that is not known to be in use, from a random start, so that agents seldom choose alike.
func (d *Identities) pick(tried map[model.IdentityID]bool) (model.IdentityID, error) {
	used := d.f.tab.Snapshot()
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint32(d.max-d.min) + 1
	start := rand.Uint32N(n)
	for i := range n {
		id := d.min + model.IdentityID((start+i)%n)
		if tried[id] || d.taking[id] > 0 || d.byID[id] != nil {
			continue
		}
		if _, ok := used.Get(id); !ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("%w (%d..%d)", ErrExhausted, d.min, d.max)
}
