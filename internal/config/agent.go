// Package config holds the agent's options: each is a flag, a key of the YAML file and a HYPHA_* variable under the
// same name, and each remembers where its value came from.
package config

import (
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/hypha-net/hypha/internal/paths"
)

// Values of datapath-mode.
const (
	ModeVeth   = "veth"
	ModeNetkit = "netkit-l2"
)

// CIDRMatchNodes lets CIDRs of policies match nodes (policy-cidr-match-mode).
const CIDRMatchNodes = "nodes"

// Values of identity-allocation-mode.
const (
	ModeCRD     = "crd"
	ModeKVStore = "kvstore"
)

// Agent are the options of hypha-agent. The tags are the option names.
type Agent struct {
	StateDir    string   `koanf:"state-dir"`
	NodeName    string   `koanf:"node-name"`
	ClusterName string   `koanf:"cluster-name"`
	NodeIP      []string `koanf:"node-ip"`
	NodeLabels  []string `koanf:"node-labels"`
	SocketGroup string   `koanf:"socket-group"`
	Debug       bool     `koanf:"debug"`
	LogFormat   string   `koanf:"log-format"`
	LogFile     string   `koanf:"log-file"`

	EnableIPv4  bool     `koanf:"enable-ipv4"`
	EnableIPv6  bool     `koanf:"enable-ipv6"`
	Datapath    string   `koanf:"datapath-mode"`
	RoutingMode string   `koanf:"routing-mode"`
	TunnelProto string   `koanf:"tunnel-protocol"`
	TunnelPort  uint16   `koanf:"tunnel-port"`
	DirectNodes bool     `koanf:"auto-direct-node-routes"`
	Devices     []string `koanf:"devices"`
	MTU         int      `koanf:"mtu"`
	Prefilter   bool     `koanf:"enable-xdp-prefilter"`

	IPv4Pool     string   `koanf:"ipv4-pool"`
	IPv4PoolMask int      `koanf:"ipv4-pool-mask-size"`
	IPv6Pool     string   `koanf:"ipv6-pool"`
	IPv6PoolMask int      `koanf:"ipv6-pool-mask-size"`
	IPv4Range    string   `koanf:"ipv4-range"`
	IPv6Range    string   `koanf:"ipv6-range"`
	Masq4        bool     `koanf:"enable-ipv4-masquerade"`
	Masq6        bool     `koanf:"enable-ipv6-masquerade"`
	NonMasq      []string `koanf:"non-masquerade-cidrs"`
	MasqPorts    string   `koanf:"masquerade-port-range"`

	EnablePolicy   string   `koanf:"enable-policy"`
	PolicyAudit    bool     `koanf:"policy-audit-mode"`
	AllowLocalhost string   `koanf:"allow-localhost"`
	CIDRMatchMode  []string `koanf:"policy-cidr-match-mode"`
	Labels         []string `koanf:"labels"`

	APIServer    string `koanf:"k8s-api-server"`
	Kubeconfig   string `koanf:"k8s-kubeconfig-path"`
	Namespace    string `koanf:"k8s-namespace"`
	IdentityMode string `koanf:"identity-allocation-mode"`
	IPAM         string `koanf:"ipam"`

	EndpointSlices bool `koanf:"enable-cilium-endpoint-slice"`

	DefaultPool     string   `koanf:"ipam-default-ip-pool"`
	PreAllocation   []string `koanf:"ipam-multi-pool-pre-allocation"`
	MasqDefaultPool bool     `koanf:"only-masquerade-default-pool"`

	EtcdLocal      string        `koanf:"etcd-local-address"`
	EtcdListen     []string      `koanf:"etcd-listen"`
	EtcdEndpoints  []string      `koanf:"etcd-endpoints"`
	EtcdCAFile     string        `koanf:"etcd-ca-file"`
	EtcdCertFile   string        `koanf:"etcd-cert-file"`
	EtcdKeyFile    string        `koanf:"etcd-key-file"`
	LeaseTTL       time.Duration `koanf:"kvstore-lease-ttl"`
	IdentityGC     time.Duration `koanf:"identity-gc-interval"`
	IdentityGrace  time.Duration `koanf:"identity-heartbeat-timeout"`
	IdentityChange time.Duration `koanf:"identity-change-grace-period"`
	MapRatio       float64       `koanf:"bpf-map-dynamic-size-ratio"`
	CTMax          uint32        `koanf:"bpf-ct-global-max"`
	NATMax         uint32        `koanf:"bpf-nat-global-max"`
	PolicyMax      uint32        `koanf:"bpf-policy-map-max"`
	IPCacheMax     uint32        `koanf:"bpf-ipcache-max"`
	EventRing      uint32        `koanf:"bpf-events-ring-size"`
	EventsDrop     bool          `koanf:"bpf-events-enabled"`
	EventsTrace    bool          `koanf:"bpf-events-trace-enabled"`
	Accounting     bool          `koanf:"bpf-conntrack-accounting"`
	ReportInterval time.Duration `koanf:"monitor-aggregation-interval"`

	ServicesFile string   `koanf:"services-file"`
	KubeProxy    bool     `koanf:"kube-proxy-replacement"`
	CgroupRoot   string   `koanf:"cgroup-root"`
	NodePorts    []string `koanf:"node-port-range"`
	LBMode       string   `koanf:"bpf-lb-mode"`
	LBFast       string   `koanf:"bpf-lb-acceleration"`
	LBDispatch   string   `koanf:"bpf-lb-dsr-dispatch"`
	LBAlgorithm  string   `koanf:"bpf-lb-algorithm"`
	LBMaglevSize uint32   `koanf:"bpf-lb-maglev-table-size"`
	LBMaglevSeed string   `koanf:"bpf-lb-maglev-hash-seed"`
	LBMax        uint32   `koanf:"bpf-lb-map-max"`
	LBSockHostNS bool     `koanf:"bpf-lb-sock-hostns-only"`
	LBNoBackend  string   `koanf:"service-no-backend-response"`
	LBEndPods    bool     `koanf:"bpf-lb-sock-terminate-pod-connections"`
	LBEndTCP     bool     `koanf:"lb-sock-terminate-all-protos"`
	LBTopology   bool     `koanf:"enable-service-topology"`

	EnableHubble   bool     `koanf:"enable-hubble"`
	HubbleListen   string   `koanf:"hubble-listen-address"`
	HubbleCapacity int      `koanf:"hubble-event-buffer-capacity"`
	HubbleNoTLS    bool     `koanf:"hubble-disable-tls"`
	HubbleCert     string   `koanf:"hubble-tls-cert-file"`
	HubbleKey      string   `koanf:"hubble-tls-key-file"`
	HubbleCA       []string `koanf:"hubble-tls-client-ca-files"`
	Prometheus     string   `koanf:"prometheus-serve-addr"`
	Pprof          bool     `koanf:"pprof"`
	PprofAddress   string   `koanf:"pprof-address"`
	PprofPort      uint16   `koanf:"pprof-port"`

	HealthPort   uint16 `koanf:"agent-health-port"`
	HealthzBind  string `koanf:"kube-proxy-replacement-healthz-bind-address"`
	CNIConf      string `koanf:"write-cni-conf-when-ready"`
	CNIExclusive bool   `koanf:"cni-exclusive"`
	CNIUninstall bool   `koanf:"cni-uninstall"`
	CNIChaining  string `koanf:"cni-chaining-mode"`
	CNILog       string `koanf:"cni-log-file"`
}

