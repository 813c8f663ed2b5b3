package app

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/control/identity"
	"github.com/hypha-net/hypha/internal/control/node"
	"github.com/hypha-net/hypha/internal/datapath/ipcache"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// cluster turns what is known of nodes and workloads into rows of addresses and routes.
type cluster struct {
	log   *slog.Logger
	self  model.Node
	opts  node.Options
	nodes *table.Table[string, model.Node]
	local *table.Table[uint16, model.Endpoint]
	api   *table.Table[netip.Addr, struct{}] // API servers of the cluster; nil where there are none

	nodeRows  *table.Table[netip.Prefix, model.IPEntry] // nodes, pod ranges, the outside
	localRows *table.Table[netip.Prefix, model.IPEntry] // this node's workloads
	routes    *table.Table[netip.Prefix, model.Route]

	moved chan struct{} // this node has other pod ranges

	mu      sync.Mutex
	numbers *numbers
	scoped  map[string]scoped   // by node
	ids     []model.Identity    // of scoped and of this node, each once; nil: to be gathered
	servers map[netip.Addr]bool // API servers,
	beyond  []netip.Addr        // and those that are no nodes, sorted
	known   bool                // where all of them are
	host    model.Labels        // of this node itself
	warned  []string
}

type scoped struct {
	id     model.IdentityID
	labels model.Labels
}

func newCluster(log *slog.Logger, self model.Node, opts node.Options, numbers *numbers, nodes *table.Table[string, model.Node],
	local *table.Table[uint16, model.Endpoint], api *table.Table[netip.Addr, struct{}]) *cluster {
	c := &cluster{log: log, self: self, opts: opts, nodes: nodes, local: local, api: api, numbers: numbers, scoped: map[string]scoped{},
		nodeRows: table.New[netip.Prefix, model.IPEntry]("node addresses", table.Prefix), localRows: table.New[netip.Prefix, model.IPEntry]("local addresses", table.Prefix),
		routes: table.New[netip.Prefix, model.Route]("routes", table.Prefix), moved: make(chan struct{}, 1)}
	c.opts.Identity = c.nodeIdentity
	return c
}

// nodeIdentity numbers a remote node: remote-node, or a number of its own where the node has labels of its own.
func (c *cluster) nodeIdentity(n *model.Node) model.IdentityID {
	labels := identity.RemoteNode(n, c.isAPI(n))
	if len(labels) == 1 {
		c.forget(n.Name)
		return model.IdentityRemoteNode
	}
	old, had := c.scoped[n.Name]
	if had && old.labels.Equal(labels) {
		return old.id
	}
	id, _, err := c.numbers.scope.Acquire(labels)
	if err != nil { // 16 million sets of labels
		c.log.Error("node has no identity of its own", "node", n.Name, "err", err)
		return model.IdentityRemoteNode
	}
	c.forget(n.Name)
	c.scoped[n.Name], c.ids = scoped{id, labels}, nil
	return id
}

func (c *cluster) forget(name string) {
	if old, ok := c.scoped[name]; ok {
		c.numbers.scope.Release(old.id)
		delete(c.scoped, name)
		c.ids = nil
	}
}

// isAPI says whether there is an API server at a node. All addresses of the node count as its: through the overlay it speaks under another
// one than that of its API server.
func (c *cluster) isAPI(n *model.Node) bool {
	return slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return c.servers[a] })
}

// APIServers are the addresses of API servers that are no nodes; not ok as long as it is not known where they are.
func (c *cluster) APIServers() (addrs []netip.Addr, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beyond, c.known || c.api == nil
}

// findServers takes in where API servers are.
func (c *cluster) findServers(nodes []model.Node, complete bool) {
	if c.api == nil {
		return
	}
	api := c.api.Snapshot()
	c.known = c.known || complete && api.Complete()
	c.servers = map[netip.Addr]bool{}
	for a := range api.All() {
		c.servers[a] = true
	}
	beyond := maps.Clone(c.servers)
	for _, n := range slices.Concat(nodes, []model.Node{c.self}) {
		for _, a := range n.Addrs {
			delete(beyond, a)
		}
	}
	c.beyond = slices.SortedFunc(maps.Keys(beyond), netip.Addr.Compare)
}

