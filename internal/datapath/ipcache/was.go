package ipcache

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// was is who an address was, and until when that is on record.
type was struct {
	id    model.IdentityID
	until time.Time
}

// remember notes who a workload behind the overlay was, when its row is to name another identity: its node tells of a change
// before it sends under the new one, and what comes meanwhile is neither forged nor lost.
func (c *Cache) remember(p netip.Prefix, have, want dpmaps.IP) {
	if !p.IsSingleIP() || !have.Overlay || !want.Overlay || have.Tunnel != want.Tunnel || have.Identity == 0 || have.Identity == want.Identity {
		return
	}
	if err := c.kern.PutWas(p.Addr(), have.Identity); err != nil {
		c.log.Warn("who an address was is not written: its node's packets are refused until it sends under the new identity", "address", p.Addr(), "err", err)
		return
	}
	c.was[p.Addr()] = was{have.Identity, c.now().Add(c.cfg.Was)}
}

// Forget removes the notes of who addresses were once their time is over.
func (c *Cache) Forget() (failed error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for a, w := range c.was {
		if now.After(w.until) {
			failed = errors.Join(failed, c.forget(a))
			want, _ := c.wanted(netip.PrefixFrom(a, a.BitLen()))
			c.house(netip.PrefixFrom(a, a.BitLen()), want.Identity)
		}
	}
	return failed
}

func (c *Cache) forget(a netip.Addr) error {
	if _, ok := c.was[a]; !ok {
		return nil
	}
	if err := c.kern.DeleteWas(a); err != nil {
		return fmt.Errorf("ipcache %s: %w", a, err)
	}
	delete(c.was, a)
	return nil
}

// adoptWas takes over the notes of an agent before.
func (c *Cache) adoptWas() error {
	rows, err := c.kern.Was()
	if err != nil {
		return fmt.Errorf("adopt ipcache: %w", err)
	}
	c.was = make(map[netip.Addr]was, len(rows))
	for a, id := range rows {
		c.was[a] = was{id, c.now().Add(c.cfg.Was)}
	}
	return nil
}
