package ipcache

import (
	"errors"
	"fmt"
	"net/netip"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// settle writes the row of a prefix and of the policy prefixes that take their way from it.
func (c *Cache) settle(p netip.Prefix) error {
	ps := []netip.Prefix{p}
	if !p.IsSingleIP() {
		for q := range c.policy {
			if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
				ps = append(ps, q)
			}
		}
	}
	return c.write(ps, true)
}

// write brings rows in line with what is wanted, then bumps the epoch if an address changed or lost its identity or its way
// and mayBump says that nobody else does.
func (c *Cache) write(ps []netip.Prefix, mayBump bool) error {
	var failed error
	for _, p := range ps {
		p = p.Masked()
		changed, err := c.writeOne(p)
		c.bump = c.bump || changed && mayBump
		if err != nil {
			c.failed[p] = err
			failed = errors.Join(failed, err)
		} else {
			delete(c.failed, p)
		}
	}
	if c.bump {
		if err := c.kern.BumpEpoch(); err != nil {
			return errors.Join(failed, err) // still due: the next write tries again
		}
		c.bump = false
	}
	return failed
}

// writeOne writes or deletes one row. changed: addresses of the prefix are known by another identity now, or live behind
// another node: connections on record know both.
func (c *Cache) writeOne(p netip.Prefix) (changed bool, err error) {
	want, ok := c.wanted(p)
	defer c.house(p, want.Identity)
	have, had := c.rows[p]
	delete(c.waiting, p)
	if ok && want.Identity != 0 && !c.known[want.Identity] && (!had || have.Identity != want.Identity) {
		c.waiting[p] = want.Identity
		want.Identity = 0
		ok = had
	}
	before := have
	if !had {
		before = c.around(p)
	}
	switch {
	case ok && (!had || want != have):
		c.remember(p, have, want)
		if err := c.kern.PutIP(p, want); err != nil {
			return false, fmt.Errorf("ipcache %s: %w", p, err)
		}
		c.rows[p] = want
		return elsewhere(before, want), nil
	case !ok && had:
		if err := c.kern.DeleteIP(p); err != nil {
			return false, fmt.Errorf("ipcache %s: %w", p, err)
		}
		delete(c.rows, p)
		if err := c.forget(p.Addr()); err != nil {
			return true, err
		}
		return elsewhere(before, c.around(p)), nil
	}
	return false, nil
}

// elsewhere says whether what is on record of an address is not true any more.
func elsewhere(before, now dpmaps.IP) bool {
	return before.Identity != 0 && (before.Identity != now.Identity || before.Overlay != now.Overlay || before.LocalCIDR != now.LocalCIDR) ||
		before.Overlay && before.Tunnel != now.Tunnel
}

// around is the narrowest row in the kernel that covers p, other than p's own; blank if there is none.
func (c *Cache) around(p netip.Prefix) dpmaps.IP {
	for q, ok := parent(p); ok; q, ok = parent(q) {
		if row, ok := c.rows[q]; ok {
			return row
		}
	}
	return dpmaps.IP{}
}

// wanted is the row that a prefix should have. A policy prefix inside a range of which it is known whose it is (a node's
// pod range) has none: policies' CIDRs are about what is outside, and the range's own row says who the addresses are.
func (c *Cache) wanted(p netip.Prefix) (dpmaps.IP, bool) {
	row, ok := c.entry(p)
	id, policy := c.policy[p]
	if !policy {
		return row, ok
	}
	if !ok {
		for q, more := parent(p); more; q, more = parent(q) {
			if around, found := c.entry(q); found {
				if !outside(around.Identity) {
					return row, false
				}
				row = around
				row.Node = false // said of whole addresses only
				break
			}
		}
		row.Identity = id
		return row, true
	}
	if outside(row.Identity) {
		row.Identity = id
	}
	return row, true
}

// outside says whether an identity stands for "somewhere in the world", which a policy prefix knows better.
func outside(id model.IdentityID) bool {
	switch id {
	case model.IdentityUnknown, model.IdentityWorld, model.IdentityWorldIPv4, model.IdentityWorldIPv6:
		return true
	}
	return false
}

// entry is the row from the strongest source of a prefix. What the kernel held at start counts where no source speaks; it is
// newer than what an agent before wrote down (IPSourceRestored), which was some seconds behind when that was killed.
func (c *Cache) entry(p netip.Prefix) (dpmaps.IP, bool) {
	var best *model.IPEntry
	for _, e := range c.entries[p] {
		if best == nil || e.Source > best.Source {
			best = &e
		}
	}
	row, ok := c.restored[p]
	if best == nil || ok && best.Source <= model.IPSourceRestored {
		if ok && row.Identity&model.IdentityScopeMask == model.IdentityScopeLocal {
			row.Identity = 0 // the policy's, not an entry's; how it is reached still counts
		}
		return row, ok
	}
	return dpmaps.IP{Identity: best.Identity, Node: best.Node, NoMasq: best.NoMasq, LocalCIDR: best.LocalCIDR,
		Overlay: c.cfg.Overlay && best.Tunnel.IsValid(), Tunnel: best.Tunnel.Unmap()}, true
}

// parent is the next wider prefix.
func parent(p netip.Prefix) (netip.Prefix, bool) {
	if p.Bits() <= 0 {
		return p, false
	}
	return netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked(), true
}
