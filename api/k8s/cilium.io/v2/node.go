package v2

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CiliumNode is a node of the cluster: its addresses and the ranges of its workloads.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={cn,ciliumn}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="CiliumInternalIP",type=string,JSONPath=`.spec.addresses[?(@.type=="CiliumInternalIP")].ip`
// +kubebuilder:printcolumn:name="InternalIP",type=string,JSONPath=`.spec.addresses[?(@.type=="InternalIP")].ip`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumNode struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NodeSpec `json:"spec"`
	// +optional
	Status NodeStatus `json:"status,omitzero"`
}

// CiliumNodeList is a list of nodes.
//
// +kubebuilder:object:root=true
type CiliumNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumNode `json:"items"`
}

// Types of a node's addresses.
const (
	NodeInternalIP       = "InternalIP"       // on the underlay
	NodeCiliumInternalIP = "CiliumInternalIP" // its own among its workloads'
)

// NodeSpec is what a node is.
type NodeSpec struct {
	// +optional
	InstanceID string `json:"instance-id,omitempty"`
	// +optional
	BootID string `json:"bootid,omitempty"`
	// +optional
	Addresses []NodeAddress `json:"addresses,omitempty"`
	// +optional
	IPAM NodeIPAM `json:"ipam,omitzero"`
}

// NodeAddress is an address and what it is for.
type NodeAddress struct {
	// +optional
	Type string `json:"type,omitempty"`
	// +optional
	IP string `json:"ip,omitempty"`
}

// NodeIPAM is where a node's workloads have their addresses from.
type NodeIPAM struct {
	// Ranges that are this node's.
	// +optional
	PodCIDRs []CIDR `json:"podCIDRs,omitempty"`
	// +optional
	Pools NodePools `json:"pools,omitzero"`
}

// NodePools are the parts that a node wants and has of pools.
type NodePools struct {
	// +optional
	Requested []PoolRequest `json:"requested,omitempty"`
	// +optional
	Allocated []PoolAllocation `json:"allocated,omitempty"`
}

// PoolRequest is how much of a pool a node needs.
type PoolRequest struct {
	Pool string `json:"pool"`
	// +optional
	Needed PoolDemand `json:"needed,omitzero"`
}

// PoolDemand is a number of addresses of each IP version.
type PoolDemand struct {
	// +optional
	IPv4 int32 `json:"ipv4-addrs,omitempty"`
	// +optional
	IPv6 int32 `json:"ipv6-addrs,omitempty"`
}

// PoolAllocation is what a node has of a pool.
type PoolAllocation struct {
	Pool string `json:"pool"`
	// +optional
	CIDRs []CIDR `json:"cidrs,omitempty"`
}

// NodeStatus is how the operator and the node get on.
type NodeStatus struct {
	// +optional
	IPAM NodeIPAMStatus `json:"ipam,omitzero"`
}

// NodeIPAMStatus is what the operator has to say.
type NodeIPAMStatus struct {
	// +optional
	OperatorStatus OperatorStatus `json:"operator-status,omitzero"`
}

// OperatorStatus is why the operator could not serve the node, "" if it could.
type OperatorStatus struct {
	// +optional
	Error string `json:"error,omitempty"`
}

// CiliumNodeConfig overrides options of the agents on the nodes that it selects.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Namespaced
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumNodeConfig struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              NodeConfigSpec `json:"spec"`
}

// NodeConfigSpec is options, and for which nodes.
type NodeConfigSpec struct {
	// +kubebuilder:validation:MinProperties=1
	Defaults     map[string]string     `json:"defaults"`
	NodeSelector *metav1.LabelSelector `json:"nodeSelector"`
}

// CiliumNodeConfigList is a list of configurations.
//
// +kubebuilder:object:root=true
type CiliumNodeConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumNodeConfig `json:"items"`
}
