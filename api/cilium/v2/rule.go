package v2

// Rule says who may talk to the workloads it selects (ingress) and to whom they may talk (egress).
//
// +kubebuilder:pruning:PreserveUnknownFields
type Rule struct {
	EndpointSelector *LabelSelector `json:"endpointSelector,omitzero"`

	// The first members of a list put the selected workloads into default deny for its direction, unless
	// EnableDefaultDeny says otherwise. Deny beats allow. A member without peers and ports matches nothing.
	Ingress     []IngressRule `json:"ingress,omitzero"`
	IngressDeny []IngressRule `json:"ingressDeny,omitzero"`
	Egress      []EgressRule  `json:"egress,omitzero"`
	EgressDeny  []EgressRule  `json:"egressDeny,omitzero"`

	EnableDefaultDeny *DefaultDeny `json:"enableDefaultDeny,omitzero"`
	Labels            []Label      `json:"labels,omitzero"`
	Description       string       `json:"description,omitempty"`
	Log               *Log         `json:"log,omitzero"`
}

// DefaultDeny overrides, per direction, whether a rule puts its workloads into default deny.
//
// +kubebuilder:pruning:PreserveUnknownFields
type DefaultDeny struct {
	Ingress *bool `json:"ingress,omitzero"`
	Egress  *bool `json:"egress,omitzero"`
}

// Log is a text of the author that is shown with the verdicts of the rule.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Log struct {
	Value string `json:"value,omitempty"`
}

// IngressRule is a member of ingress or ingressDeny: peers of one kind, and ports.
//
// +kubebuilder:pruning:PreserveUnknownFields
type IngressRule struct {
	FromEndpoints []LabelSelector `json:"fromEndpoints,omitzero"`
	FromRequires  []LabelSelector `json:"fromRequires,omitzero"`
	FromCIDR      []string        `json:"fromCIDR,omitzero"`
	FromCIDRSet   []CIDRRule      `json:"fromCIDRSet,omitzero"`
	FromEntities  []Entity        `json:"fromEntities,omitzero"`
	FromNodes     []LabelSelector `json:"fromNodes,omitzero"`
	ToPorts       []PortRule      `json:"toPorts,omitzero"`
	ICMPs         []ICMPRule      `json:"icmps,omitzero"`
}

// EgressRule is a member of egress or egressDeny: peers of one kind, and ports.
//
// +kubebuilder:pruning:PreserveUnknownFields
type EgressRule struct {
	ToEndpoints []LabelSelector `json:"toEndpoints,omitzero"`
	ToRequires  []LabelSelector `json:"toRequires,omitzero"`
	ToCIDR      []string        `json:"toCIDR,omitzero"`
	ToCIDRSet   []CIDRRule      `json:"toCIDRSet,omitzero"`
	ToEntities  []Entity        `json:"toEntities,omitzero"`
	ToNodes     []LabelSelector `json:"toNodes,omitzero"`
	ToPorts     []PortRule      `json:"toPorts,omitzero"`
	ICMPs       []ICMPRule      `json:"icmps,omitzero"`
}

// CIDRRule is a prefix, or the prefixes of a group, without what Except cuts out. Exactly one of the first three is set.
//
// +kubebuilder:pruning:PreserveUnknownFields
type CIDRRule struct {
	CIDR              string         `json:"cidr,omitempty"`
	CIDRGroupRef      string         `json:"cidrGroupRef,omitempty"`
	CIDRGroupSelector *LabelSelector `json:"cidrGroupSelector,omitzero"`
	Except            []string       `json:"except,omitzero"`
}

// Entity names peers that need no selector.
//
// +kubebuilder:validation:Enum=all;world;world-ipv4;world-ipv6;cluster;host;init;ingress;unmanaged;remote-node;health;none;kube-apiserver
type Entity string

// The entities.
const (
	EntityAll           Entity = "all"
	EntityWorld         Entity = "world"
	EntityWorldIPv4     Entity = "world-ipv4"
	EntityWorldIPv6     Entity = "world-ipv6"
	EntityCluster       Entity = "cluster"
	EntityHost          Entity = "host"
	EntityInit          Entity = "init"
	EntityIngress       Entity = "ingress"
	EntityUnmanaged     Entity = "unmanaged"
	EntityRemoteNode    Entity = "remote-node"
	EntityHealth        Entity = "health"
	EntityNone          Entity = "none"
	EntityKubeAPIServer Entity = "kube-apiserver"
)

// Entities are all of them.
func Entities() []Entity {
	return []Entity{EntityAll, EntityWorld, EntityWorldIPv4, EntityWorldIPv6, EntityCluster, EntityHost, EntityInit,
		EntityIngress, EntityUnmanaged, EntityRemoteNode, EntityHealth, EntityNone, EntityKubeAPIServer}
}
