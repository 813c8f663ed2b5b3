package v2

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CiliumLoadBalancerIPPool holds addresses for services of type LoadBalancer.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={ippools,ippool,lbippool,lbippools}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=`.spec.disabled`
// +kubebuilder:printcolumn:name="Conflicting",type=string,JSONPath=`.status.conditions[?(@.type=="cilium.io/PoolConflict")].status`
// +kubebuilder:printcolumn:name="IPs Available",type=string,JSONPath=`.status.conditions[?(@.type=="cilium.io/IPsAvailable")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumLoadBalancerIPPool struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              LoadBalancerPoolSpec `json:"spec"`
	// +optional
	Status LoadBalancerPoolStatus `json:"status,omitzero"`
}

// CiliumLoadBalancerIPPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type CiliumLoadBalancerIPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumLoadBalancerIPPool `json:"items"`
}

// LoadBalancerPoolSpec is which addresses there are, and for whom.
type LoadBalancerPoolSpec struct {
	// Services that may have addresses of the pool; none: all.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitzero"`
	// Whether the first and the last address of a block may be given.
	// +kubebuilder:validation:Enum=Yes;No
	// +optional
	AllowFirstLastIPs string `json:"allowFirstLastIPs,omitempty"`
	// +optional
	Blocks []LoadBalancerBlock `json:"blocks,omitempty"`
	// No new address is given; those that are stay.
	// +kubebuilder:default=false
	// +optional
	Disabled bool `json:"disabled"`
}

// LoadBalancerBlock is a prefix, or all addresses from start to stop.
//
// +kubebuilder:validation:XValidation:rule="has(self.cidr) != has(self.start)",message="want either cidr or start"
// +kubebuilder:validation:XValidation:rule="!has(self.stop) || has(self.start)",message="stop goes with start"
type LoadBalancerBlock struct {
	// +optional
	CIDR CIDR `json:"cidr,omitempty"`
	// +optional
	Start string `json:"start,omitempty"`
	// +optional
	Stop string `json:"stop,omitempty"`
}

// LoadBalancerPoolStatus is how the pool fares.
type LoadBalancerPoolStatus struct {
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
