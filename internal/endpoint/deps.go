package endpoint

import (
	"context"
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// Claim asks for an address.
type Claim struct {
	Owner string // "namespace/name", for messages
	V6    bool
	Addr  netip.Addr // when valid, it must be this one
	Pool  string     // to have it from; "": wherever the node has its addresses from
}

// Address is one that was reserved.
type Address struct {
	netip.Addr
	Pool   string // that it is from, where pools have names
	NoMasq bool   // the workload leaves the cluster under it
}

// IPAM gives out this node's addresses. It keeps no state on disk: Restore allocates again what is in use.
type IPAM interface {
	// Versions says which IP versions a workload gets.
	Versions() (v4, v6 bool)
	// Allocate reserves an address. Errors wrap ErrFull when none is left.
	Allocate(ctx context.Context, c Claim) (Address, error)
	// Keep reserves an address that a workload found at start has.
	Keep(owner string, addr netip.Addr) error
	// Release gives an address back; one that was not allocated is ignored.
	Release(addr netip.Addr)
}

// Identities turns labels into cluster-wide numbers.
type Identities interface {
	// Allocate returns the number of a label set and holds it for this node. Each success needs one Release. hint, unless
	// 0, is the number these labels had before: preferred, should the cluster have forgotten them.
	Allocate(ctx context.Context, labels model.Labels, hint model.IdentityID) (model.IdentityID, error)
	// Release lets go once. It works in the background and cannot fail.
	Release(id model.IdentityID)
}

// LinkSpec says what the device pair of a workload is to be.
type LinkSpec struct {
	HostIfName  string // paths.HostIf
	ContainerID string
	NetNS       string // path; must not be the agent's own network namespace
	IfName      string // inside
	MAC         string // wished, else one is made
	Addrs       []netip.Addr
	Gateways    []netip.Addr // of the same versions
	MTU         int
}

// Link is a device pair as it is.
type Link struct {
	HostIfName  string
	HostIfIndex int
	MAC         string
	HostMAC     string
}

// Links makes device pairs. All methods are idempotent.
type Links interface {
	// Create makes the pair, addresses included, both sides down. On an error nothing of it is left.
	// The error is fs.ErrNotExist when there is no such network namespace.
	Create(ctx context.Context, spec LinkSpec) (Link, error)
	// Up brings both sides up and sets the routes inside: now traffic can flow.
	Up(ctx context.Context, spec LinkSpec) error
	// Delete removes the pair; one that is not there is no error.
	Delete(ctx context.Context, hostIfName string) error
	// Check says what is wrong with the pair, nil if it is up and as wanted.
	Check(ctx context.Context, spec LinkSpec) error
	// Verify says what is wrong on the node's side of pairs, by HostIfName: ErrNoDevice for one that is gone. Pairs in
	// order are not in the map. It is cheap enough to be called every few seconds.
	Verify(ctx context.Context, specs []LinkSpec) (map[string]error, error)
	// List returns the host sides that exist and belong to this agent.
	List(ctx context.Context) ([]Link, error)
}

// Datapath writes the kernel's rows about workloads and attaches programs. All methods are idempotent.
type Datapath interface {
	// UpsertEndpoint writes the rows of endpoints_v1, one for each address.
	UpsertEndpoint(ctx context.Context, e model.Endpoint) error
	// DeleteEndpoint removes them. Rows that are another endpoint's by now stay.
	DeleteEndpoint(ctx context.Context, e model.Endpoint) error
	// Attach puts the programs on the host side, or adopts those that are there.
	Attach(ctx context.Context, e model.Endpoint) error
	// Verify says what is missing of what UpsertEndpoint and Attach made; nil if nothing is. It is cheap, too.
	Verify(ctx context.Context, e model.Endpoint) error
	// Detach removes what Attach left (pins). It is called when the device is gone.
	Detach(ctx context.Context, e model.Endpoint) error
	// Prune removes rows and pins of endpoints that are not in keep. Rows of those that are stay as they are.
	Prune(ctx context.Context, keep []model.Endpoint) error
}

// Policy brings policy in force.
type Policy interface {
	// Enforce compiles what holds for e (its identity, named ports, audit mode), writes all of it to the kernel and then,
	// in place of the step that flips e to its set, calls commit with the set and the revision. Between the writes and
	// the end of commit no other policy change may be applied, so the set stays true; what commit makes unneeded is deleted
	// after it. When e was known with another identity or set, connections are judged again (epoch).
	// An error of commit is returned and leaves the policy that was in force before.
	Enforce(ctx context.Context, e model.Endpoint, commit func(set model.SetID, revision uint64) error) error
	// Forget drops what is known of an endpoint whose rows are gone. It works in the background and cannot fail.
	Forget(id uint16)
}

// Publisher tells the cluster which addresses have which identity.
type Publisher interface {
	// Publish returns once the cluster can know e's addresses.
	Publish(ctx context.Context, e model.Endpoint) error
	// Withdraw takes e's addresses back as soon as the store can be reached. It cannot fail.
	Withdraw(e model.Endpoint)
}
