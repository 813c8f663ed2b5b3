package observe

import (
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// Resolver gives names to the numbers in an event, as they are now. Answers come from tables and must come at once:
// it is asked several times for every event. What it returns is not changed afterwards, neither by it nor here.
type Resolver interface {
	// Endpoint says who lives at an address. id is the local endpoint's number as the datapath told it, or 0.
	Endpoint(addr netip.Addr, id uint16) (Peer, bool)
	// Identity is the label set of an identity.
	Identity(id model.IdentityID) (model.Labels, bool)
	// Rule is what stands behind a rule number. Built-in numbers need not be known.
	Rule(id model.RuleID) (model.RuleRef, bool)
	// Service is the service that has a frontend at an address and port, if it has a name.
	Service(addr netip.Addr, port uint16, proto uint8) (Service, bool)
	// Interface is the name of a network device, "" if it is gone.
	Interface(index uint32) string
}

// Peer is one end of a flow.
type Peer struct {
	ID        uint16 // endpoint number on this node, 0 if it is not local
	Identity  model.IdentityID
	Namespace string
	Pod       string
	Cluster   string       // "" = this one
	Labels    model.Labels // used where the identity's are not known
	Workloads []Workload
	Names     []string // DNS names of the address
}

// Workload is what a pod belongs to.
type Workload struct{ Name, Kind string }

// Sockets says whose a socket is. What holds for Resolver holds for it.
type Sockets interface {
	// Owner is the address, of this IP version, of the workload that has the network namespace with this cookie.
	Owner(netns uint64, v6 bool) (netip.Addr, bool)
}

// Service is what a frontend belongs to.
type Service struct{ Name, Namespace string }
