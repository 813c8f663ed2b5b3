package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/model"
)

// How services are written. Three keys take part, and every write is one transaction on condition that what was read of
// them still stands, so agents may race each other freely:
//
//	id        id -> service        makes sure of one frontend for a number
//	frontend  frontend -> id       makes sure of one service for a frontend
//	freed     id -> frontend       leased: the number was given back not long ago; nobody gets it who does not ask for it by name

// serviceSeen is what the store said of a service's keys. Revision 0: no such key.
type serviceSeen struct {
	row              *StoredService
	rowRev, frontRev int64
	frontID          model.ServiceID
	freedRev         int64
}

// Put stores a service, in place of the one with the same number or, with number 0, of the same frontend; a new one without
// number gets one. A frontend has one service in the cluster: ErrTaken says whose it is. A service that another owner put there
// is ErrNotOurs.
func (v *Services) Put(ctx context.Context, svc StoredService) (id model.ServiceID, created bool, err error) {
	asked := svc.ID
	for {
		if svc.ID = asked; asked == 0 {
			if svc.ID, err = v.find(ctx, svc.Frontend); err != nil {
				return 0, false, fmt.Errorf("update service: %w", err)
			}
		}
		seen, err := v.look(ctx, svc.ID, svc.Frontend)
		if err != nil {
			return 0, false, fmt.Errorf("update service: %w", err)
		}
		if asked == 0 && (seen.rowRev != 0 && seen.frontID != svc.ID || seen.freedRev != 0) {
			continue // somebody else got the number that we picked, or gave it back just now
		}
		if err := v.judge(ctx, &svc, seen); err != nil {
			return 0, false, fmt.Errorf("update service: %w", err)
		}
		ok, err := v.write(ctx, &svc, seen)
		if err != nil {
			return 0, false, fmt.Errorf("update service: %w", err)
		}
		if ok {
			return svc.ID, seen.rowRev == 0, nil
		}
	}
}

// judge says whether a service may be written where seen stands.
func (v *Services) judge(ctx context.Context, svc *StoredService, seen serviceSeen) error {
	if seen.row != nil {
		if err := mayChange(seen.row, svc.Owner); err != nil {
			return err
		}
		if seen.row.Frontend != svc.Frontend {
			return fmt.Errorf("number %d %w by %s: choose another number, or delete that service first", svc.ID, ErrTaken, describe(seen.row))
		}
	}
	if seen.frontRev == 0 || seen.frontID == svc.ID {
		return nil
	}
	other, err := v.get(ctx, seen.frontID)
	if errors.Is(err, ErrNoKey) {
		return nil // the key is a leftover; write makes sure that it still is
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("frontend %s %w by %s", svc.Frontend, ErrTaken, describe(&other))
}

// mayChange says whether an owner may change a service.
func mayChange(row *StoredService, owner string) error {
	if row.Owner == owner {
		return nil
	}
	return fmt.Errorf("%s %w", describe(row), ErrNotOurs)
}

// describe names a service for people: who has it.
func describe(s *StoredService) string {
	text := fmt.Sprintf("service %d (%s", s.ID, s.Frontend)
	if s.Name != "" {
		text += ", " + s.FullName()
	}
	if n := s.FileNode(); n != "" {
		text += ", from the services file of node " + n
	}
	return text + ")"
}

// find is the number of a frontend's service, or one that nobody has.
func (v *Services) find(ctx context.Context, f model.Frontend) (model.ServiceID, error) {
	kv, err := v.s.Get(ctx, frontendKey(f))
	if err == nil {
		id, err := strconv.ParseUint(string(kv.Value), 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s is unreadable, delete it: %w", kv.Key, err)
		}
		return model.ServiceID(id), nil
	}
	if !errors.Is(err, ErrNoKey) {
		return 0, err
	}
	return v.pick(), nil
}

// pick is a number that is not known to be in use: the one behind the greatest, so that old ones rest as long as can be.
func (v *Services) pick() model.ServiceID {
	v.mu.Lock()
	defer v.mu.Unlock()
	snap := v.f.tab.Snapshot()
	if v.picked == 0 {
		for id := range snap.All() {
			v.picked = max(v.picked, id) // in order: the last is the greatest
		}
	}
	for {
		if v.picked++; v.picked == 0 || v.picked > MaxServiceID {
			v.picked = 1
		}
		if _, used := snap.Get(v.picked); !used {
			return v.picked
		}
	}
}

func (v *Services) get(ctx context.Context, id model.ServiceID) (StoredService, error) {
	kv, err := v.s.Get(ctx, serviceKey(id))
	if err != nil {
		return StoredService{}, err
	}
	_, row, _, err := parseService(kv.Key[len(serviceID):], kv.Value)
	return row, err
}

func (v *Services) look(ctx context.Context, id model.ServiceID, f model.Frontend) (seen serviceSeen, err error) {
	rctx, cancel := v.s.request(ctx)
	defer cancel()
	resp, err := v.s.cli.Txn(rctx).Then(clientv3.OpGet(serviceKey(id)), clientv3.OpGet(frontendKey(f)), clientv3.OpGet(serviceFreedKey(id))).Commit()
	if err != nil {
		return seen, wrap(ctx, "ask the store", err)
	}
	read := func(i int) ([]byte, int64) {
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			return kvs[0].Value, kvs[0].ModRevision
		}
		return nil, 0
	}
	var value []byte
	if value, seen.rowRev = read(0); seen.rowRev != 0 {
		_, row, _, err := parseService(strconv.FormatUint(uint64(id), 10), value)
		if err != nil {
			return seen, fmt.Errorf("%s is unreadable, delete it: %w", serviceKey(id), err)
		}
		seen.row = &row
	}
	if value, seen.frontRev = read(1); seen.frontRev != 0 {
		n, err := strconv.ParseUint(string(value), 10, 32)
		if err != nil {
			return seen, fmt.Errorf("%s is unreadable, delete it: %w", frontendKey(f), err)
		}
		seen.frontID = model.ServiceID(n)
	}
	_, seen.freedRev = read(2)
	return seen, nil
}

