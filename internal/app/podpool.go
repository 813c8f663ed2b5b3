package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// podPools gives workloads addresses of pools by name. It asks the operator for blocks as they are needed, ahead of need for some pools,
// and gives back those that nobody uses. It is endpoint.IPAM.
type podPools struct {
	poolConfig
	log   *slog.Logger
	alloc *ipam.Allocator
	// told takes in which ranges are this node's, before an address of a new one is given out.
	told func([]netip.Prefix)

	stuck *fault.Fault
	wake  chan struct{}

	// Run's own.
	idle   map[netip.Prefix]time.Time // blocks that nobody needs, since when
	giving ipam.Held                  // given up, and not known yet to be gone
	saved  poolFile

	mu      sync.Mutex
	changed chan struct{}                        // closed when there are other blocks
	waiting map[poolVersion]map[string]time.Time // who asked in vain, and when the last time
}

// poolConfig is what podPools need to know.
type poolConfig struct {
	node    string
	store   podPoolStore
	path    string // of what the last run knew
	def     string // pool where none is said
	ahead   map[string]int
	only    bool // masquerade of the default pool only
	v4, v6  bool
	rest    time.Duration // of a block before it is given back: others may still know its addresses
	patient time.Duration // how long a workload waits for a block
}

// podPoolStore is who knows the pools; k8s.PodPools.
type podPoolStore interface {
	Table() *table.Table[string, k8s.PodPool]
	Shares() *table.Table[string, k8s.PoolShare]
	Ask(context.Context) (k8s.PoolShare, error)
	Request(map[string]k8s.PoolDemand) error
	Change(ctx context.Context, claim, giveBack map[string][]netip.Prefix) error
}

type poolVersion struct {
	pool string
	v6   bool
}

// poolFile is what outlives the agent: without the API server it starts with this.
type poolFile struct {
	Routers []netip.Addr `json:"routers"`
	Blocks  ipam.Held    `json:"blocks"`
}

const (
	blockRest  = 30 * time.Second
	blockWait  = 2 * time.Second // less than a plugin waits
	forgotten  = time.Minute     // a workload that was refused asks again by then, or not at all
	routerName = "router"
)

// podPoolConfig is what the options say.
func (a *Agent) podPoolConfig() poolConfig {
	return poolConfig{node: a.cfg.NodeName, store: a.store.kube.PodPools(), path: filepath.Join(a.paths.State, "pools.json"), def: a.cfg.DefaultPool,
		ahead: a.cfg.PoolsAhead(), only: a.cfg.MasqDefaultPool, v4: a.cfg.EnableIPv4, v6: a.cfg.EnableIPv6, rest: blockRest, patient: blockWait}
}

// openPodPools waits until this node has something of the default pool, where its own address is from.
func openPodPools(ctx context.Context, log *slog.Logger, cfg poolConfig) (*podPools, error) {
	p := &podPools{poolConfig: cfg, log: log, stuck: fault.New(log, "blocks of pools not changed", "blocks of pools changed again"),
		wake: make(chan struct{}, 1), changed: make(chan struct{}), waiting: map[poolVersion]map[string]time.Time{},
		idle: map[netip.Prefix]time.Time{}, giving: ipam.Held{}}
	var had poolFile
	if err := file.ReadJSON(p.path, &had); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("pools of the last run not used", "err", err)
		had = poolFile{}
	}
	var err error
	if p.alloc, err = ipam.New(nil); err != nil {
		return nil, err
	}
	if err := p.store.Request(p.needs(nil)); err != nil {
		return nil, err
	}
	blocks, err := p.first(ctx, had.Blocks)
	if err != nil {
		return nil, err
	}
	for pool, of := range blocks {
		for _, b := range of {
			if err := p.alloc.Add(pool, b); err != nil {
				return nil, err
			}
		}
	}
	routers, err := p.routers(had.Routers)
	if err != nil {
		return nil, err
	}
	p.save(poolFile{Routers: routers, Blocks: p.blocks()})
	return p, nil
}

// first are the blocks to begin with.
func (p *podPools) first(ctx context.Context, had ipam.Held) (ipam.Held, error) {
	var got ipam.Held
	err := untilReached(ctx, noRanges(p.log), func() error {
		share, err := p.store.Ask(ctx)
		switch {
		case errors.Is(err, state.ErrUnreachable) && p.enough(had):
			p.log.Warn("the API server tells no blocks of pools, keeping those of the last run", "blocks", had.All(), "err", err)
			got = had
		case err != nil:
			return err
		case p.enough(share.Blocks):
			got = share.Blocks
		case share.Error != "":
			return fmt.Errorf("%w: the operator says: %s", state.ErrUnreachable, share.Error)
		default:
			return fmt.Errorf("%w: CiliumNode %s has nothing of pool %q yet", state.ErrUnreachable, p.node, p.def)
		}
		return nil
	})
	return got, err
}

// enough says whether there is a block of the default pool of each IP version.
func (p *podPools) enough(blocks ipam.Held) bool {
	var v4, v6 bool
	for _, b := range blocks[p.def] {
		v4, v6 = v4 || b.Addr().Is4(), v6 || b.Addr().Is6()
	}
	return (v4 || !p.v4) && (v6 || !p.v6)
}

