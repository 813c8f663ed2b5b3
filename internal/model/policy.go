package model

import "net/netip"

// ClassID is the number of a peer class: identities that match exactly the same selectors. 0 is "any other peer".
type ClassID uint32

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
}

// PolicyStep holds writes of independent maps; within one step the order is: Lists, Classes, Prefixes, EndpointSets,
// the epoch when BumpEpoch is set, then the deletions: prefixes, classes, lists.
type PolicyStep struct {
	Lists          map[PolicyKey]PolicyList
	Classes        map[IdentityID]ClassID
	Prefixes       map[netip.Prefix]IdentityID // CIDRs of policies, with their node-local identities
	EndpointSets   map[uint16]SetID            // endpoint id -> set
	BumpEpoch      bool                        // verdicts given before this step must be asked again
	DeletePrefixes []netip.Prefix
	DeleteClasses  []IdentityID
	DeleteLists    []PolicyKey
}

// PolicyState is the compiled policy as the kernel holds it, read back after a restart.
type PolicyState struct {
	Lists        map[PolicyKey]PolicyList
	Classes      map[IdentityID]ClassID
	Prefixes     map[netip.Prefix]IdentityID // rows with a node-local CIDR identity
	EndpointSets map[uint16]SetID
}
