package kvstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// errStale says that somebody else changed the policies in between.
var errStale = errors.New("policies changed meanwhile")

// Import stores policies, in place of those of the same key and those that replace selects (nil: none others), all at
// once, and returns the revision at which they are in force. On an error nothing has changed, unless it is ErrUnreachable.
func (p *Policies) Import(ctx context.Context, ps []StoredPolicy, replace func(StoredPolicy) bool) (revision uint64, err error) {
	if err := checkPolicies(ps); err != nil {
		return 0, fmt.Errorf("import policy: %w", err)
	}
	keys := index(ps)
	revision, err = p.update(ctx, func(cur map[string]StoredPolicy, next uint64) (c policyChange, ok bool) {
		for _, sp := range ps {
			sp.Ref.Revision = next
			c.Put = append(c.Put, sp)
		}
		for key, sp := range cur {
			if _, kept := keys[key]; !kept && replace != nil && replace(sp) {
				c.Delete = append(c.Delete, key)
			}
		}
		return c, true
	})
	if err != nil {
		return 0, fmt.Errorf("import policy: %w", err)
	}
	return revision, nil
}

// Delete removes the policies that match selects, all at once, and returns the revision without them and their number.
func (p *Policies) Delete(ctx context.Context, match func(StoredPolicy) bool) (revision uint64, count int, err error) {
	revision, err = p.update(ctx, func(cur map[string]StoredPolicy, _ uint64) (c policyChange, ok bool) {
		for key, sp := range cur {
			if match(sp) {
				c.Delete = append(c.Delete, key)
			}
		}
		count = len(c.Delete)
		return c, count > 0
	})
	if err != nil {
		return 0, 0, fmt.Errorf("delete policy: %w", err)
	}
	return revision, count, nil
}

