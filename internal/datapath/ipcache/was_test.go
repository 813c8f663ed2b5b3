package ipcache

import (
	"log/slog"
	"maps"
	"net/netip"
	"testing"
	"time"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Who a workload behind the overlay was is on record for a while after its identity changes, over a restart too, and not for
// one that went, or that another node has now.
func TestFormerIdentity(t *testing.T) {
	k := newFake(100, 200, 300)
	now := time.Now()
	open := func() *Cache {
		c, err := New(Config{Overlay: true, Was: time.Second}, Deps{Log: slog.New(slog.DiscardHandler), Kernel: k, Now: func() time.Time { return now }})
		must(t, err)
		return c
	}
	c := open()
	node, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	put := func(addr string, id model.IdentityID, node netip.Addr) {
		t.Helper()
		must(t, c.Upsert(pfx(addr+"/32"), model.IPEntry{Identity: id, Tunnel: node, Source: model.IPSourceKVStore}))
	}
	check := func(when string, want map[string]model.IdentityID) {
		t.Helper()
		is := map[string]model.IdentityID{}
		for a, id := range k.was {
			is[a.String()] = id
		}
		if !maps.Equal(is, want) {
			t.Errorf("%s: %v, want %v", when, is, want)
		}
	}
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		put(a, 100, node)
		put(a, 100, node)
	}
	put("10.0.0.9", 100, netip.Addr{})
	put("10.0.0.9", 200, netip.Addr{}) // not behind the overlay
	check("nothing changed", map[string]model.IdentityID{})
	put("10.0.0.1", 200, node)
	put("10.0.0.2", 200, node)
	put("10.0.0.3", 200, other)
	check("identities changed", map[string]model.IdentityID{"10.0.0.1": 100, "10.0.0.2": 100})
	must(t, c.Delete(pfx("10.0.0.2/32"), model.IPSourceKVStore))
	check("a workload went", map[string]model.IdentityID{"10.0.0.1": 100})
	now = now.Add(900 * time.Millisecond)
	must(t, c.Forget())
	put("10.0.0.1", 300, node)
	check("changed again", map[string]model.IdentityID{"10.0.0.1": 200})
	c = open()
	now = now.Add(900 * time.Millisecond)
	must(t, c.Forget())
	check("after a restart", map[string]model.IdentityID{"10.0.0.1": 200})
	now = now.Add(200 * time.Millisecond)
	must(t, c.Forget())
	check("a second later", map[string]model.IdentityID{})
	if k.rows[pfx("10.0.0.1/32")] != (dpmaps.IP{Identity: 300, Overlay: true, Tunnel: node}) {
		t.Errorf("row %+v", k.rows[pfx("10.0.0.1/32")])
	}
}

// An identity that is not known here yet leaves the address without one; who it was stays on record meanwhile.
func TestFormerIdentityWhileTheNextWaits(t *testing.T) {
	k := newFake(100)
	c := newCache(t, k)
	node := netip.MustParseAddr("192.0.2.2")
	for _, id := range []model.IdentityID{100, 200} {
		must(t, c.Upsert(pfx("10.0.0.1/32"), model.IPEntry{Identity: id, Tunnel: node, Source: model.IPSourceKVStore}))
	}
	must(t, c.ClassesKnown([]model.IdentityID{200}))
	if a := netip.MustParseAddr("10.0.0.1"); k.was[a] != 100 || k.rows[pfx("10.0.0.1/32")].Identity != 200 {
		t.Errorf("was %d, is %+v", k.was[a], k.rows[pfx("10.0.0.1/32")])
	}
}