// Paths are the agent's places.
func (a *Agent) Paths() paths.Paths { return paths.For(a.StateDir, a.NodeName) }

// Kubernetes says whether an API server keeps the cluster's state.
func (a *Agent) Kubernetes() bool { return a.IdentityMode == ModeCRD }

// Tunnel says whether workloads of other nodes are reached through the overlay.
func (a *Agent) Tunnel() bool { return a.RoutingMode == "tunnel" }

// Ports of encapsulations where tunnel-port does not say.
const (
	vxlanPort  = 8472
	genevePort = 6081
)

// EncapsulationPort is the UDP port at which nodes hear each other's encapsulated packets.
func (a *Agent) EncapsulationPort() uint16 {
	switch {
	case a.TunnelPort != 0:
		return a.TunnelPort
	case a.LBDispatch == dispatchGeneve:
		return genevePort
	}
	return vxlanPort
}

// Addrs are the configured underlay addresses; Load has checked them.
func (a *Agent) Addrs() []netip.Addr {
	out := make([]netip.Addr, 0, len(a.NodeIP))
	for _, s := range a.NodeIP {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// flags declares every option once: name, default, description.
func flags(hostname string) *pflag.FlagSet {
	f := pflag.NewFlagSet("hypha-agent", pflag.ContinueOnError)
	f.SortFlags = false
	f.String("config", "", "YAML file with options under these same names; flags and HYPHA_* variables win over it")
	f.String("config-dir", "", "directory with a file for each option, its name the option's, its content the value; the file, flags and HYPHA_* variables win over it")
	f.String("state-dir", paths.StateDir, "directory for the state, sockets and certificates of the agents of this machine")
	f.String("node-name", hostname, "name of this node in the cluster")
	f.String("cluster-name", "default", "name of the cluster")
	f.StringSlice("node-ip", nil, "underlay address of this node, at most one per IP version (default: of the device with the default route)")
	f.StringSlice("node-labels", nil, "labels of this node, key=value, for fromNodes/toNodes")
	f.String("socket-group", "", "group that may open the local sockets, besides root")
	f.Bool("debug", false, "log at debug level")
	f.String("log-format", "text", "text or json")
	f.String("log-file", "", "file to log to (default: standard error)")

	f.Bool("enable-ipv4", true, "give workloads IPv4 addresses")
	f.Bool("enable-ipv6", true, "give workloads IPv6 addresses")
	f.String("datapath-mode", ModeVeth, "device pairs of new workloads: veth, or netkit-l2 (Linux 6.7), which judges what a workload sends before it is queued")
	f.String("routing-mode", "tunnel", "tunnel (overlay) or native (the network routes workload addresses)")
	f.String("tunnel-protocol", "vxlan", "overlay encapsulation: vxlan")
	f.Uint16("tunnel-port", 0, "UDP port of the overlay (default: 8472), or of bpf-lb-dsr-dispatch geneve (6081)")
	f.Bool("auto-direct-node-routes", false, "native mode: install routes to the other nodes' workloads")
	f.StringSlice("devices", nil, "outside devices, trailing + is a wildcard (default: with a default route or a node address)")
	f.Int("mtu", 0, "MTU of workload devices (default: from the underlay and the mode)")
	f.Bool("enable-xdp-prefilter", true, "let the command prefilter deny sources, in XDP at the outside devices; nothing is attached while none is denied")

	f.String("ipv4-pool", "10.0.0.0/8", "range from which every node takes a part for its workloads")
	f.Int("ipv4-pool-mask-size", 24, "size of a node's part")
	f.String("ipv6-pool", "fd00::/104", "range from which every node takes a part for its workloads")
	f.Int("ipv6-pool-mask-size", 120, "size of a node's part")
	f.String("ipv4-range", "", "this node's workload range, instead of a part of the pool")
	f.String("ipv6-range", "", "this node's workload range, instead of a part of the pool")
	f.Bool("enable-ipv4-masquerade", true, "workloads leave the cluster under the node's IPv4 address")
	f.Bool("enable-ipv6-masquerade", true, "workloads leave the cluster under the node's IPv6 address")
	f.StringSlice("non-masquerade-cidrs", nil, "destinations that workloads reach under their own address")
	f.String("masquerade-port-range", "10240-29999", "ports for masqueraded connections; keep it apart from net.ipv4.ip_local_port_range")

	f.String("enable-policy", "default", "default (a policy that selects a workload makes it default-deny), always or never")
	f.Bool("policy-audit-mode", false, "let pass what policy denies, and report it as AUDIT")
	f.String("allow-localhost", "always", "always: the node reaches its own workloads; policy: only where a policy says so")
	f.StringSlice("policy-cidr-match-mode", nil, "what CIDR rules match besides the outside: nodes, or nothing")
	f.StringSlice("labels", nil, "which workload labels make an identity (prefixes, ! excludes; default: all but noise)")

	f.String("k8s-api-server", "", "URL of the API server that keeps the cluster's state (default: as the kubeconfig or the pod says)")
	f.String("k8s-namespace", "", "namespace of the agents, whose CiliumNodeConfigs set options of nodes (default $CILIUM_K8S_NAMESPACE; without one there are none)")
	f.String("k8s-kubeconfig-path", "", "kubeconfig file with the credentials for it (default: those of the agent's pod)")
	f.String("identity-allocation-mode", "", "who keeps the cluster's state: crd (the API server) or kvstore (etcd); default: crd with k8s-api-server or k8s-kubeconfig-path, else kvstore")
	f.String("ipam", "kubernetes", "with crd, who gives a node its pod ranges: kubernetes (the Node's podCIDRs), cluster-pool (the operator) or multi-pool (the operator, of CiliumPodIPPools as they are needed)")
	f.Bool("enable-cilium-endpoint-slice", false, "with crd, learn of other nodes' workloads from CiliumEndpointSlices, which the operator keeps with the same option, instead of CiliumEndpoints")
	f.String("ipam-default-ip-pool", "default", "with multi-pool, the pool of pods that no other one is said of, and of the node's own address")
	f.StringSlice("ipam-multi-pool-pre-allocation", nil, "with multi-pool, how many addresses of a pool a node has ahead of need, pool=number (default: 8 of the default pool)")
	f.Bool("only-masquerade-default-pool", false, "with multi-pool, addresses of other pools than the default one leave the cluster as they are")
	f.String("etcd-local-address", "127.0.0.1:2379", "loopback address of the embedded store")
	f.StringSlice("etcd-listen", nil, "https URLs on which the embedded store serves other nodes, mutual TLS")
	f.StringSlice("etcd-endpoints", nil, "URLs of an external store; none: the embedded one")
	f.String("etcd-ca-file", "", "CA of the external store")
	f.String("etcd-cert-file", "", "client certificate for the external store")
	f.String("etcd-key-file", "", "key of the client certificate")
	f.Duration("kvstore-lease-ttl", 15*time.Minute, "how long what this node published outlives it")
	f.Duration("identity-gc-interval", 15*time.Minute, "how often unused identities are collected")
	f.Duration("identity-change-grace-period", 100*time.Millisecond, "how long a workload whose labels change keeps its identity, so that other nodes know the new one by then")
	f.Duration("identity-heartbeat-timeout", 30*time.Minute, "how long an identity must have been unused to be collected, and how long its number rests then")

	f.Float64("bpf-map-dynamic-size-ratio", 0.0025, "part of the memory for the maps whose size is not given")
	f.Uint32("bpf-ct-global-max", 0, "rows of the connection table (default: from memory)")
	f.Uint32("bpf-nat-global-max", 0, "rows of the masquerade table (default: from memory)")
	f.Uint32("bpf-policy-map-max", 0, "rows of the policy map (default: from memory)")
	f.Uint32("bpf-ipcache-max", 0, "rows of the address map (default: from memory)")
	f.Uint32("bpf-events-ring-size", 1<<20, "bytes of each CPU's event ring, a power of two")
	f.Bool("bpf-events-enabled", true, "report drops and policy verdicts")
	f.Bool("bpf-events-trace-enabled", true, "report forwarded packets, aggregated")
	f.Bool("bpf-conntrack-accounting", false, "count packets and bytes per connection")
	f.Duration("monitor-aggregation-interval", 5*time.Second, "time between trace events of one direction of a connection")

	f.String("services-file", "", "YAML or JSON list of services that this node tells the cluster; followed while the agent runs")
	f.String("cgroup-root", "", "control group whose processes reach services, a directory of cgroup2 or one with it as unified (default: where cgroup2 is mounted)")
	f.Bool("kube-proxy-replacement", true, "serve the cluster's services on this node; off: it leaves them to others")
	f.StringSlice("node-port-range", []string{"30000", "32767"}, "ports of NodePort services, first and last")
	f.String("bpf-lb-mode", "snat", "the way back from a backend on another node to a client outside: snat (by this node), dsr (directly) or hybrid (dsr for TCP)")
	f.String("bpf-lb-acceleration", "disabled", "services of clients outside in XDP: disabled, native (in the drivers, of all outside devices), best-effort (of those whose drivers can) or testing-only, also called generic (behind them)")
	f.String("bpf-lb-dsr-dispatch", "opt", "how the backend's node is told which service a client asked: opt (IPv4 option, IPv6 destination option); with routing-mode native also geneve or ipip (encapsulation)")
	f.String("bpf-lb-algorithm", "random", "how services choose a backend unless they say so: random or maglev")
	f.Uint32("bpf-lb-maglev-table-size", 16381, "places of a Maglev table: a hundred times the backends of one service, one of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071")
	f.String("bpf-lb-maglev-hash-seed", "JLfvgnHc2kaSUFaI", "seed of Maglev tables, base64 of 12 bytes, the same on every node")
	f.Uint32("bpf-lb-map-max", 65536, "rows of the service maps")
	f.Bool("enable-service-topology", false, "send new flows to backends that are near, as hints of the backends say (topology-mode), also where their service does not say that it prefers those (trafficDistribution, which always counts); the node's zone is its label topology.kubernetes.io/zone")
	f.String("service-no-backend-response", "reject", "what who asks a service without backends gets, packet by packet: reject (ICMP: port unreachable) or drop")
	f.Bool("bpf-lb-sock-hostns-only", false, "translate at the sockets of the node itself only, not of workloads")
	f.Bool("bpf-lb-sock-terminate-pod-connections", true, "end workloads' sockets whose backend has left its service, not only the node's own")
	f.Bool("lb-sock-terminate-all-protos", false, "end TCP sockets whose backend has left its service, not only UDP ones")

	f.Bool("enable-hubble", true, "serve the flow API")
	f.String("hubble-listen-address", ":4244", "address of the flow API off the node, besides the unix socket; empty: none")
	f.Int("hubble-event-buffer-capacity", 4095, "flows kept in memory: one less than a power of two")
	f.Bool("hubble-disable-tls", false, "serve the flow API without TLS, then on a loopback address only")
	f.String("hubble-tls-cert-file", "", "certificate of the flow API (default: the agent makes one)")
	f.String("hubble-tls-key-file", "", "key of that certificate")
	f.StringSlice("hubble-tls-client-ca-files", nil, "CAs of clients; given, clients must show a certificate")
	f.String("prometheus-serve-addr", "", "address of the metrics, for example 127.0.0.1:9962; empty: none")
	f.Bool("pprof", false, "serve Go profiles of the agent (/debug/pprof) on pprof-address")
	f.String("pprof-address", "127.0.0.1", "loopback address of the profiles")
	f.Uint16("pprof-port", 6060, "port of the profiles")

	f.Uint16("agent-health-port", 0, "loopback port of /healthz (200 while no part has failed) and /livez (200 while the agent answers); 0: none")
	f.String("kube-proxy-replacement-healthz-bind-address", "", "address of /healthz for load balancers outside, as kube-proxy serves it; empty: none")
	f.String("write-cni-conf-when-ready", "", "CNI network configuration to write once workloads can be attached; empty: none")
	f.Bool("cni-exclusive", true, "set other networks' configurations in that directory aside (*.cilium_bak)")
	f.Bool("cni-uninstall", false, "take the configuration away when the agent ends, and give the others back")
	f.String("cni-chaining-mode", "none", "how workloads share with another CNI plugin: none")
	f.String("cni-log-file", "", "file that the CNI plugin logs to; empty: none")
	return f
}
