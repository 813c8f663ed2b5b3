// Package app wires the daemons: the only place that sees every part. A daemon is made by New, which brings the kernel and
// the parts into being in an order that never leaves an address without its policy, and works in Run until its context ends.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hypha-net/hypha/internal/cgroup"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/control/identity"
	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/control/node"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/datapath/bpffs"
	"github.com/hypha-net/hypha/internal/datapath/device"
	dpendpoint "github.com/hypha-net/hypha/internal/datapath/endpoint"
	"github.com/hypha-net/hypha/internal/datapath/event"
	"github.com/hypha-net/hypha/internal/datapath/host"
	"github.com/hypha-net/hypha/internal/datapath/ipcache"
	"github.com/hypha-net/hypha/internal/datapath/link"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
	dppolicy "github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/datapath/route"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/healthcheck"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/monitor"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/source/file"
	"github.com/hypha-net/hypha/internal/source/servicefile"
	"github.com/hypha-net/hypha/internal/table"
	"github.com/hypha-net/hypha/internal/version"
)

// Agent is hypha-agent.
type Agent struct {
	cfg     config.Agent
	log     *slog.Logger
	level   *slog.LevelVar
	paths   paths.Paths
	started time.Time
	stepped time.Time // when the step before the present one of New ended

	optMu   sync.Mutex
	options []config.Option

	lock     *os.File
	gid      int // of the sockets
	kernel   loader.Kernel
	store    clusterState
	maps     *maps.Maps
	loader   *loader.Loader
	cache    *ipcache.Cache
	pairs    *link.Pairs
	cgroup   string // whose processes reach services; "": nobody's
	self     model.Node
	alloc    *ipam.Allocator
	ipam     endpoint.IPAM // over it
	podPools *podPools     // nil where pools have no names
	policies *policies
	filter   *identity.Filter // of labels
	cluster  *cluster
	services *services
	file     *servicefile.File // nil without one
	listed   *fileServices     // nil where services are the API server's
	names    *resolver
	registry *prometheus.Registry
	observer *observe.Observer
	hub      monitor.Hub

	endpoints *endpoint.Manager
	server    *endpoint.Server
	pods      *pods // nil without Kubernetes

	devices      *device.Watcher
	outside      *device.Table // what it fills
	denials      *denials
	tunnel       overlay.Config
	repairs      *repairs
	deviceSync   *table.Reconciler[uint32, device.Device]
	routeTarget  *route.Target
	routeSync    *table.Reconciler[netip.Prefix, model.Route]
	nodeSync     *table.Reconciler[netip.Prefix, model.IPEntry]
	localSync    *table.Reconciler[netip.Prefix, model.IPEntry]
	remoteSync   *table.Reconciler[netip.Prefix, model.IPEntry]
	serviceSync  *table.Reconciler[model.Frontend, model.Balance]
	checkTarget  *healthcheck.Target
	checkSync    *table.Reconciler[uint16, model.HealthCheck]
	orphans      *orphans // nil where no socket is ended
	events       *event.Reader
	eventCounter eventCounter
	trend        trend
	refused      atomic.Uint64 // workloads that were not attached
}

