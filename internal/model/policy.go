package model

import (
	"cmp"
	"fmt"
	"net/netip"
)

// ClassID is the number of a peer class: peers that match exactly the same selectors. 0 is "any other peer".
type ClassID uint32

// AreaID is the number of a part of the address space: where a block of policies, which means addresses whoever lives there
// (ipBlock, networks), is the narrowest one. 0 is everywhere else.
type AreaID uint32

// Area is what holds for the addresses of an area.
type Area struct {
	ID AreaID
	// Strict says that a block around it may deny: a workload or node of which it is not known that it lives here is refused,
	// and not judged by its identity alone.
	Strict bool
}

// Peer is whom policy takes one end of a connection for: an identity, and for a workload or node the area where it lives.
type Peer struct {
	Identity IdentityID
	Area     AreaID
}

// String is the identity, with the area if there is one.
func (p Peer) String() string {
	if p.Area == 0 {
		return p.Identity.String()
	}
	return fmt.Sprintf("%s@%d", p.Identity, p.Area)
}

// ComparePeers orders peers by identity, the one without an area first.
func ComparePeers(a, b Peer) int {
	return cmp.Or(cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Area, b.Area))
}

// SetID is the number of a compiled policy, shared by all workloads with the same identity (and named ports and mode).
type SetID uint32

// Direction of a judgement, seen from the workload whose policy is asked.
type Direction uint8

// Directions as the datapath numbers them.
const (
	Ingress Direction = 0
	Egress  Direction = 1
)

// String is "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// PolicyKey is the place of one compiled list.
type PolicyKey struct {
	Set   SetID
	Class ClassID
	Dir   Direction
}

// PolicyList is what the datapath asks once it has a key: the first entry that matches decides, else the default.
// Lists of any length are valid here; how long ones are stored is the datapath's business.
type PolicyList struct {
	Entries        []PolicyEntry
	DefaultVerdict uint8 // VerdictDeny | VerdictAudit, VerdictAllow, ...
	DefaultRule    RuleID
}

// PolicyEntry is one line of a compiled list.
type PolicyEntry struct {
	Proto     uint8  // IP protocol, 0 = any
	PortLo    uint16 // inclusive; ICMP: the type
	PortHi    uint16
	Verdict   uint8
	ProxyPort uint16
	Rule      RuleID
}

// PolicyPlan is an ordered list of steps that takes the kernel from one policy to the next so that every packet sees
// the old one or the new one, never a mixture. Steps must be applied in order; all writes inside a step may be batched.
type PolicyPlan struct {
	Steps    []PolicyStep
	Revision uint64 // policy revision in force once the last step is applied
	Hidden   []HiddenLabels
}

// HiddenLabels are labels, as "source:key", that a policy taken in by a plan asks for, and that no identity has because they are filtered.
type HiddenLabels struct {
	Policy PolicyRef
	Labels []string
}

// PolicyStep holds writes of independent maps; within one step the order is: Lists, Classes (those in areas
// first), Prefixes, Areas (the narrowest first), EndpointSets, the epoch when BumpEpoch is set, then the deletions: prefixes,
// areas (in this order: wider ones first), classes, lists.
type PolicyStep struct {
	Lists          map[PolicyKey]PolicyList
	Classes        map[Peer]ClassID
	Prefixes       map[netip.Prefix]IdentityID // CIDRs of policies, with their node-local identities
	Areas          map[netip.Prefix]Area
	EndpointSets   map[uint16]SetID // endpoint id -> set
	BumpEpoch      bool             // verdicts given before this step must be asked again
	DeletePrefixes []netip.Prefix
	DeleteAreas    []netip.Prefix
	DeleteClasses  []Peer
	DeleteLists    []PolicyKey
}

// PolicyState is the compiled policy as the kernel holds it, read back after a restart.
type PolicyState struct {
	Lists        map[PolicyKey]PolicyList
	Classes      map[Peer]ClassID
	Prefixes     map[netip.Prefix]IdentityID // rows with a node-local CIDR identity
	Areas        map[netip.Prefix]Area
	EndpointSets map[uint16]SetID
}
