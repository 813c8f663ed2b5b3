package app

import (
	"context"
	"net/netip"

	"connectrpc.com/connect"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// clusterState is the cluster's state as the agent uses it, whatever keeps it: etcd, or an API server.
type clusterState struct {
	nodes      nodeBook
	addresses  *table.Table[netip.Prefix, model.IPEntry] // of other nodes' workloads
	workloads  workloadBook
	identities identityBook
	policies   policyBook
	services   *table.Table[model.ServiceID, state.Service]
	// apiServers are where the cluster's API servers are; nil where there are none.
	apiServers *table.Table[netip.Addr, struct{}]
	// facts are what the cluster says about a workload; nil: nothing.
	facts func(namespace, name string) (model.Labels, bool)
	// claim makes pod ranges this node's.
	claim func(context.Context, state.Chooser) ([]netip.Prefix, error)
	ready func(context.Context) error // waits until all tables are complete
	dead  <-chan struct{}             // closed when only a new process can go on
	close func() error

	kv   *kvstore.Store // nil where an API server keeps the state
	kube *k8s.Store     // nil where etcd does
}

// nodeBook is the membership of the cluster.
type nodeBook interface {
	Table() *table.Table[string, model.Node]
	Publish(model.Node) error
}

// workloadBook tells the cluster who lives on this node.
type workloadBook interface {
	endpoint.Publisher
	// Replace says that these are all there are.
	Replace([]model.Endpoint) error
}

// identityBook is what numbers label sets have.
type identityBook interface {
	Table() *table.Table[model.IdentityID, model.Identity]
	AllocateHint(ctx context.Context, labels model.Labels, hint model.IdentityID) (id model.IdentityID, isNew bool, err error)
	Release(model.IdentityID) error
	Moved() <-chan state.Moved
}

// policyBook is what policies there are.
type policyBook interface {
	// Table is what snapshots are taken of.
	Table() *table.Table[string, state.Policy]
	Snapshot() state.PolicySnapshot
	WaitRevision(ctx context.Context, rev uint64) error
}

// openStore opens what keeps the cluster's state.
func (a *Agent) openStore(ctx context.Context, addrs []netip.Addr) error {
	if a.cfg.Kubernetes() {
		return a.openAPI(ctx, addrs)
	}
	kv, err := kvstore.Open(ctx, kvstore.Config{NodeName: a.cfg.NodeName, ClusterName: a.cfg.ClusterName, Paths: a.paths,
		Local: a.cfg.EtcdLocal, Listen: a.cfg.EtcdListen, Endpoints: a.cfg.EtcdEndpoints,
		TLS:      kvstore.TLSFiles{CA: a.cfg.EtcdCAFile, Cert: a.cfg.EtcdCertFile, Key: a.cfg.EtcdKeyFile},
		LeaseTTL: a.cfg.LeaseTTL, GCInterval: a.cfg.IdentityGC, Idle: a.cfg.IdentityGrace, Quarantine: a.cfg.IdentityGrace}, kvstore.Deps{Log: a.log.With("part", "kvstore")})
	if err != nil {
		return err
	}
	a.store = etcdState(kv, tunnelAddr(addrs))
	return nil
}

// etcdState is the state that etcd keeps; tunnel is how other nodes reach this one.
func etcdState(kv *kvstore.Store, tunnel netip.Addr) clusterState {
	return clusterState{kv: kv, nodes: kv.Nodes(), addresses: kv.IPs().Table(), workloads: publisher{ips: kv.IPs(), tunnel: tunnel},
		identities: kv.Identities(), policies: kv.Policies(), services: kv.Services().Table(),
		claim: kv.ClaimPodCIDRs, ready: kv.Ready, dead: kv.Dead(), close: kv.Close}
}

// openAPI follows an API server.
func (a *Agent) openAPI(ctx context.Context, addrs []netip.Addr) error {
	first := tunnelAddr(addrs) // the one by which others know this node
	ordered := []netip.Addr{first}
	for _, ip := range addrs {
		if ip != first {
			ordered = append(ordered, ip)
		}
	}
	s, err := k8s.Open(ctx, k8s.Config{NodeName: a.cfg.NodeName, ClusterName: a.cfg.ClusterName, Paths: a.paths, Server: a.cfg.APIServer,
		Kubeconfig: a.cfg.Kubeconfig, IPAM: a.cfg.IPAM, DefaultPool: a.cfg.DefaultPool, EndpointSlices: a.cfg.EndpointSlices, Addrs: ordered, IPv4: a.cfg.EnableIPv4, IPv6: a.cfg.EnableIPv6}, k8s.Deps{Log: a.log.With("part", "kubernetes")})
	if err != nil {
		return err
	}
	a.store = clusterState{kube: s, nodes: s.Nodes(), addresses: s.Endpoints().Table(), workloads: s.Endpoints(), identities: s.Identities(),
		policies: s.Policies(), services: s.Services().Table(), apiServers: s.Services().APIServers(), facts: factsOf(s.Pods()),
		claim: func(ctx context.Context, _ state.Chooser) ([]netip.Prefix, error) { return s.PodCIDRs(ctx) }, // who gives them out has chosen
		ready: s.Ready, close: s.Close}
	return nil
}

// writable is the store in which the agent's own commands write; where an API server keeps the state they do not.
func (s *clusterState) writable() (*kvstore.Store, error) {
	if s.kv == nil {
		return nil, fail(connect.CodeFailedPrecondition, "the cluster's state is the API server's: use kubectl")
	}
	return s.kv, nil
}