// routers are this node's own addresses of the default pool: those that it had, if it has their blocks.
func (p *podPools) routers(had []netip.Addr) (out []netip.Addr, err error) {
	for _, v := range []struct{ on, v6 bool }{{p.v4, false}, {p.v6, true}} {
		if !v.on {
			continue
		}
		ip := own(had, v.v6)
		if !ip.IsValid() || p.alloc.AllocateIP(ip, routerName) != nil {
			if ip, err = p.alloc.Allocate(routerName, p.def, v.v6); err != nil {
				return nil, fmt.Errorf("find an address for this node: %w", err)
			}
		}
		out = append(out, ip)
	}
	return out, nil
}

// blocks are those that the allocator gives addresses of.
func (p *podPools) blocks() ipam.Held {
	out := ipam.Held{}
	for _, b := range p.alloc.Blocks() {
		out.Add(b.Pool, b.Prefix)
	}
	return out
}

func (p *podPools) save(now poolFile) {
	if slices.Equal(now.Routers, p.saved.Routers) && maps.EqualFunc(now.Blocks, p.saved.Blocks, slices.Equal) {
		return
	}
	if err := file.WriteJSON(p.path, now, 0o600); err != nil {
		p.log.Warn("blocks of pools not noted: a start without the API server will not know them", "err", err)
	}
	p.saved = now
}

// Versions implements endpoint.IPAM.
func (p *podPools) Versions() (v4, v6 bool) { return p.v4, p.v6 }

// Allocate implements endpoint.IPAM. Where no block has room it waits a moment for another one.
func (p *podPools) Allocate(ctx context.Context, c endpoint.Claim) (endpoint.Address, error) {
	pool := cmp.Or(c.Pool, p.def)
	row, err := p.find(pool, c.V6)
	if err != nil {
		return endpoint.Address{}, err
	}
	out := endpoint.Address{Pool: pool, NoMasq: row.NoMasq || p.only && pool != p.def}
	if c.Addr.IsValid() {
		if !slices.ContainsFunc(p.blocks()[pool], func(b netip.Prefix) bool { return b.Contains(c.Addr) }) {
			return out, fmt.Errorf("%w: %s is in no block that this node has of pool %q", endpoint.ErrInvalid, c.Addr, pool)
		}
		out.Addr = c.Addr
		return out, p.alloc.AllocateIP(c.Addr, c.Owner)
	}
	end := time.NewTimer(p.patient)
	defer end.Stop()
	for {
		changed := p.changes()
		out.Addr, err = p.alloc.Allocate(c.Owner, pool, c.V6)
		if err == nil {
			p.served(poolVersion{pool, c.V6}, c.Owner)
			return out, nil
		}
		p.want(poolVersion{pool, c.V6}, c.Owner)
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		case <-end.C:
		}
		return out, p.refusal(pool, err)
	}
}

// find says what a pool is, or why nobody gets an address of it.
func (p *podPools) find(pool string, v6 bool) (k8s.PodPool, error) {
	snap := p.store.Table().Snapshot()
	row, ok := snap.Get(pool)
	switch {
	case !ok && snap.Complete():
		return row, fmt.Errorf("%w: there is no CiliumPodIPPool %q", endpoint.ErrInvalid, pool)
	case ok && (v6 && !row.IPv6 || !v6 && !row.IPv4):
		return row, fmt.Errorf("%w: pool %q has no IPv%d addresses", endpoint.ErrInvalid, pool, map[bool]int{false: 4, true: 6}[v6])
	}
	return row, nil
}

func (p *podPools) refusal(pool string, err error) error {
	why := "the operator has been asked for more and has not answered yet"
	if share, _ := p.store.Shares().Get(p.node); share.Error != "" {
		why = "the operator says: " + share.Error
	}
	return fmt.Errorf("%w: pool %q: %w; %s", endpoint.ErrFull, pool, err, why)
}

// Keep implements endpoint.IPAM.
func (p *podPools) Keep(owner string, ip netip.Addr) error { return p.alloc.Hold(ip, owner) }

// Release implements endpoint.IPAM.
func (p *podPools) Release(ip netip.Addr) {
	p.alloc.Release(ip)
	p.poke()
}

func (p *podPools) changes() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *podPools) want(v poolVersion, owner string) {
	p.mu.Lock()
	if p.waiting[v] == nil {
		p.waiting[v] = map[string]time.Time{}
	}
	p.waiting[v][owner] = time.Now()
	p.mu.Unlock()
	p.poke()
}

func (p *podPools) served(v poolVersion, owner string) {
	p.mu.Lock()
	delete(p.waiting[v], owner)
	p.mu.Unlock()
	p.poke()
}

func (p *podPools) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run keeps blocks in step with what is needed until ctx ends.
func (p *podPools) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		share, pools := p.store.Shares().Snapshot(), p.store.Table().Snapshot()
		if row, ok := share.Get(p.node); ok && pools.Complete() {
			err := p.sync(ctx, row)
			if ctx.Err() != nil {
				return nil
			}
			p.stuck.Note(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-share.Changed():
		case <-pools.Changed():
		case <-p.wake:
		case <-tick.C:
		}
	}
}

