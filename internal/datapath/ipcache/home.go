package ipcache

import (
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// house publishes who lives at an address: id, unless that is nobody of the cluster, and who was there a moment ago.
func (c *Cache) house(p netip.Prefix, id model.IdentityID) {
	if !p.IsSingleIP() {
		return
	}
	a := p.Addr()
	var now []model.IdentityID
	if !outside(id) && id&model.IdentityScopeMask != model.IdentityScopeLocal {
		now = append(now, id)
	}
	if w, ok := c.was[a]; ok && w.id != id {
		now = append(now, w.id)
	}
	switch before, there := c.homes.Get(a); {
	case len(now) == 0 && there:
		c.homes.Delete(a)
	case !slices.Equal(before, now):
		c.homes.Set(a, now)
	}
}
