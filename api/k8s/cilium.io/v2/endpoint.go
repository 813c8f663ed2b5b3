package v2

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CiliumEndpoint says which addresses and which identity a workload has, and where it lives. Its agent writes it, all of it at once:
// that is why the status is no subresource.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Namespaced,shortName={cep,ciliumep}
// +kubebuilder:printcolumn:name="Security Identity",type=integer,JSONPath=`.status.identity.id`
// +kubebuilder:printcolumn:name="Endpoint State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="IPv4",type=string,JSONPath=`.status.networking.addressing[0].ipv4`
// +kubebuilder:printcolumn:name="IPv6",type=string,JSONPath=`.status.networking.addressing[0].ipv6`
// +kubebuilder:printcolumn:name="Node",type=string,priority=1,JSONPath=`.status.networking.node`
type CiliumEndpoint struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// +optional
	Status EndpointStatus `json:"status,omitzero"`
}

// CiliumEndpointList is a list of endpoints.
//
// +kubebuilder:object:root=true
type CiliumEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumEndpoint `json:"items"`
}

// EndpointStatus is what there is to know about a workload.
type EndpointStatus struct {
	// Number of the endpoint on its node.
	// +optional
	ID int64 `json:"id,omitempty"`
	// +optional
	Identity *EndpointIdentity `json:"identity,omitzero"`
	// +optional
	Networking *EndpointNetworking `json:"networking,omitzero"`
	// +optional
	ExternalIdentifiers *EndpointIdentifiers `json:"external-identifiers,omitzero"`
	// +optional
	NamedPorts []NamedPort `json:"named-ports,omitempty"`
	// +optional
	State string `json:"state,omitempty"`
}

// EndpointIdentity is a number and the labels that it stands for.
type EndpointIdentity struct {
	ID int64 `json:"id"`
	// +optional
	Labels []string `json:"labels,omitempty"`
}

// EndpointNetworking is where a workload is reached.
type EndpointNetworking struct {
	// +optional
	Addressing []AddressPair `json:"addressing,omitempty"`
	// Address of the node on which it lives.
	// +optional
	Node string `json:"node,omitempty"`
}

// AddressPair is an address of each IP version.
type AddressPair struct {
	// +optional
	IPv4 string `json:"ipv4,omitempty"`
	// +optional
	IPv6 string `json:"ipv6,omitempty"`
}

// EndpointIdentifiers are the names that others have for a workload.
type EndpointIdentifiers struct {
	// +optional
	CNIAttachmentID string `json:"cni-attachment-id,omitempty"`
	// +optional
	ContainerID string `json:"container-id,omitempty"`
	// +optional
	Namespace string `json:"k8s-namespace,omitempty"`
	// +optional
	PodName string `json:"k8s-pod-name,omitempty"`
}

// NamedPort is a port that policies may name.
type NamedPort struct {
	Name string `json:"name"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	Protocol string `json:"protocol"`
}
