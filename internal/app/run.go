package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/cniconf"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/server"
)

// eventCounter counts what the kernel's rings delivered and lost.
type eventCounter struct{ stored, lost atomic.Uint64 }

// ErrStartOver is what Run returns when only a new process can go on: the embedded store has died, of a full disk for one, and
// would live again.
var ErrStartOver = errors.New("the embedded store has died: starting over to have it back")

// Run serves until ctx ends, or a part fails for good. The datapath goes on working afterwards.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.close()) }()
	g, ctx := errgroup.WithContext(ctx)
	run := func(name string, fn func(context.Context) error) {
		g.Go(func() error {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	var found []model.Endpoint
	for _, e := range a.endpoints.Table().Snapshot().All() {
		found = append(found, e)
	}
	if err := a.store.workloads.Replace(found); err != nil {
		a.log.Warn("restored workloads not published", "err", err)
	}
	if err := a.store.nodes.Publish(a.self); err != nil {
		return err
	}
	run("devices", a.devices.Run)
	run("devices", a.deviceSync.Run)
	run("prefilter", a.denials.Run)
	run("cluster", func(ctx context.Context) error { return a.cluster.Run(ctx, a.policies.wake) })
	run("routes", a.routeSync.Run)
	run("node addresses", a.nodeSync.Run)
	run("local addresses", a.localSync.Run)
	run("remote addresses", a.remoteSync.Run)
	run("policy", func(ctx context.Context) error { return a.policies.Run(ctx, a.store.ready) })
	run("endpoints", a.endpoints.Run)
	if a.cfg.KubeProxy {
		run("services", a.services.Run)
	}
	run("service rows", a.serviceSync.Run)
	run("health-check node ports", a.checkSync.Run)
	if a.orphans != nil {
		run("sockets of removed backends", a.orphans.Run)
	}
	run("socket owners", a.names.owners.Run)
	if a.listed != nil {
		run("services file", a.listed.Run)
	}
	if a.podPools != nil {
		run("pools of addresses", a.podPools.Run)
	}
	if a.pods != nil {
		run("pods", a.pods.Run)
	}
	if a.file != nil {
		run("services file", a.file.Run)
	}
	run("adoption", a.completeAddresses)
	run("sweep", a.sweep)
	run("repair", a.repair)
	run("trend", a.trend.run)
	run("identities", a.followMoves)
	run("store", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.store.dead:
			return ErrStartOver
		}
	})
	run("events", func(ctx context.Context) error {
		return a.events.Run(ctx, func(ev model.Event) {
			a.eventCounter.stored.Add(1)
			a.hub.Send(&ev)
			a.observer.Handle(ev)
		}, func(cpu int, n uint64) {
			a.eventCounter.lost.Add(n)
			a.hub.Lost(n)
			a.observer.Lost(cpu, n)
		})
	})
	if err := errors.Join(a.listen(run), a.listenHealth(run)); err != nil {
		return errors.Join(err, stop(g))
	}
	if a.cfg.CNIConf != "" {
		run("CNI configuration", a.announce)
	}
	a.log.Info("agent runs", "node", a.cfg.NodeName, "addresses", a.self.Addrs, "workloads", a.self.PodCIDRs, "endpoints", len(found))
	return g.Wait()
}

