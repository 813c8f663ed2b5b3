// Package ipcache owns the kernel's ipcache: who lives at which address, merged from several sources and from the
// prefixes of policies.
//
// For each prefix the entry of the strongest source counts. A policy prefix gives its node-local identity where no entry
// knows better, its own or the narrowest one around it, and takes tunnel and flags from that one: a CIDR of a policy
// changes who an address outside is, not how it is reached, and makes no workload that is yet to be heard of an outsider.
//
//	Upsert, Delete (sources)            \
//	PutPolicyPrefixes, Delete... (plans) > wanted row per prefix -> kernel, and a new policy epoch where
//	what the kernel held at start       /   an address changes or loses the identity or node it was known by
//
// What the kernel held at start counts as the weakest source until Complete: nothing is deleted before its source has
// said all it knows. An identity that class_v1 does not know yet is not written: an address that had another one gets
// identity 0, which is let nowhere; a new address waits.
package ipcache

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Kernel is what a Cache writes to: maps.Maps.
type Kernel interface {
	PutIP(netip.Prefix, dpmaps.IP) error
	DeleteIP(netip.Prefix) error
	PutWas(netip.Addr, model.IdentityID) error
	DeleteWas(netip.Addr) error
	Was() (map[netip.Addr]model.IdentityID, error)
	IPs() (map[netip.Prefix]dpmaps.IP, error)
	Classes() (map[model.Peer]model.ClassID, error)
	BumpEpoch() error
}

// Config says how rows are made.
type Config struct {
	Overlay bool          // what has a tunnel address is reached through the overlay
	Was     time.Duration // how long packets of a workload behind the overlay are believed under the identity it had before
}

// Deps are what New needs from others.
type Deps struct {
	Log    *slog.Logger
	Kernel Kernel
	Now    func() time.Time // nil: time.Now
}

// Cache is the one writer of the ipcache. Its methods are safe for concurrent use. When one fails, what it was told
// stays known, and Retry or the next call about the same prefix tries again.
type Cache struct {
	cfg  Config
	log  *slog.Logger
	kern Kernel
	now  func() time.Time

	mu       sync.Mutex
	entries  map[netip.Prefix]map[model.IPSource]model.IPEntry
	restored map[netip.Prefix]dpmaps.IP // found at start; nil after Complete
	policy   map[netip.Prefix]model.IdentityID
	known    map[model.IdentityID]bool // identities with a row in class_v1
	rows     map[netip.Prefix]dpmaps.IP
	waiting  map[netip.Prefix]model.IdentityID // rows that wait for the class of this identity
	failed   map[netip.Prefix]error
	bump     bool               // an epoch bump is due
	was      map[netip.Addr]was // who addresses were until a moment ago
	homes    *table.Table[netip.Addr, []model.IdentityID]
}

// New adopts what the kernel holds.
func New(cfg Config, deps Deps) (*Cache, error) {
	rows, err := deps.Kernel.IPs()
	if err != nil {
		return nil, fmt.Errorf("adopt ipcache: %w", err)
	}
	classes, err := deps.Kernel.Classes()
	if err != nil {
		return nil, fmt.Errorf("adopt ipcache: %w", err)
	}
	c := &Cache{cfg: cfg, log: deps.Log, kern: deps.Kernel, now: deps.Now, entries: map[netip.Prefix]map[model.IPSource]model.IPEntry{},
		restored: map[netip.Prefix]dpmaps.IP{}, policy: map[netip.Prefix]model.IdentityID{}, known: map[model.IdentityID]bool{},
		rows: rows, waiting: map[netip.Prefix]model.IdentityID{}, failed: map[netip.Prefix]error{},
		homes: table.New[netip.Addr, []model.IdentityID]("homes", table.Addr)}
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.adoptWas(); err != nil {
		return nil, err
	}
	for p := range classes {
		if p.Area == 0 {
			c.known[p.Identity] = true
		}
	}
	for p, row := range rows {
		if row.Identity&model.IdentityScopeMask == model.IdentityScopeLocal {
			c.policy[p] = row.Identity // its owner, the policy, says itself when it goes
		}
		c.restored[p] = row
	}
	for p := range rows {
		if want, ok := c.wanted(p); ok {
			c.house(p, want.Identity)
		}
	}
	return c, nil
}

// Homes are the addresses of workloads and nodes, and who lives there by what the sources say, written yet or not; for a moment
// also who did until then.
func (c *Cache) Homes() *table.Table[netip.Addr, []model.IdentityID] { return c.homes }

// Upsert notes what a source says of a prefix and writes what follows from it. e.Source names the source.
func (c *Cache) Upsert(p netip.Prefix, e model.IPEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p = p.Masked()
	if !p.IsValid() {
		return fmt.Errorf("ipcache: not a prefix: %v", p)
	}
	if c.entries[p] == nil {
		c.entries[p] = map[model.IPSource]model.IPEntry{}
	}
	c.entries[p][e.Source] = e
	return c.settle(p)
}

// Delete forgets what a source said of a prefix; the next source counts then. Nothing said is no error.
func (c *Cache) Delete(p netip.Prefix, source model.IPSource) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p = p.Masked()
	delete(c.entries[p], source)
	if len(c.entries[p]) == 0 {
		delete(c.entries, p)
		delete(c.restored, p) // the source has spoken: what was found at start is not it any more
	}
	return c.settle(p)
}

// PutPolicyPrefixes writes policy prefixes with their node-local identities. It does not bump the epoch: the policy
// step that brings them does.
func (c *Cache) PutPolicyPrefixes(add map[netip.Prefix]model.IdentityID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, id := range add {
		c.policy[p.Masked()] = id
	}
	return c.write(slices.Collect(maps.Keys(add)), false)
}

// DeletePolicyPrefixes removes policy prefixes. Absent is no error.
func (c *Cache) DeletePolicyPrefixes(gone []netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range gone {
		p = p.Masked()
		delete(c.policy, p)
		if r, ok := c.restored[p]; ok && r.Identity&model.IdentityScopeMask == model.IdentityScopeLocal {
			delete(c.restored, p)
		}
	}
	return c.write(gone, false)
}

// ClassesKnown says that class_v1 has rows for these identities: rows that waited for them are written.
func (c *Cache) ClassesKnown(ids []model.IdentityID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := map[model.IdentityID]bool{}
	for _, id := range ids {
		if !c.known[id] {
			c.known[id], fresh[id] = true, true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	var ps []netip.Prefix
	for p, id := range c.waiting {
		if fresh[id] {
			ps = append(ps, p)
		}
	}
	return c.write(ps, true)
}

// ClassesGone says that the rows of these identities in class_v1 go. Rows that name them stay: they are let nowhere.
func (c *Cache) ClassesGone(ids []model.IdentityID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		delete(c.known, id)
	}
	return nil
}

// Complete says that all sources have told all they know: rows found at start that nobody claims are deleted.
func (c *Cache) Complete() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored = nil
	ps := slices.Collect(maps.Keys(c.rows))
	return c.write(ps, true)
}

// Retry tries again what failed.
func (c *Cache) Retry() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(slices.Collect(maps.Keys(c.failed)), true)
}

// Status says how many prefixes wait for the class of their identity and how many could not be written.
func (c *Cache) Status() (rows, waiting, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rows), len(c.waiting), len(c.failed)
}