// New brings the agent up to where it may serve: the store is open, the kernel's maps and programs are in place and what
// an earlier agent left is adopted. On an error everything this call opened is closed again; what is in the kernel stays.
func New(ctx context.Context, l *config.Loaded, log *slog.Logger, level *slog.LevelVar) (_ *Agent, err error) {
	a := &Agent{cfg: l.Agent, options: l.Options, log: log, level: level, paths: l.Agent.Paths(), started: time.Now(), registry: prometheus.NewRegistry(),
		repairs: newRepairs(log)}
	a.stepped = a.started
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	// Netlink sockets and setns belong to threads; all of New must see one network namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	a.kernel = loader.Probe()
	if err := a.kernel.Err(); err != nil {
		return nil, err
	}
	if err := host.OpenSysctls(); err != nil {
		return nil, err
	}
	a.step("kernel probed")
	if a.gid, err = socketGroup(a.cfg.SocketGroup); err != nil {
		return nil, err
	}
	if a.lock, err = lockState(a.paths); err != nil {
		return nil, err
	}
	if err := errors.Join(file.Sweep(a.paths.State), file.Sweep(a.paths.Endpoints())); err != nil {
		return nil, err
	}
	if err := admit(a.paths, a.gid); err != nil {
		return nil, err
	}
	if err := makeDirs(a.paths.Endpoints(), a.paths.PendingDel()); err != nil {
		return nil, err
	}
	addrs, underlayMTU, err := underlay(&a.cfg)
	if err != nil {
		return nil, err
	}
	tunnel := tunnelAddr(addrs)
	mtu, err := workloadMTU(&a.cfg, underlayMTU, tunnel)
	if err != nil {
		return nil, err
	}
	if err := a.openStore(ctx, addrs); err != nil {
		return nil, err
	}
	a.step("store opened")
	routers, err := a.openAddresses(ctx)
	if err != nil {
		return nil, err
	}
	a.step("pod ranges claimed")
	if a.self, err = describe(&a.cfg, addrs, a.alloc.Prefixes(), routers); err != nil {
		return nil, err
	}
	if err := a.openDatapath(tunnel, mtu); err != nil {
		return nil, err
	}
	a.step("maps and programs loaded")
	if err := a.openPolicy(); err != nil {
		return nil, err
	}
	if err := a.openEndpoints(mtu, tunnel); err != nil {
		return nil, err
	}
	if err := a.openCluster(tunnel); err != nil {
		return nil, err
	}
	if err := a.openPrefilter(); err != nil {
		return nil, err
	}
	if err := a.openServices(); err != nil {
		return nil, err
	}
	if err := a.openServiceRows(); err != nil {
		return nil, err
	}
	if err := a.openObserver(); err != nil {
		return nil, err
	}
	a.step("parts made")
	if err := a.endpoints.Restore(ctx); err != nil {
		return nil, err
	}
	a.step("workloads restored")
	// Programs of an earlier agent run until here, with its constants.
	if _, err := a.loader.Adopt(); err != nil {
		return nil, err
	}
	if err := a.maps.Settle(); err != nil {
		return nil, err
	}
	if err := a.openOverlay(); err != nil {
		return nil, err
	}
	if err := a.openFast(); err != nil {
		return nil, err
	}
	a.step("programs adopted")
	return a, nil
}

// step notes in the log how long a part of the start took: nobody enforces changed policy before its end.
func (a *Agent) step(what string) {
	now := time.Now()
	a.log.Debug("start: "+what, "took", now.Sub(a.stepped).Round(time.Millisecond))
	a.stepped = now
}

// openAddresses waits until this node has addresses for its workloads, and returns its own among them.
func (a *Agent) openAddresses(ctx context.Context) (routers []netip.Addr, err error) {
	if a.cfg.IPAM == config.IPAMMultiPool && a.cfg.Kubernetes() {
		if a.podPools, err = openPodPools(ctx, a.log.With("part", "ipam"), a.podPoolConfig()); err != nil {
			return nil, err
		}
		a.alloc, a.ipam = a.podPools.alloc, a.podPools
		return a.podPools.saved.Routers, nil
	}
	prefixes, err := a.claimRanges(ctx)
	if err != nil {
		return nil, err
	}
	if a.alloc, err = ipam.New(prefixes); err != nil {
		return nil, err
	}
	a.ipam = addresses{a.alloc}
	return a.alloc.Routers(), nil
}

