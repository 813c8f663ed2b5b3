package v2alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// AnnotationSlices is of a CiliumNode whose agent reads CiliumEndpointSlices and no CiliumEndpoints of others: "true".
const AnnotationSlices = "network.hypha.io/endpoint-slices"

// CiliumEndpointSlice holds many endpoints of a namespace in one object.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={ces}
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumEndpointSlice struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// Namespace of the endpoints.
	// +optional
	Namespace string         `json:"namespace,omitempty"`
	Endpoints []CoreEndpoint `json:"endpoints"`
}

// CoreEndpoint is what other nodes need of an endpoint.
type CoreEndpoint struct {
	// +optional
	Name string `json:"name,omitempty"`
	// Number of its identity.
	// +optional
	IdentityID int64 `json:"id,omitempty"`
	// +optional
	Networking *v2.EndpointNetworking `json:"networking,omitzero"`
	// +optional
	NamedPorts []v2.NamedPort `json:"named-ports,omitempty"`
}

// CiliumEndpointSliceList is a list of slices.
//
// +kubebuilder:object:root=true
type CiliumEndpointSliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumEndpointSlice `json:"items"`
}