// stop ends a group whose context nobody else would end. The error is that of a part that failed, not of the end.
func stop(g *errgroup.Group) error {
	g.Go(func() error { return context.Canceled })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listen opens the sockets.
func (a *Agent) listen(run func(string, func(context.Context) error)) error {
	readPath, readHandler := agentv1connect.NewReaderHandler(reader{a})
	adminPath, adminHandler := agentv1connect.NewAdminHandler(admin{a})
	readMux, adminMux := http.NewServeMux(), http.NewServeMux()
	readMux.Handle(readPath, readHandler)
	adminMux.Handle(readPath, readHandler)
	adminMux.Handle(adminPath, adminHandler)
	for path, h := range map[string]http.Handler{a.paths.AgentSocket(): readMux, a.paths.AdminSocket(): adminMux} {
		l, err := a.listenUnix(path)
		if err != nil {
			return err
		}
		run("local API", func(ctx context.Context) error { return serveHTTP(ctx, l, h) })
	}
	if a.cfg.Prometheus != "" {
		l, err := net.Listen("tcp", a.cfg.Prometheus)
		if err != nil {
			return fmt.Errorf("option prometheus-serve-addr: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
		run("metrics", func(ctx context.Context) error { return serveHTTP(ctx, l, mux) })
	}
	if a.cfg.Pprof {
		l, err := net.Listen("tcp", net.JoinHostPort(a.cfg.PprofAddress, strconv.Itoa(int(a.cfg.PprofPort))))
		if err != nil {
			return fmt.Errorf("option pprof-port: %w", err)
		}
		run("profiles", func(ctx context.Context) error { return serveHTTP(ctx, l, profiles()) })
	}
	if a.cfg.EnableHubble {
		return a.listenFlows(run)
	}
	return nil
}

// announce tells the container runtime of this network once workloads can be attached: before, it would only hear refusals.
func (a *Agent) announce(ctx context.Context) error {
	if !waitFor(ctx, a.policies.hasStarted) {
		return nil
	}
	return cniconf.Run(ctx, cniconf.Config{Path: a.cfg.CNIConf, Exclusive: a.cfg.CNIExclusive, StateDir: filepath.Dir(a.paths.State), NodeName: a.cfg.NodeName,
		LogFile: a.cfg.CNILog}, a.cfg.CNIUninstall, a.log.With("part", "cni"))
}

// profiles serves what `go tool pprof` asks for.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// listenFlows serves the flow API on its socket and, with TLS, off the node.
func (a *Agent) listenFlows(run func(string, func(context.Context) error)) error {
	srv, err := server.New(server.Deps{Observer: a.observer, TLS: !a.cfg.HubbleNoTLS, Log: a.log.With("part", "hubble"),
		Nodes: func() ([]model.Node, <-chan struct{}) {
			snap := a.store.nodes.Table().Snapshot()
			nodes := make([]model.Node, 0, snap.Len())
			for _, n := range snap.All() {
				nodes = append(nodes, n)
			}
			return nodes, snap.Changed()
		}})
	if err != nil {
		return err
	}
	l, err := a.listenUnix(a.paths.FlowSocket())
	if err != nil {
		return err
	}
	run("flow API", func(ctx context.Context) error { return srv.Serve(ctx, l, nil) })
	if a.cfg.HubbleListen == "" {
		return nil
	}
	var conf *tls.Config
	if !a.cfg.HubbleNoTLS {
		files := server.TLSFiles{Cert: a.cfg.HubbleCert, Key: a.cfg.HubbleKey}
		if len(a.cfg.HubbleCA) > 0 {
			files.ClientCA = a.cfg.HubbleCA[0]
		}
		hosts := append(texts(a.self.Addrs), server.ServerName(a.cfg.ClusterName, a.cfg.NodeName), "localhost")
		if conf, err = server.TLSConfig(files, a.paths.PKI(), hosts); err != nil {
			return err
		}
	}
	t, err := net.Listen("tcp", a.cfg.HubbleListen)
	if err != nil {
		return fmt.Errorf("option hubble-listen-address: %w", err)
	}
	run("flow API", func(ctx context.Context) error { return srv.Serve(ctx, t, conf) })
	return nil
}

// completeAddresses tells the address cache when all its sources have spoken, so that it drops what an earlier agent knew
// and nobody claims any more.
func (a *Agent) completeAddresses(ctx context.Context) error {
	ips := a.store.addresses
	worked := func() bool {
		n, l, r := a.cluster.nodeRows.Snapshot(), a.cluster.localRows.Snapshot(), ips.Snapshot()
		return n.Complete() && l.Complete() && r.Complete() && a.policies.hasStarted() &&
			a.nodeSync.Revision() >= n.Revision() && a.localSync.Revision() >= l.Revision() && a.remoteSync.Revision() >= r.Revision()
	}
	stale := fault.New(a.log, "stale addresses not dropped", "stale addresses dropped")
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		if !waitFor(ctx, worked) {
			return nil
		}
		err := a.cache.Complete()
		if stale.Note(err); err == nil {
			a.log.Debug("addresses of an earlier run dropped where nobody claims them")
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// waitFor polls a condition; false when ctx ends first.
func waitFor(ctx context.Context, cond func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// sweep forgets connections and former identities whose time is over and retries what the address cache could not write.
func (a *Agent) sweep(ctx context.Context) error {
	connections, retry := time.NewTicker(30*time.Second), time.NewTicker(time.Second)
	defer connections.Stop()
	defer retry.Stop()
	addresses := fault.New(a.log, "addresses not written", "addresses written")
	expired := fault.New(a.log, "expired connections not removed", "expired connections removed again")
	unused := fault.New(a.log, "unused translations not removed", "unused translations removed again")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
			addresses.Note(errors.Join(a.cache.Retry(), a.cache.Forget()))
		case <-connections.C:
			_, err := a.maps.SweepConnections()
			expired.Note(err)
			_, err = a.maps.SweepTranslations()
			unused.Note(err)
		}
	}
}

// followMoves gives workloads their new identity when the store has given the number of the old one to other labels.
func (a *Agent) followMoves(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case mv, ok := <-a.store.identities.Moved():
			if !ok {
				return nil
			}
			a.log.Warn("identity has moved", "labels", mv.Labels.Strings(), "old", uint32(mv.Old), "new", uint32(mv.New))
			a.endpoints.Renumber(ctx, mv.Old)
		}
	}
}

// reconfigure puts changed runtime options in force.
func (a *Agent) reconfigure(ctx context.Context, next map[string]string) error {
	for name, v := range next {
		var err error
		switch name {
		case "debug":
			setLevel(a.level, v == "true")
		case "policy-audit-mode":
			err = a.maps.SetAudit(v == "true")
		case "enable-policy":
			err = a.policies.Reconfigure(ctx, func(c *policy.Config) { c.Mode = policy.Mode(v) })
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
		a.log.Info("option changed", "option", name, "value", v)
	}
	return nil
}

var _ endpoint.Policy = (*policies)(nil)
