package connectivity

import (
	"fmt"
	"net/netip"
	"slices"
)

// Site is what there is to test with.
type Site struct {
	Namespace string
	Nodes     []Node
	Clients   []*Peer // client, client2 on one node, client3 on another
	Echos     []*Peer // echo-same-node on the node of client, echo-other-node on another
	Hosts     []*Peer // a process in the network of each node
	Outside   []*Peer // machines outside, from which nodes are reached
	Services  []Service
	External  External
	Port      int    // of the echo servers
	PortName  string // its name
	HostPort  int    // of each node that has an echo server, which leads to it; 0: none
	V6        bool   // the cluster has IPv6 beside IPv4

	// Missing says of what the place cannot do why not.
	Missing map[Need]string
}

// Need is something that not every place has.
type Need string

// What tests and scenarios may need.
const (
	TwoNodes       Need = "two nodes"
	World          Need = "somebody outside"
	FromOutside    Need = "a machine outside that reaches nodes"
	KubePolicy     Need = "NetworkPolicy of Kubernetes"
	ServiceAccount Need = "service accounts"
	NamedPort      Need = "names of ports"
	NodePort       Need = "node ports"
	HostPort       Need = "host ports"
	Unsupported    Need = "unsupported"
)

// Node is a node of the cluster.
type Node struct {
	Name  string
	Addrs []netip.Addr // others reach it by
}

// Peer is a workload, or a process in a node's own network.
type Peer struct {
	Name   string // as messages call it: "cilium-test-1/client"
	Node   string
	Addrs  []netip.Addr
	Labels map[string]string
	Handle any // the place's own
	// Its sockets are led to backends of services as those of the nodes' processes are, for it is one of them: what it is to be served by
	// other means than that it has to send without a socket.
	Led bool
}

// Is says whether the peer has a label.
func (p *Peer) Is(key, value string) bool { return p != nil && p.Labels[key] == value }

// Addr is the peer's address of a family; invalid: it has none.
func (p *Peer) Addr(v6 bool) netip.Addr { return pick(p.Addrs, v6) }

// Service is an echo server behind an address or a name of its own.
type Service struct {
	Name     string // "echo-same-node"
	Host     string // by which workloads call it
	Port     int
	NodePort int // 0: none
	Echo     *Peer
}

// External is what is reached outside the cluster.
type External struct {
	Name string // how it is called: a name, or the first address
	V4   Block
	V6   Block
}

// Block is a prefix outside and two addresses in it.
type Block struct {
	CIDR      netip.Prefix
	IP, Other netip.Addr
}

func (e External) block(v6 bool) Block {
	if v6 {
		return e.V6
	}
	return e.V4
}

// families are those that a site has: false IPv4, true IPv6.
func (s *Site) families() []bool {
	if s.V6 {
		return []bool{false, true}
	}
	return []bool{false}
}

func pick(addrs []netip.Addr, v6 bool) netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
	if i < 0 {
		return netip.Addr{}
	}
	return addrs[i]
}

// lacks says why something cannot be done here; "": it can.
func (s *Site) lacks(needs ...Need) string {
	for _, n := range needs {
		if why, missing := s.Missing[n]; missing {
			return why
		}
	}
	return ""
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

func url(scheme, host string, port int) string {
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	if port == 0 {
		return scheme + "://" + host
	}
	return fmt.Sprintf("%s://%s:%d", scheme, host, port)
}