// Identities are the node-local identities of remote nodes, and that of this node where it has more labels than others: the same slice
// as long as they are the same.
func (c *cluster) Identities() []model.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids == nil {
		seen := map[model.IdentityID]model.Identity{}
		for _, s := range c.scoped {
			seen[s.id] = model.Identity{ID: s.id, Labels: s.labels}
		}
		if len(c.host) > 1 {
			seen[model.IdentityHost] = model.Identity{ID: model.IdentityHost, Labels: c.host}
		}
		c.ids = slices.Collect(maps.Values(seen))
	}
	return c.ids
}

// compute brings the derived tables up to date, once. changed is called when identities of nodes may have changed. When it fails,
// they are as they were.
func (c *cluster) compute(changed func()) error {
	nodes := c.nodes.Snapshot()
	c.mu.Lock()
	before, host, beyond, known := maps.Clone(c.scoped), c.host, c.beyond, c.known
	all := make([]model.Node, 0, nodes.Len())
	for _, n := range nodes.All() {
		all = append(all, n)
	}
	c.findServers(all, nodes.Complete())
	self := c.self
	if row, ok := nodes.Get(self.Name); ok {
		self.Labels = row.Labels
	}
	if host := identity.Host(&self, c.isAPI(&c.self)); !host.Equal(c.host) {
		c.host, c.ids = host, nil
	}
	plan := node.Compute(&c.self, all, c.opts)
	for name := range c.scoped {
		if _, ok := nodes.Get(name); !ok {
			c.forget(name)
		}
	}
	if nodes.Complete() {
		c.numbers.settle()
	}
	used := make(map[model.IdentityID]model.Labels, len(c.scoped))
	for _, s := range c.scoped {
		used[s.id] = s.labels
	}
	if err := c.numbers.save(used); err != nil {
		c.mu.Unlock()
		return err
	}
	same := maps.EqualFunc(before, c.scoped, func(a, b scoped) bool { return a.id == b.id }) &&
		host.Equal(c.host) && known == c.known && slices.Equal(beyond, c.beyond)
	if !slices.Equal(c.warned, plan.Warnings) {
		c.warned = plan.Warnings
		for _, w := range plan.Warnings {
			c.log.Warn("cluster: " + w)
		}
	}
	c.mu.Unlock()
	rows := make(map[netip.Prefix]model.IPEntry, len(plan.Rows))
	for _, r := range plan.Rows {
		rows[r.Prefix] = r
	}
	replaceRows(c.nodeRows, rows, equalIP)
	routes := make(map[netip.Prefix]model.Route, len(plan.Routes))
	for _, r := range plan.Routes {
		routes[r.Prefix] = r
	}
	replaceRows(c.routes, routes, func(a, b model.Route) bool { return a == b })
	if nodes.Complete() {
		c.nodeRows.SetComplete()
		c.routes.SetComplete()
	}
	if !same {
		changed()
	}
	return nil
}

// computeLocal does so for this node's workloads.
func (c *cluster) computeLocal() {
	local := c.local.Snapshot()
	rows := map[netip.Prefix]model.IPEntry{}
	for _, e := range local.All() {
		for _, a := range e.Addrs() {
			p := netip.PrefixFrom(a, a.BitLen())
			// LocalCIDR: when the endpoint goes first, its address is nobody's, not one somewhere outside.
			rows[p] = model.IPEntry{Prefix: p, Identity: e.Identity, Source: model.IPSourceLocal, NoMasq: true, LocalCIDR: true, Name: e.Name, Namespace: e.Namespace, NamedPorts: e.NamedPorts}
		}
	}
	replaceRows(c.localRows, rows, equalIP)
	if local.Complete() {
		c.localRows.SetComplete()
	}
}

func equalIP(a, b model.IPEntry) bool { return reflect.DeepEqual(a, b) }

// replaceRows makes a table hold exactly these rows, in one change, and in none when it does already.
func replaceRows[V any](t *table.Table[netip.Prefix, V], rows map[netip.Prefix]V, equal func(a, b V) bool) {
	t.Update(func(x *table.Txn[netip.Prefix, V]) { table.Replace(x, rows, equal) })
}