func (a *Agent) openDatapath(tunnel netip.Addr, mtu int) (err error) {
	if err := host.Apply(host.Config{Record: a.paths.HostRecord(), Routers: a.self.Routers}); err != nil {
		return err
	}
	if err := bpffs.Mount(); err != nil {
		return err
	}
	a.maps, err = maps.Open(maps.Config{Dir: a.paths.Maps(), MemRatio: a.cfg.MapRatio, CT: a.cfg.CTMax, NAT: a.cfg.NATMax,
		Policy: a.cfg.PolicyMax, IPCache: a.cfg.IPCacheMax, Services: a.cfg.LBMax, Ring: a.cfg.EventRing}, maps.Deps{Log: a.log.With("part", "maps")})
	if err != nil {
		return err
	}
	if err := a.maps.SetAudit(a.cfg.PolicyAudit); err != nil {
		return err
	}
	lo, hi, err := a.cfg.MasqRange()
	if err != nil {
		return err
	}
	opts := loader.Options{IPv4: a.cfg.EnableIPv4, IPv6: a.cfg.EnableIPv6, Masq4: a.cfg.Masq4 && a.cfg.EnableIPv4, Masq6: a.cfg.Masq6 && a.cfg.EnableIPv6,
		Overlay: a.cfg.Tunnel(), TunnelPort: a.cfg.EncapsulationPort(), Events: a.cfg.EventsDrop, Trace: a.cfg.EventsTrace,
		ReportInterval: a.cfg.ReportInterval, Accounting: a.cfg.Accounting, MasqPortMin: lo, MasqPortMax: hi,
		Router4: own(a.self.Routers, false), Router6: own(a.self.Routers, true), SockHost: a.cfg.LBSockHostNS,
		Services: a.cfg.KubeProxy, Reject: a.cfg.LBNoBackend == "reject",
		DirectTCP: a.cfg.LBMode != "snat", DirectUDP: a.cfg.LBMode == "dsr"}
	opts.Geneve, opts.IPIP = a.cfg.Dispatch()
	if opts.Netkit, err = a.openPairs(); err != nil {
		return err
	}
	if a.cfg.Tunnel() {
		if opts.TunnelIfIndex, err = overlay.Ensure(overlay.Config{Port: a.cfg.EncapsulationPort(), MTU: mtu}); err != nil {
			return err
		}
		a.tunnel = overlay.Config{Port: a.cfg.EncapsulationPort(), MTU: mtu, Index: opts.TunnelIfIndex}
	}
	if a.cgroup, err = a.controlGroup(); err != nil {
		return err
	}
	a.loader, err = loader.New(loader.Config{Links: a.paths.Links(), Programs: a.paths.Programs(), Options: opts, Fast: a.fast(), Cgroup: a.cgroup}, loader.Deps{Log: a.log.With("part", "loader"), Kernel: a.kernel, Maps: a.maps.Replacements()})
	return err
}

// controlGroup is the one whose processes find services where they connect; "": none does.
func (a *Agent) controlGroup() (string, error) {
	if !a.cfg.KubeProxy {
		return "", nil
	}
	if a.cfg.CgroupRoot != "" {
		root, err := cgroup.Under(a.cfg.CgroupRoot)
		if err != nil {
			return "", fmt.Errorf("option cgroup-root: %w", err)
		}
		return root, nil
	}
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrNone) {
		a.log.Warn("services reach no process", "err", err)
		return "", nil
	}
	return root, err
}

// openPairs says whether any workload's pair is, or will be, a netkit one.
func (a *Agent) openPairs() (netkit bool, err error) {
	netkit = a.cfg.Datapath == config.ModeNetkit
	if netkit && !(a.kernel.Netkit && a.kernel.TCX) {
		return false, fmt.Errorf("option datapath-mode: this kernel (%s) has no netkit: use %s, or boot Linux 6.7 or newer with CONFIG_NETKIT", a.kernel.Release, config.ModeVeth)
	}
	if a.pairs, err = link.New(link.Config{Owner: a.paths.Owner(), Netkit: netkit}, link.Deps{Log: a.log.With("part", "link")}); err != nil {
		return false, err
	}
	return a.pairs.Netkit()
}