// write stores a service if seen still stands.
func (v *Services) write(ctx context.Context, svc *StoredService, seen serviceSeen) (bool, error) {
	value, err := json.Marshal(svc)
	if err != nil {
		return false, err
	}
	if len(value) > maxRequest {
		return false, fmt.Errorf("%d bytes are more than fit into the store (%d): use fewer backends", len(value), maxRequest)
	}
	rctx, cancel := v.s.request(ctx)
	defer cancel()
	conds := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(serviceKey(svc.ID)), "=", seen.rowRev),
		clientv3.Compare(clientv3.ModRevision(frontendKey(svc.Frontend)), "=", seen.frontRev),
	}
	if seen.frontRev != 0 && seen.frontID != svc.ID {
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(serviceKey(seen.frontID)), "=", 0))
	}
	resp, err := v.s.cli.Txn(rctx).If(conds...).Then(
		clientv3.OpPut(serviceKey(svc.ID), string(value)),
		clientv3.OpPut(frontendKey(svc.Frontend), strconv.FormatUint(uint64(svc.ID), 10)),
		clientv3.OpDelete(serviceFreedKey(svc.ID)),
	).Commit()
	if err != nil {
		return false, wrap(ctx, "ask the store", err)
	}
	return resp.Succeeded, nil
}

// Delete removes services of an owner and returns how many it has removed; that one is not there is no error. Their numbers rest
// for a while.
func (v *Services) Delete(ctx context.Context, owner string, ids ...model.ServiceID) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	rctx, cancel := v.s.request(ctx)
	rest, err := v.s.cli.Grant(rctx, max(1, int64(v.s.cfg.Quarantine/time.Second)))
	cancel()
	if err != nil {
		return 0, fmt.Errorf("delete service: %w", wrap(ctx, "ask the store", err))
	}
	var n atomic.Int64
	jobs := make([]func() error, len(ids))
	for i, id := range ids {
		jobs[i] = func() error {
			gone, err := v.remove(ctx, owner, id, rest.ID)
			if gone {
				n.Add(1)
			}
			return err
		}
	}
	if err := parallel(serviceWriters, jobs); err != nil {
		return int(n.Load()), fmt.Errorf("delete service: %w", err)
	}
	return int(n.Load()), nil
}

// serviceWriters is how many writes are on their way at a time: the store syncs them to its disk together.
const serviceWriters = 16

func (v *Services) remove(ctx context.Context, owner string, id model.ServiceID, rest clientv3.LeaseID) (gone bool, err error) {
	for {
		kv, err := v.s.Get(ctx, serviceKey(id))
		if errors.Is(err, ErrNoKey) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		conds := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(kv.Key), "=", kv.Revision)}
		ops := []clientv3.Op{clientv3.OpDelete(kv.Key)}
		_, row, _, err := parseService(kv.Key[len(serviceID):], kv.Value)
		if err == nil { // else there is nothing to be kept of it
			if err := mayChange(&row, owner); err != nil {
				return false, err
			}
			ops = append(ops, clientv3.OpPut(serviceFreedKey(id), row.Frontend.String(), clientv3.WithLease(rest)),
				clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(frontendKey(row.Frontend)), "=", kv.Key[len(serviceID):])},
					[]clientv3.Op{clientv3.OpDelete(frontendKey(row.Frontend))}, nil))
		}
		rctx, cancel := v.s.request(ctx)
		resp, err := v.s.cli.Txn(rctx).If(conds...).Then(ops...).Commit()
		cancel()
		if err != nil {
			return false, wrap(ctx, "ask the store", err)
		}
		if resp.Succeeded {
			return true, nil
		}
	}
}

// PutAll is Put for many: the error of each, by its place. Once the store does not answer it asks no more.
func (v *Services) PutAll(ctx context.Context, svcs []StoredService) []error {
	errs := make([]error, len(svcs))
	jobs := make([]func() error, len(svcs))
	var away atomic.Pointer[error]
	for i, svc := range svcs {
		jobs[i] = func() error {
			if err := away.Load(); err != nil {
				errs[i] = *err
				return nil
			}
			_, _, err := v.Put(ctx, svc)
			if errors.Is(err, ErrUnreachable) {
				away.Store(&err)
			}
			errs[i] = err
			return nil
		}
	}
	_ = parallel(serviceWriters, jobs) // errors are in errs
	return errs
}