// update applies what decide makes of the current rules as the next revision, again and again until nobody interferes.
func (p *Policies) update(ctx context.Context, decide func(cur map[string]StoredPolicy, next uint64) (policyChange, bool)) (uint64, error) {
	for {
		st, err := p.read(ctx)
		if err != nil {
			return 0, err
		}
		if !st.exists {
			if cur := p.Snapshot(); cur.Revision > 0 { // a store that lost its data: see apply
				p.restore(ctx, cur)
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				continue
			}
		}
		if st.change != "" {
			if err := p.settle(ctx, st); err != nil && !errors.Is(err, errStale) {
				return 0, err
			}
			continue
		}
		rules, err := st.effective()
		if err != nil {
			return 0, err
		}
		next := max(st.revision, p.Snapshot().Revision) + 1
		change, ok := decide(rules, next)
		if !ok {
			return st.revision, nil
		}
		if err := p.commit(ctx, st.rev, next, change); !errors.Is(err, errStale) {
			return next, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

func (p *Policies) read(ctx context.Context) (*policyState, error) {
	kvs, _, err := p.s.list(ctx, policyRoot)
	if err != nil {
		return nil, err
	}
	st := newPolicyState()
	for _, kv := range kvs {
		if err := st.put(kv.Key, kv.Value, kv.Revision); err != nil {
			return nil, fmt.Errorf("%s is unreadable, delete it: %w", kv.Key, err)
		}
	}
	return st, nil
}

// restore gives a store without policies those of cur.
func (p *Policies) restore(ctx context.Context, cur PolicySnapshot) {
	for wait := retryMin; ; wait = min(2*wait, p.s.cfg.Retry) {
		err := p.commit(ctx, 0, cur.Revision, policyChange{Put: rows(cur.Policies)})
		if err == nil || errors.Is(err, errStale) || !sleep(ctx, wait) {
			return
		}
	}
}

// commit puts a change in force as revision next if the revision key is still at rev; else errStale.
func (p *Policies) commit(ctx context.Context, rev int64, next uint64, change policyChange) error {
	ops, size, err := changeOps(change)
	if err != nil {
		return err
	}
	same := clientv3.Compare(clientv3.ModRevision(policyRevision), "=", rev)
	if len(ops) < p.s.maxOps && size < maxRequest {
		return p.txn(ctx, []clientv3.Cmp{same}, append(ops, clientv3.OpPut(policyRevision, formatRevision(next))))
	}
	name := rand.Text()
	parts, err := split(change)
	if err != nil {
		return err
	}
	if len(parts) > defaultTxnOps-1 {
		return fmt.Errorf("%d policies are too many for one change: import them in parts", len(change.Put))
	}
	conds := []clientv3.Cmp{same}
	for n, part := range parts {
		key := policyStaged + stagedKey(name, n)
		if err := p.txn(ctx, nil, []clientv3.Op{clientv3.OpPut(key, part)}); err != nil {
			return err
		}
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
	}
	value := fmt.Sprintf("%s %s %d", formatRevision(next), name, len(parts))
	if err := p.txn(ctx, conds, []clientv3.Op{clientv3.OpPut(policyRevision, value)}); err != nil {
		if errors.Is(err, errStale) {
			_ = p.txn(ctx, nil, []clientv3.Op{clientv3.OpDelete(policyStaged+name+"/", clientv3.WithPrefix())}) // else settle does
		}
		return err
	}
	// In force. That moving it fails is no failure of the change: whoever writes next does it.
	if st, err := p.read(ctx); err == nil && st.change == name {
		if err := p.settle(ctx, st); err != nil {
			p.s.log.Debug("staged policies not moved yet", "err", err)
		}
	}
	return nil
}

// settle moves the staged change in force into the rules, and clears what abandoned changes left.
func (p *Policies) settle(ctx context.Context, st *policyState) error {
	over, err := st.overlay()
	if err != nil {
		return err
	}
	ops, _, err := changeOps(over)
	if err != nil {
		return err
	}
	same := []clientv3.Cmp{clientv3.Compare(clientv3.Value(policyRevision), "=", st.value)}
	for len(ops) > 0 {
		n, size := 0, 0
		for n < len(ops) && n < defaultTxnOps && (n == 0 || size+opSize(ops[n]) < maxRequest) {
			size += opSize(ops[n])
			n++
		}
		if err := p.txn(ctx, same, ops[:n]); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return p.txn(ctx, same, []clientv3.Op{
		clientv3.OpPut(policyRevision, formatRevision(st.revision)),
		clientv3.OpDelete(policyStaged, clientv3.WithPrefix()),
	})
}

func (p *Policies) txn(ctx context.Context, conds []clientv3.Cmp, ops []clientv3.Op) error {
	rctx, cancel := p.s.request(ctx)
	defer cancel()
	resp, err := p.s.cli.Txn(rctx).If(conds...).Then(ops...).Commit()
	if err != nil {
		return wrap(ctx, "write policies", err)
	}
	if !resp.Succeeded {
		return errStale
	}
	return nil
}

func opSize(op clientv3.Op) int { return len(op.KeyBytes()) + len(op.ValueBytes()) + 16 }

func changeOps(c policyChange) (ops []clientv3.Op, size int, err error) {
	for _, key := range c.Delete {
		ops = append(ops, clientv3.OpDelete(policyRules+key))
	}
	for _, sp := range c.Put {
		value, err := json.Marshal(sp)
		if err != nil {
			return nil, 0, err
		}
		ops = append(ops, clientv3.OpPut(policyRules+sp.Key, string(value)))
	}
	for _, op := range ops {
		size += opSize(op)
	}
	return ops, size, nil
}

// split cuts a change into parts that fit into one write each.
func split(c policyChange) (parts []string, err error) {
	var part policyChange
	size := 0
	flush := func() error {
		data, err := json.Marshal(part)
		parts, part, size = append(parts, string(data)), policyChange{}, 0
		return err
	}
	for _, key := range slices.Sorted(slices.Values(c.Delete)) {
		if size += len(key) + 8; size > maxRequest/2 {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		part.Delete = append(part.Delete, key)
	}
	puts := index(c.Put)
	for _, key := range slices.Sorted(maps.Keys(puts)) {
		sp := puts[key]
		n := len(sp.Raw) + len(key)*2 + 512 + len(strings.Join(sp.Ref.Labels.Strings(), " "))
		if size += n; size > maxRequest*3/4 {
			if err := flush(); err != nil {
				return nil, err
			}
			size = n
		}
		part.Put = append(part.Put, sp)
	}
	return parts, flush()
}