// openOverlay lets the tunnel device carry traffic, once programs are on it; also again, when somebody took it away.
func (a *Agent) openOverlay() error {
	if !a.cfg.Tunnel() {
		return overlay.Delete()
	}
	index, err := overlay.Ensure(a.tunnel)
	if err != nil {
		return err
	}
	if index != a.tunnel.Index {
		return fmt.Errorf("device %s has index %d, but the loaded programs send to %d: restart the agent", overlay.Name, index, a.tunnel.Index)
	}
	if err := a.loader.AttachOverlay(index); err != nil {
		return err
	}
	return overlay.Up()
}

func (a *Agent) openPolicy() (err error) {
	if a.cache, err = ipcache.New(ipcache.Config{Overlay: a.cfg.Tunnel(), Was: max(2*a.cfg.IdentityChange, time.Second)}, ipcache.Deps{Log: a.log.With("part", "ipcache"), Kernel: a.maps}); err != nil {
		return err
	}
	if a.filter, err = identity.NewFilter(a.cfg.Labels); err != nil {
		return fmt.Errorf("option labels: %w", err)
	}
	applier := dppolicy.New(dppolicy.Deps{Log: a.log.With("part", "policy"), Maps: a.maps, Prefixes: a.cache})
	a.policies, err = newPolicies(a.log.With("part", "policy"), applier, policy.Config{Mode: policy.Mode(a.cfg.EnablePolicy),
		AllowLocalhost: policy.Localhost(a.cfg.AllowLocalhost), Cluster: a.cfg.ClusterName,
		CIDRMatchNodes: slices.Contains(a.cfg.CIDRMatchMode, config.CIDRMatchNodes), IPv4: a.cfg.EnableIPv4, IPv6: a.cfg.EnableIPv6, Filter: a.filter})
	return err
}

func (a *Agent) openEndpoints(mtu int, tunnel netip.Addr) (err error) {
	a.endpoints, err = endpoint.New(endpoint.Config{Paths: a.paths, ClusterName: a.cfg.ClusterName, Gateway4: own(a.self.Routers, false),
		Gateway6: own(a.self.Routers, true), MTU: mtu, Grace: a.cfg.IdentityChange, Relevant: a.filter.Relevant},
		endpoint.Deps{IPAM: a.ipam, Identities: identities{a.store.identities, a.log}, Links: links{a.pairs},
			Datapath: &dpendpoint.Target{Maps: a.maps, Loader: a.loader}, Policy: a.policies, Publisher: a.store.workloads, Facts: a.store.facts, Log: a.log.With("part", "endpoint")})
	if err != nil {
		return err
	}
	a.server = &endpoint.Server{Manager: a.endpoints, Enforced: a.policies.Enforced}
	if a.store.kube != nil {
		a.pods = newPods(a.log.With("part", "endpoint"), a.store.kube.Pods(), a.endpoints)
		if a.podPools != nil {
			a.pods.pools = a.store.kube.PodPools()
		}
	}
	return nil
}

