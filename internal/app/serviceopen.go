package app

import (
	"slices"

	"github.com/hypha-net/hypha/internal/control/service"
	dpservice "github.com/hypha-net/hypha/internal/datapath/service"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/healthcheck"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/servicefile"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// openServices makes what decides about services. What it decides is a.services.rows; with kube-proxy-replacement off nobody fills
// them, and they are complete and empty.
func (a *Agent) openServices() error {
	lo, hi, err := a.cfg.NodePortRange()
	if err != nil {
		return err
	}
	seed, err := a.cfg.MaglevSeed()
	if err != nil {
		return err
	}
	b := service.Balancer{Self: a.self, Size: a.cfg.LBMaglevSize, Seed: seed, Topology: a.cfg.LBTopology}
	if b.Select, err = model.ParseSelection(a.cfg.LBAlgorithm); err != nil {
		return err
	}
	a.services = newServices(a.log.With("part", "services"), b, service.PortRange{Low: lo, High: hi}, a.store.services, a.store.nodes.Table())
	if !a.cfg.KubeProxy {
		a.services.setComplete()
	}
	if a.store.kv == nil {
		return nil
	}
	a.listed = &fileServices{log: a.log.With("part", "services"), owner: state.FileOwner(a.cfg.NodeName), store: a.store.kv.Services(), judge: a.services.judge}
	if a.cfg.ServicesFile != "" {
		a.file = servicefile.New(a.cfg.ServicesFile, a.log.With("part", "services"))
		a.listed.listed = a.file.Table()
	} else { // what an earlier agent stored from a file is to go
		a.listed.listed = table.New[model.Frontend, model.Service]("services file", table.Frontend)
		a.listed.listed.SetComplete()
	}
	return nil
}

// openServiceRows makes what brings the rows into the kernel.
func (a *Agent) openServiceRows() error {
	target, err := dpservice.New(dpservice.Config{Node: slices.Concat(a.self.Addrs, a.self.Routers)}, a.maps)
	if err != nil {
		return err
	}
	a.serviceSync = table.NewReconciler(table.Config{}, a.services.rows, target)
	log := a.log.With("part", "services")
	a.checkTarget = healthcheck.New(healthcheck.Config{Addrs: a.self.Addrs}, healthcheck.Deps{Log: log})
	a.checkSync = table.NewReconciler(table.Config{}, a.services.checks, a.checkTarget)
	if a.cfg.KubeProxy && a.cgroup != "" && a.kernel.Destroy {
		a.orphans = &orphans{log: log, services: a.services, talks: a.maps.Talks, inForce: a.serviceSync.Revision, homes: a.homes, tcp: a.cfg.LBEndTCP,
			failed: fault.New(log, "sockets of removed backends not ended", "sockets of removed backends are ended again")}
	}
	return nil
}

// homes are the network namespaces whose sockets reach services: the node's own, then those of the workloads.
func (a *Agent) homes() []string {
	out := []string{"/proc/self/ns/net"}
	if a.cfg.LBSockHostNS || !a.cfg.LBEndPods {
		return out
	}
	seen := map[string]bool{}
	for _, e := range a.endpoints.Table().Snapshot().All() {
		if e.NetNS != "" && !seen[e.NetNS] {
			seen[e.NetNS] = true
			out = append(out, e.NetNS)
		}
	}
	return out
}
