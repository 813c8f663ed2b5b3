package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/state"
)

const podCIDRCache = "podcidr.json"

// Chooser picks a node's pod ranges.
type Chooser = state.Chooser

// ClaimPodCIDRs makes the pod ranges that choose picks this node's own, for good: no other node gets one that overlaps.
// Asked again, or after a restart, it returns what the node has as long as choose picks that; ranges of the node that
// choose does not pick any more are given back. Without the store it returns what the node had at its last start, if
// choose still picks it, else ErrUnreachable.
func (s *Store) ClaimPodCIDRs(ctx context.Context, choose Chooser) ([]netip.Prefix, error) {
	path := filepath.Join(s.cfg.Paths.State, podCIDRCache)
	var had []netip.Prefix
	if err := file.ReadJSON(path, &had); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("pod ranges of the last run not used", "err", err)
		had = nil
	}
	got, err := s.claimPodCIDRs(ctx, choose, had)
	if errors.Is(err, ErrUnreachable) && len(had) > 0 {
		taken := map[netip.Prefix]string{}
		for _, p := range had {
			taken[p] = s.cfg.NodeName
		}
		if again, cerr := choose(s.cfg.NodeName, taken, had); cerr == nil && slices.Equal(again, had) {
			s.log.Warn("kvstore does not answer, keeping the pod ranges of the last run", "ranges", had, "err", err)
			return had, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("claim pod ranges: %w", err)
	}
	if !slices.Equal(got, had) {
		if s.noteRanges(path, got) != nil {
			s.start(func(ctx context.Context) {
				for sleep(ctx, s.cfg.Retry) && s.noteRanges(path, got) != nil {
				}
			})
		}
	}
	return got, nil
}

// noteRanges keeps the ranges for a start without the store. The store has them: a disk that is full is no reason to have none.
func (s *Store) noteRanges(path string, ranges []netip.Prefix) error {
	err := file.WriteJSON(path, ranges, 0o600)
	s.unclaimed.Note(err)
	return err
}

func (s *Store) claimPodCIDRs(ctx context.Context, choose Chooser, had []netip.Prefix) ([]netip.Prefix, error) {
	for {
		taken, rev, err := s.podCIDRs(ctx)
		if err != nil {
			return nil, err
		}
		want, err := choose(s.cfg.NodeName, taken, had)
		if err != nil {
			return nil, err
		}
		// Nobody may have claimed anything since we looked.
		conds := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(podCIDRRoot).WithPrefix(), "<", rev+1)}
		var ops []clientv3.Op
		for _, p := range want {
			if owner, ok := taken[p]; !ok {
				ops = append(ops, clientv3.OpPut(podCIDRRoot+p.String(), s.cfg.NodeName))
			} else if owner != s.cfg.NodeName {
				return nil, fmt.Errorf("%s belongs to node %s", p, owner)
			}
		}
		for p, owner := range taken {
			if owner == s.cfg.NodeName && !slices.Contains(want, p) {
				ops = append(ops, clientv3.OpDelete(podCIDRRoot+p.String()))
			}
		}
		if len(ops) == 0 {
			return want, nil
		}
		rctx, cancel := s.request(ctx)
		resp, err := s.cli.Txn(rctx).If(conds...).Then(ops...).Commit()
		cancel()
		if err != nil {
			return nil, wrap(ctx, "ask the store", err)
		}
		if resp.Succeeded {
			return want, nil
		}
	}
}

// PodCIDRs says which node has which pod ranges.
func (s *Store) PodCIDRs(ctx context.Context) (map[netip.Prefix]string, error) {
	taken, _, err := s.podCIDRs(ctx)
	return taken, err
}

// ReleasePodCIDRs gives back all pod ranges of a node that will not come back, and returns how many.
func (s *Store) ReleasePodCIDRs(ctx context.Context, node string) (int, error) {
	taken, _, err := s.podCIDRs(ctx)
	if err != nil {
		return 0, fmt.Errorf("release pod ranges: %w", err)
	}
	n := 0
	for p, owner := range taken {
		if owner != node {
			continue
		}
		if _, err := s.Delete(ctx, podCIDRRoot+p.String(), false); err != nil {
			return n, fmt.Errorf("release pod ranges: %w", err)
		}
		n++
	}
	return n, nil
}

func (s *Store) podCIDRs(ctx context.Context) (map[netip.Prefix]string, int64, error) {
	kvs, rev, err := s.list(ctx, podCIDRRoot)
	if err != nil {
		return nil, 0, err
	}
	taken := make(map[netip.Prefix]string, len(kvs))
	for _, kv := range kvs {
		p, err := netip.ParsePrefix(kv.Key[len(podCIDRRoot):])
		if err != nil {
			return nil, 0, fmt.Errorf("%s is unreadable, delete it: %w", kv.Key, err)
		}
		taken[p.Masked()] = string(kv.Value)
	}
	return taken, rev, nil
}