// sync looks once at what this node has and needs.
func (p *podPools) sync(ctx context.Context, share k8s.PoolShare) error {
	claim, err := p.adopt(share)
	needs := p.needs(p.alloc.Blocks())
	err = errors.Join(err, p.store.Request(needs))
	p.giveUp(needs)
	back := ipam.Held{}
	for pool, blocks := range p.giving {
		for _, b := range blocks {
			if slices.Contains(share.Blocks[pool], b) {
				back.Add(pool, b)
			}
		}
	}
	if len(claim)+len(back) > 0 {
		err = errors.Join(err, p.store.Change(ctx, claim, back))
	}
	p.save(poolFile{Routers: p.saved.Routers, Blocks: p.blocks()})
	return err
}

// adopt takes in the blocks that this node is said to have, and returns those that it is said to have no more and that somebody uses:
// they are claimed again, or others would get them. One that nobody uses goes.
func (p *podPools) adopt(share k8s.PoolShare) (claim ipam.Held, err error) {
	for pool, blocks := range p.giving.Clone() {
		for _, b := range blocks {
			if !slices.Contains(share.Blocks[pool], b) {
				p.giving.Remove(pool, b)
			}
		}
	}
	have, claim, fresh := p.blocks(), ipam.Held{}, ipam.Held{}
	for pool, blocks := range share.Blocks {
		for _, b := range blocks {
			if !slices.Contains(have[pool], b) && !slices.Contains(p.giving[pool], b) {
				fresh.Add(pool, b)
			}
		}
	}
	for pool, blocks := range have {
		for _, b := range blocks {
			if !slices.Contains(share.Blocks[pool], b) && p.alloc.Remove(b) != nil {
				claim.Add(pool, b)
			}
		}
	}
	p.told(slices.Concat(p.blocks().All(), p.giving.All(), fresh.All()))
	for pool, blocks := range fresh {
		for _, b := range blocks {
			err = errors.Join(err, p.alloc.Add(pool, b))
		}
	}
	if len(fresh) > 0 {
		p.log.Info("blocks of pools are this node's", "blocks", fresh.All())
		p.mu.Lock()
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
	return claim, err
}

// needs are what this node asks for of each pool, now that it has these blocks.
func (p *podPools) needs(blocks []ipam.Block) map[string]k8s.PoolDemand {
	used := map[poolVersion]int{}
	for _, b := range blocks {
		used[poolVersion{b.Pool, b.Prefix.Addr().Is6()}] += b.Used
	}
	p.mu.Lock()
	for v, owners := range p.waiting {
		maps.DeleteFunc(owners, func(_ string, at time.Time) bool { return time.Since(at) > forgotten })
		used[v] += len(owners)
	}
	p.mu.Unlock()
	pools := map[string]bool{}
	for pool := range p.ahead {
		pools[pool] = true
	}
	for v, n := range used {
		if n > 0 {
			pools[v.pool] = true
		}
	}
	out := map[string]k8s.PoolDemand{}
	for pool := range pools {
		d := k8s.PoolDemand{}
		if _, err := p.find(pool, false); err == nil && p.v4 {
			d.IPv4 = ipam.Needed(used[poolVersion{pool, false}], p.ahead[pool])
		}
		if _, err := p.find(pool, true); err == nil && p.v6 {
			d.IPv6 = ipam.Needed(used[poolVersion{pool, true}], p.ahead[pool])
		}
		if d != (k8s.PoolDemand{}) {
			out[pool] = d
		}
	}
	return out
}

// giveUp stops giving out addresses of blocks that have not been needed for long enough.
func (p *podPools) giveUp(needs map[string]k8s.PoolDemand) {
	parts := map[poolVersion][]ipam.Block{}
	for _, b := range p.alloc.Blocks() {
		v := poolVersion{b.Pool, b.Prefix.Addr().Is6()}
		parts[v] = append(parts[v], b)
	}
	idle := map[netip.Prefix]time.Time{}
	for v, blocks := range parts {
		needed := needs[v.pool].IPv4
		if v.v6 {
			needed = needs[v.pool].IPv6
		}
		for _, b := range ipam.Surplus(blocks, needed) {
			since, was := p.idle[b]
			if !was {
				since = time.Now()
			}
			if time.Since(since) >= p.rest && p.alloc.Remove(b) == nil {
				p.giving.Add(v.pool, b)
				p.log.Info("block of a pool given back", "pool", v.pool, "block", b)
				continue
			}
			idle[b] = since
		}
	}
	p.idle = idle
}

// state is how full the blocks are, and what the operator complains of.
func (p *podPools) state() (text, wrong string) {
	var out []string
	for _, b := range p.alloc.Blocks() {
		out = append(out, fmt.Sprintf("%s %s (%d of %d)", b.Pool, b.Prefix, b.Used, ipam.Size(b.Prefix)))
	}
	share, _ := p.store.Shares().Get(p.node)
	return strings.Join(out, ", "), share.Error
}
