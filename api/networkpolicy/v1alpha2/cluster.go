package v1alpha2

import v2 "github.com/hypha-net/hypha/api/cilium/v2"

// ClusterNetworkPolicy is a policy of the whole cluster.
type ClusterNetworkPolicy struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   v2.ObjectMeta `json:"metadata"`
	Spec       ClusterSpec   `json:"spec"`
}

// Tier says whether a policy comes before or behind those of namespaces.
type Tier string

// The tiers.
const (
	TierAdmin    Tier = "Admin"
	TierBaseline Tier = "Baseline"
)

// ClusterSpec is what a policy wants. Rules of a direction are asked in order, and the first that matches decides. Policies
// of a tier are asked by priority, lower numbers first.
type ClusterSpec struct {
	Tier     Tier                 `json:"tier"`
	Priority int32                `json:"priority"`
	Subject  Subject              `json:"subject"`
	Ingress  []ClusterIngressRule `json:"ingress,omitzero"`
	Egress   []ClusterEgressRule  `json:"egress,omitzero"`
}

// Subject selects the workloads that a policy is about. Exactly one field is set.
type Subject struct {
	Namespaces *v2.LabelSelector `json:"namespaces,omitzero"`
	Pods       *NamespacedPod    `json:"pods,omitzero"`
}

// NamespacedPod selects workloads by their namespace's labels and their own.
type NamespacedPod struct {
	NamespaceSelector v2.LabelSelector `json:"namespaceSelector,omitzero"` // all namespaces when absent
	PodSelector       v2.LabelSelector `json:"podSelector"`
}

// Action is what becomes of a packet that a rule matches.
type Action string

// The actions. Pass skips what is left of the tier.
const (
	ActionAccept Action = "Accept"
	ActionDeny   Action = "Deny"
	ActionPass   Action = "Pass"
)

// ClusterIngressRule is about packets to the subject.
type ClusterIngressRule struct {
	Name      string            `json:"name,omitempty"`
	Action    Action            `json:"action"`
	From      []IngressPeer     `json:"from"`
	Protocols []ClusterProtocol `json:"protocols,omitzero"` // every protocol when absent
}

// ClusterEgressRule is about packets from the subject.
type ClusterEgressRule struct {
	Name      string            `json:"name,omitempty"`
	Action    Action            `json:"action"`
	To        []EgressPeer      `json:"to"`
	Protocols []ClusterProtocol `json:"protocols,omitzero"` // every protocol when absent
}

// IngressPeer selects sources. Exactly one field is set.
type IngressPeer struct {
	Namespaces *v2.LabelSelector `json:"namespaces,omitzero"`
	Pods       *NamespacedPod    `json:"pods,omitzero"`
}

// EgressPeer selects destinations. Exactly one field is set.
type EgressPeer struct {
	Namespaces *v2.LabelSelector `json:"namespaces,omitzero"`
	Pods       *NamespacedPod    `json:"pods,omitzero"`
	Nodes      *v2.LabelSelector `json:"nodes,omitzero"`
	Networks   []string          `json:"networks,omitzero"` // prefixes
}

// ClusterProtocol selects ports of one protocol, or the ports of a name whatever the protocol. Exactly one field is set.
type ClusterProtocol struct {
	TCP                  *ProtocolPorts `json:"tcp,omitzero"`
	UDP                  *ProtocolPorts `json:"udp,omitzero"`
	SCTP                 *ProtocolPorts `json:"sctp,omitzero"`
	DestinationNamedPort string         `json:"destinationNamedPort,omitempty"`
}

// ProtocolPorts selects destination ports.
type ProtocolPorts struct {
	DestinationPort *Port `json:"destinationPort,omitzero"`
}

// Port is one port or a range. Exactly one field is set.
type Port struct {
	Number int32      `json:"number,omitempty"`
	Range  *PortRange `json:"range,omitzero"`
}

// PortRange is all ports from Start to End.
type PortRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}
