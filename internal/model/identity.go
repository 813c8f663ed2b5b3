package model

import "strconv"

// IdentityID is the number of a label set. Its ranges are those of the field: see the constants.
type IdentityID uint32

// Reserved identities, their numbers published.
const (
	IdentityUnknown     IdentityID = 0
	IdentityHost        IdentityID = 1
	IdentityWorld       IdentityID = 2
	IdentityUnmanaged   IdentityID = 3
	IdentityHealth      IdentityID = 4
	IdentityInit        IdentityID = 5
	IdentityRemoteNode  IdentityID = 6
	IdentityKubeAPI     IdentityID = 7
	IdentityIngress     IdentityID = 8
	IdentityWorldIPv4   IdentityID = 9
	IdentityWorldIPv6   IdentityID = 10
	IdentityUserMin     IdentityID = 128
	IdentityUserMax     IdentityID = 255
	IdentityClusterMin  IdentityID = 256
	IdentityClusterMax  IdentityID = 65535
	IdentityScopeMask   IdentityID = 0xff000000
	IdentityScopeLocal  IdentityID = 0x01000000 // CIDR and FQDN, never leaves the node; first used: 16777217
	IdentityScopeRemote IdentityID = 0x02000000 // remote nodes by their labels, never leaves the node; from 33554432
)

var reservedNames = map[IdentityID]string{
	IdentityUnknown: "unknown", IdentityHost: "host", IdentityWorld: "world", IdentityUnmanaged: "unmanaged",
	IdentityHealth: "health", IdentityInit: "init", IdentityRemoteNode: "remote-node", IdentityKubeAPI: "kube-apiserver",
	IdentityIngress: "ingress", IdentityWorldIPv4: "world-ipv4", IdentityWorldIPv6: "world-ipv6",
}

// Identity is a number and the label set it stands for.
type Identity struct {
	ID     IdentityID `json:"id"`
	Labels Labels     `json:"labels"`
}

// ReservedIdentities are the fixed ones but "unknown", each with its label "reserved:<name>", by number.
// The kube-apiserver is a remote node too. World of one IP version does not carry "world": the selector for the
// entity covers all three.
func ReservedIdentities() []Identity {
	out := make([]Identity, 0, len(reservedNames))
	for id := IdentityHost; id <= IdentityWorldIPv6; id++ {
		ls := []Label{{Source: SourceReserved, Key: reservedNames[id]}}
		if id == IdentityKubeAPI {
			ls = append(ls, Label{Source: SourceReserved, Key: reservedNames[IdentityRemoteNode]})
		}
		out = append(out, Identity{ID: id, Labels: NewLabels(ls...)})
	}
	return out
}

// ReservedID is the number of a reserved identity by its name ("host", "world", ...).
func ReservedID(name string) (IdentityID, bool) {
	for id, n := range reservedNames {
		if n == name {
			return id, true
		}
	}
	return 0, false
}

// String is the reserved name where there is one, else the number.
func (id IdentityID) String() string {
	if n, ok := reservedNames[id]; ok {
		return n
	}
	return strconv.FormatUint(uint64(id), 10)
}

// Local says whether the number means something on this node only.
func (id IdentityID) Local() bool { return id&IdentityScopeMask != 0 }