func (a *Agent) openCluster(tunnel netip.Addr) (err error) {
	var nonMasq []netip.Prefix
	for _, s := range a.cfg.NonMasq {
		nonMasq = append(nonMasq, netip.MustParsePrefix(s))
	}
	classes, err := a.maps.Classes()
	if err != nil {
		return err
	}
	numbers, err := openNumbers(a.log, a.paths.NodeNumbers(), classes)
	if err != nil {
		return err
	}
	a.cluster = newCluster(a.log, a.self, node.Options{Native: !a.cfg.Tunnel(), DirectRoutes: a.cfg.DirectNodes, UnderlayV6: tunnel.Is6(),
		IPv4: a.cfg.EnableIPv4, IPv6: a.cfg.EnableIPv6, Device: overlay.Name, NonMasq: nonMasq}, numbers, a.store.nodes.Table(), a.endpoints.Table(), a.store.apiServers)
	if a.podPools != nil {
		a.podPools.told = a.cluster.setRanges
	}
	p := a.policies
	p.stored, p.local = a.store.policies, a.endpoints.Table()
	p.apiServers = a.cluster.APIServers
	p.peers.homes.table = a.cache.Homes()
	p.peers.ids, p.peers.ips, p.peers.nodes = a.store.identities.Table(), a.store.addresses, a.cluster.Identities
	p.inForce = func(sets map[uint16]model.SetID, revision uint64) {
		a.endpoints.SetPolicies(sets, revision)
		a.endpoints.SetRevision(revision)
	}
	if a.routeTarget, err = route.New(); err != nil {
		return err
	}
	a.outside = device.NewTable()
	if a.devices, err = device.New(device.Config{Patterns: a.cfg.Devices, NodeAddrs: a.self.Addrs}, device.Deps{Log: a.log, Table: a.outside}); err != nil {
		return err
	}
	a.deviceSync = table.NewReconciler(table.Config{Full: 5 * time.Second}, a.outside, &device.Target{Maps: a.maps, Loader: a.loader})
	a.routeSync = table.NewReconciler(table.Config{Full: 5 * time.Second}, a.cluster.routes, a.routeTarget)
	addressSync := func(t *table.Table[netip.Prefix, model.IPEntry]) *table.Reconciler[netip.Prefix, model.IPEntry] {
		return table.NewReconciler(table.Config{}, t, &addressTarget{cache: a.cache, tab: t, rows: map[netip.Prefix]*model.IPEntry{},
			told: func(e model.IPEntry, old *model.IPEntry) { a.observer.Agent.IPCacheUpserted(e, old) },
			gone: func(e model.IPEntry) { a.observer.Agent.IPCacheDeleted(e) }})
	}
	a.nodeSync, a.localSync, a.remoteSync = addressSync(a.cluster.nodeRows), addressSync(a.cluster.localRows), addressSync(a.store.addresses)
	return nil
}

func (a *Agent) openObserver() (err error) {
	a.names = &resolver{endpoints: a.endpoints.Table(), ips: a.store.addresses, identities: a.policies.Identity, rule: a.policies.Rule,
		service: a.services.name, owners: newOwners(a.log.With("part", "endpoint"), a.endpoints.Table())}
	labels := make([]string, 0, len(a.cfg.NodeLabels))
	labels = append(labels, a.cfg.NodeLabels...)
	if a.observer, err = observe.New(observe.Config{Node: a.cfg.NodeName, Cluster: a.cfg.ClusterName, NodeLabels: labels, Version: version.Get().Version,
		Capacity: a.cfg.HubbleCapacity, TunnelPort: a.cfg.EncapsulationPort(), SourceFiles: event.SourceFiles()}, observe.Deps{Resolver: a.names, Metrics: a.registry}); err != nil {
		return err
	}
	if a.events, err = event.New(event.Deps{Log: a.log.With("part", "event"), Maps: a.maps}); err != nil {
		return err
	}
	a.trend.count = countsOf(a.maps, &a.eventCounter)
	if err := a.trend.look(time.Now()); err != nil { // what an earlier agent's time saw is not news
		return err
	}
	a.observer.Agent.Started(a.started)
	return errors.Join(a.registry.Register(&collector{a}), a.registry.Register(a.policies.took))
}

// close lets go of what New opened. The kernel keeps what it has: that is what lets traffic outlive the agent.
func (a *Agent) close() error {
	var errs error
	if a.checkTarget != nil {
		a.checkTarget.Close()
	}
	if a.devices != nil {
		a.devices.Close()
	}
	if a.routeTarget != nil {
		a.routeTarget.Close()
	}
	if a.pairs != nil {
		a.pairs.Close()
	}
	if a.loader != nil {
		errs = errors.Join(errs, a.loader.Close())
	}
	if a.maps != nil {
		errs = errors.Join(errs, a.maps.Close())
	}
	if a.store.close != nil {
		errs = errors.Join(errs, a.store.close())
	}
	if a.lock != nil {
		a.lock.Close()
	}
	if errs != nil {
		return fmt.Errorf("close agent: %w", errs)
	}
	return nil
}
