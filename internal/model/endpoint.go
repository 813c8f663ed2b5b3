package model

import (
	"net/netip"
	"time"
)

// EndpointState is where a workload stands between being asked for and carrying traffic.
type EndpointState string

// The states of an endpoint, named as the field knows them.
const (
	EndpointWaiting      EndpointState = "waiting-for-identity"
	EndpointRegenerating EndpointState = "regenerating"
	EndpointReady        EndpointState = "ready"
	EndpointDisconnected EndpointState = "disconnected"
)

// NamedPort is a port of a workload that policies may name.
type NamedPort struct {
	Name  string `json:"name"`
	Port  uint16 `json:"port"`
	Proto uint8  `json:"protocol"` // IP protocol
}

// Endpoint is a workload attached to this node.
type Endpoint struct {
	ID          uint16        `json:"id"` // on this node, 1..65535
	Name        string        `json:"name"`
	Namespace   string        `json:"namespace,omitempty"`
	ContainerID string        `json:"containerID"`
	NetNS       string        `json:"netns"`         // path of its network namespace
	IfName      string        `json:"interfaceName"` // inside, "eth0"
	HostIfName  string        `json:"hostInterfaceName"`
	HostIfIndex int           `json:"hostInterfaceIndex"`
	MAC         string        `json:"mac"`
	HostMAC     string        `json:"hostMac"`
	IPv4        netip.Addr    `json:"ipv4,omitzero"`
	IPv6        netip.Addr    `json:"ipv6,omitzero"`
	IPv4Pool    string        `json:"ipv4Pool,omitempty"` // that the address is from, where pools have names
	IPv6Pool    string        `json:"ipv6Pool,omitempty"`
	IPv4NoMasq  bool          `json:"ipv4NoMasquerade,omitempty"` // it leaves the cluster under this address
	IPv6NoMasq  bool          `json:"ipv6NoMasquerade,omitempty"`
	Labels      Labels        `json:"labels"`
	NamedPorts  []NamedPort   `json:"namedPorts,omitempty"`
	Identity    IdentityID    `json:"identity"`
	PolicySet   uint32        `json:"policySet"`
	PolicyRev   uint64        `json:"policyRevision"` // revision of the policy in force on it
	Audit       bool          `json:"auditMode,omitempty"`
	State       EndpointState `json:"state"`
	Created     time.Time     `json:"created"`
}

// Addrs are the endpoint's addresses, IPv4 first; invalid ones are left out.
func (e *Endpoint) Addrs() []netip.Addr {
	out := make([]netip.Addr, 0, 2)
	for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
