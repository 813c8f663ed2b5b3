package endpoint

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Check says whether an attachment is as it was made: known, ready, in this network namespace and with these addresses
// (empty: not compared), its devices in order. The error is ErrNotFound or ErrBroken.
func (m *Manager) Check(ctx context.Context, k Key, netns string, addrs []netip.Addr) error {
	ctx, end, err := m.begin(ctx, k)
	if err != nil {
		return fmt.Errorf("check %s: %w", k, err)
	}
	defer end()
	e := m.lookup(k)
	if e == nil || e.phase == phaseDeleting {
		return fmt.Errorf("check %s: %w", k, ErrNotFound)
	}
	if e.phase == phaseAdopted || e.redo {
		if err := m.regenerate(ctx, e); err != nil {
			return fmt.Errorf("check %s: %w: %w", k, ErrBroken, err)
		}
	}
	if netns != "" && netns != e.spec.NetNS {
		return fmt.Errorf("check %s: %w: it is in network namespace %s, not %s", k, ErrBroken, e.spec.NetNS, netns)
	}
	for _, a := range addrs {
		if !slices.Contains(e.addrs(), a.Unmap()) {
			return fmt.Errorf("check %s: %w: it has no address %s", k, ErrBroken, a)
		}
	}
	if err := m.deps.Links.Check(ctx, m.linkSpec(e)); err != nil {
		return fmt.Errorf("check %s: %w: %w", k, ErrBroken, err)
	}
	return nil
}
