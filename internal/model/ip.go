package model

import "net/netip"

// IPSource says who told us whose an address is. Of two, the greater one wins.
type IPSource uint8

// Sources of addresses in rising precedence.
const (
	IPSourceUnspec IPSource = iota
	IPSourceRestored
	IPSourceGenerated
	IPSourceAPI
	IPSourceDirectory
	IPSourceClusterMesh
	IPSourceK8s
	IPSourceCustomResource
	IPSourceKVStore
	IPSourceLocal
	IPSourceKubeAPI
)

var ipSourceNames = [...]string{"unspec", "restored", "generated", "api", "directory", "clustermesh", "k8s",
	"custom-resource", "kvstore", "local", "kube-apiserver"}

// String is the source's name as the field writes it.
func (s IPSource) String() string {
	if int(s) < len(ipSourceNames) {
		return ipSourceNames[s]
	}
	return "unspec"
}

// IPEntry says who lives at an address or prefix.
type IPEntry struct {
	Prefix     netip.Prefix `json:"cidr"`
	Identity   IdentityID   `json:"identity"`
	Tunnel     netip.Addr   `json:"hostIP,omitzero"` // underlay address of its node, when that is another one
	Source     IPSource     `json:"-"`
	Node       bool         `json:"node,omitempty"`      // address of a node of the cluster
	LocalCIDR  bool         `json:"localCIDR,omitempty"` // this node's own pod range
	NoMasq     bool         `json:"noMasquerade,omitempty"`
	Name       string       `json:"name,omitempty"` // of the workload
	Namespace  string       `json:"namespace,omitempty"`
	NamedPorts []NamedPort  `json:"namedPorts,omitempty"`
}
