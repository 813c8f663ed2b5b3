package k8s

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/state"
)

const podCIDRCache = "podcidr.json"

// PodCIDRs are this node's pod ranges, as IPAM has them. As long as it has none yet, or the API server does not answer, the error is
// state.ErrUnreachable, unless they are known from the last run.
func (s *Store) PodCIDRs(ctx context.Context) ([]netip.Prefix, error) {
	path := filepath.Join(s.cfg.Paths.State, podCIDRCache)
	var had []netip.Prefix
	if err := file.ReadJSON(path, &had); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("pod ranges of the last run not used", "err", err)
		had = nil
	}
	got, err := s.podCIDRs(ctx)
	if errors.Is(err, state.ErrUnreachable) && len(had) > 0 {
		s.log.Warn("the API server tells no pod ranges, keeping those of the last run", "ranges", had, "err", err)
		return had, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find pod ranges: %w", err)
	}
	if !slices.Equal(got, had) {
		if err := file.WriteJSON(path, got, 0o600); err != nil {
			s.log.Warn("pod ranges not noted: a start without the API server will have none", "err", err)
		}
	}
	return got, nil
}

func (s *Store) podCIDRs(ctx context.Context) ([]netip.Prefix, error) {
	node, err := s.nodes.self(ctx)
	if err != nil {
		return nil, err
	}
	what, texts := "Node", node.Spec.PodCIDRs
	if s.cfg.IPAM == IPAMClusterPool {
		what, texts = "CiliumNode", nil
		var mine ciliumv2.CiliumNode
		// The operator answers a CiliumNode that is there.
		if err := s.nodes.writer.put(name{name: s.cfg.NodeName}, s.nodes.object(model.Node{Name: s.cfg.NodeName, Addrs: s.cfg.Addrs})); err != nil {
			return nil, err
		}
		if err := get(ctx, s.clients.cilium, "ciliumnodes", "", s.cfg.NodeName, &mine); err != nil {
			return nil, fmt.Errorf("%w: %w", state.ErrUnreachable, err)
		}
		if why := mine.Status.IPAM.OperatorStatus.Error; why != "" && len(mine.Spec.IPAM.PodCIDRs) == 0 {
			return nil, fmt.Errorf("%w: the operator says: %s", state.ErrUnreachable, why)
		}
		for _, c := range mine.Spec.IPAM.PodCIDRs {
			texts = append(texts, string(c))
		}
	}
	all, err := podCIDRs(texts)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, s.cfg.NodeName, err)
	}
	var v4, v6 bool
	all = slices.DeleteFunc(all, func(p netip.Prefix) bool {
		is6 := p.Addr().Is6()
		v4, v6 = v4 || !is6, v6 || is6
		return is6 && !s.cfg.IPv6 || !is6 && !s.cfg.IPv4
	})
	if s.cfg.IPv4 && !v4 || s.cfg.IPv6 && !v6 {
		return nil, fmt.Errorf("%w: %s %s has not got a pod range of each IP version yet, only %v", state.ErrUnreachable, what, s.cfg.NodeName, all)
	}
	return all, nil
}
