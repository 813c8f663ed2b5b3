package model

import (
	"net/netip"
	"time"
)

// ServiceID is the number of a service, the same on every node of the cluster. 0 is none. One frontend is one service, as in
// the field's `service list`.
type ServiceID uint32

// ServiceType says which kind of address a frontend is.
type ServiceType uint8

// Types of services.
const (
	ServiceClusterIP ServiceType = iota
	ServiceNodePort
	ServiceExternalIPs
	ServiceHostPort
	ServiceLoadBalancer
	ServiceLocalRedirect
)

var serviceTypeNames = [...]string{"ClusterIP", "NodePort", "ExternalIPs", "HostPort", "LoadBalancer", "LocalRedirect"}

// String is the type's name as the field writes it.
func (t ServiceType) String() string {
	if int(t) < len(serviceTypeNames) {
		return serviceTypeNames[t]
	}
	return "NONE"
}

// Scope says to whom a frontend speaks, where traffic policies of the two differ.
type Scope uint8

// Scopes of frontends.
const (
	ScopeExternal Scope = iota // everybody, but for whom an internal frontend of the same address is there
	ScopeInternal              // workloads and nodes of the cluster
)

// Frontend is an address at which a service is reached. What no frontend of a VIP (the address of a ClusterIP, ExternalIPs or
// LoadBalancer service) wants, a node refuses rather than routes.
type Frontend struct {
	Addr  netip.Addr `json:"addr"` // the zero address of a family: any address of the node (NodePort, HostPort)
	Port  uint16     `json:"port"`
	Proto uint8      `json:"proto"` // IP protocol: TCP 6, UDP 17, SCTP 132
	Scope Scope      `json:"scope,omitempty"`
}

// BackendState says what a backend may be given.
type BackendState uint8

// States of backends, in the order of the field's numbers.
const (
	BackendActive      BackendState = iota
	BackendTerminating              // keeps its flows; new ones only when nobody is active
	BackendQuarantined              // found unhealthy; keeps its flows
	BackendMaintenance              // taken out by an operator; keeps its flows
)

var backendStateNames = [...]string{"active", "terminating", "quarantined", "maintenance"}

// String is the state's name as the field writes it.
func (s BackendState) String() string {
	if int(s) < len(backendStateNames) {
		return backendStateNames[s]
	}
	return "unknown"
}

// Backend is one of the places where a service really is.
type Backend struct {
	Addr   netip.Addr   `json:"addr"`
	Port   uint16       `json:"port"`
	Proto  uint8        `json:"proto"`
	State  BackendState `json:"state,omitempty"`
	Weight uint16       `json:"weight,omitempty"` // shares of new flows; 0 counts as 1
	Node   string       `json:"node,omitempty"`   // name of the node it lives on, for Local traffic policies; "" if unknown
	Zone   string       `json:"zone,omitempty"`
	Hints  Zones        `json:"hints,omitempty"` // zones that it is for, by who spreads traffic (EndpointSlice hints); "": none said
	// NodeHints are the nodes that it is for, likewise.
	NodeHints Zones `json:"nodeHints,omitempty"`
}

// Selection is how a backend is chosen for a new flow.
type Selection uint8

// Ways to select.
const (
	SelectDefault Selection = iota // as the node is configured
	SelectRandom
	SelectMaglev
)

// Service is intent: one frontend and what stands behind it.
type Service struct {
	ID            ServiceID      `json:"id"`
	Name          string         `json:"name,omitempty"`
	Namespace     string         `json:"namespace,omitempty"`
	Type          ServiceType    `json:"type"`
	Frontend      Frontend       `json:"frontend"`
	Backends      []Backend      `json:"backends,omitempty"`
	Affinity      time.Duration  `json:"affinity,omitempty"`      // how long a client stays with its backend; 0: no affinity
	ExternalLocal bool           `json:"externalLocal,omitempty"` // traffic policies Local: this node's own backends only
	InternalLocal bool           `json:"internalLocal,omitempty"`
	HealthPort    uint16         `json:"healthPort,omitempty"` // health-check node port; 0: none
	Ranges        []netip.Prefix `json:"ranges,omitempty"`     // who may come (or may not) from outside; none: everybody
	RangesDeny    bool           `json:"rangesDeny,omitempty"`
	Select        Selection      `json:"select,omitempty"`
	Prefer        Preference     `json:"prefer,omitempty"`
	Elsewhere     bool           `json:"elsewhere,omitempty"` // other nodes serve it, and not this one
}

// Balance is what the kernel is to do with one frontend: the service as this node sees it, after traffic policy, states and
// weights. control/service makes it; datapath/service writes it.
type Balance struct {
	Frontend Frontend
	ID       ServiceID
	Type     ServiceType
	// Slots are the backends that new flows get, each as often as its weight says for random selection, in the order of their addresses.
	// Empty: nobody is there.
	Slots []Backend
	// Table is the Maglev table, indexes of Slots; nil: random selection. Its length is the same for all services of a node.
	Table []uint16
	// Keep are backends that get no new flow but keep theirs: affinity and flows that are on record stay with them.
	Keep       []Backend
	Affinity   time.Duration
	Ranges     []netip.Prefix
	RangesDeny bool
	Local      bool // Slots were cut to this node's own by a traffic policy
}

// HealthCheck is what a node answers at a health-check node port, by which load balancers know whether to send it anything.
type HealthCheck struct {
	Namespace, Name string // of the service
	Local           int    // places where it has an active backend itself; 0: it is to be spared
}