// Run follows nodes and workloads until ctx ends.
func (c *cluster) Run(ctx context.Context, changed func()) error {
	var doneNodes, doneLocal, doneAPI <-chan struct{} // what the last snapshots say of later ones
	for {
		nodes, local := c.nodes.Snapshot(), c.local.Snapshot()
		var api <-chan struct{}
		if c.api != nil {
			api = c.api.Snapshot().Changed()
		}
		var retry <-chan time.Time
		if nodes.Changed() != doneNodes || api != doneAPI {
			if err := c.compute(changed); err != nil {
				c.log.Error("nodes of the cluster stay as they were", "err", err)
				retry = time.After(time.Second)
			} else {
				doneNodes, doneAPI = nodes.Changed(), api
			}
		}
		if local.Changed() != doneLocal {
			c.computeLocal()
			doneLocal = local.Changed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-nodes.Changed():
		case <-local.Changed():
		case <-api:
		case <-c.moved:
			doneNodes = nil
		case <-retry:
		}
	}
}

// addressTarget brings rows of addresses into the ipcache. What was there before the agent started stays until every
// source has spoken: that is the cache's own business, so Prune has nothing to do.
type addressTarget struct {
	cache *ipcache.Cache
	told  func(model.IPEntry, *model.IPEntry)
	gone  func(model.IPEntry)

	tab  *table.Table[netip.Prefix, model.IPEntry]
	mu   sync.Mutex
	rows map[netip.Prefix]*model.IPEntry // in force: the table's own, unless that has gone on
}

func (t *addressTarget) Update(_ context.Context, p netip.Prefix, e model.IPEntry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	// First the new, then the old: the address must not be nobody's in between. What the cache knows already costs nothing.
	if err := t.cache.Upsert(p, e); err != nil {
		return err
	}
	old := t.rows[p]
	if old != nil && old.Source != e.Source {
		if err := t.cache.Delete(p, old.Source); err != nil {
			return err
		}
	}
	t.rows[p] = t.ref(p, e)
	if old == nil || !sameHome(*old, e) {
		t.told(e, old)
	}
	return nil
}

// ref is a row to be kept: where the table has it, rather than once more.
func (t *addressTarget) ref(p netip.Prefix, e model.IPEntry) *model.IPEntry {
	if now := t.tab.Snapshot().Ref(p); now != nil && reflect.DeepEqual(*now, e) {
		return now
	}
	own := e
	return &own
}

// sameHome says whether two rows of an address say the same to people.
func sameHome(a, b model.IPEntry) bool {
	return a.Source == b.Source && a.Identity == b.Identity && a.Tunnel == b.Tunnel && a.Name == b.Name && a.Namespace == b.Namespace
}

func (t *addressTarget) Delete(_ context.Context, p netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.rows[p]
	if old == nil {
		return nil
	}
	if err := t.cache.Delete(p, old.Source); err != nil {
		return err
	}
	delete(t.rows, p)
	t.gone(*old)
	return nil
}

func (t *addressTarget) Prune(context.Context, map[netip.Prefix]model.IPEntry) error { return nil }

// list is what all sources together say of each prefix, the strongest of them where several speak.
func (a *Agent) ipRows() []model.IPEntry {
	best := map[netip.Prefix]model.IPEntry{}
	for _, t := range []*table.Table[netip.Prefix, model.IPEntry]{a.cluster.nodeRows, a.cluster.localRows, a.store.addresses} {
		for p, e := range t.Snapshot().All() {
			if old, ok := best[p]; !ok || e.Source > old.Source {
				best[p] = e
			}
		}
	}
	for p, id := range a.policies.Prefixes() {
		if _, ok := best[p]; !ok {
			best[p] = model.IPEntry{Prefix: p, Identity: id, Source: model.IPSourceGenerated}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(x, y model.IPEntry) int {
		return model.CompareCIDRs(x.Prefix, y.Prefix)
	})
}

var _ table.Target[netip.Prefix, model.IPEntry] = (*addressTarget)(nil)

// setRanges says which pod ranges this node has from now on.
func (c *cluster) setRanges(ranges []netip.Prefix) {
	slices.SortFunc(ranges, model.CompareCIDRs)
	ranges = slices.Compact(ranges)
	c.mu.Lock()
	same := slices.Equal(c.self.PodCIDRs, ranges)
	c.self.PodCIDRs = ranges
	c.mu.Unlock()
	if same {
		return
	}
	select {
	case c.moved <- struct{}{}:
	default:
	}
}
