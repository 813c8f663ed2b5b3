package v2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
)

// CiliumNetworkPolicy limits what the workloads of its namespace may send and receive.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium,ciliumpolicy},scope=Namespaced,shortName={cnp,ciliumnp}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=='Valid')].status`
type CiliumNetworkPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// One rule.
	// +optional
	Spec *v2.Rule `json:"spec,omitzero"`
	// Several rules, besides or instead of spec.
	// +optional
	Specs []v2.Rule `json:"specs,omitzero"`
	// +optional
	Status PolicyStatus `json:"status,omitzero"`
}

// CiliumNetworkPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type CiliumNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumNetworkPolicy `json:"items"`
}

// CiliumClusterwideNetworkPolicy is a policy of all namespaces, and of workloads that have none.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium,ciliumpolicy},scope=Cluster,shortName={ccnp}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=='Valid')].status`
type CiliumClusterwideNetworkPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// One rule.
	// +optional
	Spec *v2.Rule `json:"spec,omitzero"`
	// Several rules, besides or instead of spec.
	// +optional
	Specs []v2.Rule `json:"specs,omitzero"`
	// +optional
	Status PolicyStatus `json:"status,omitzero"`
}

// CiliumClusterwideNetworkPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type CiliumClusterwideNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumClusterwideNetworkPolicy `json:"items"`
}

// PolicyStatus says whether a policy is understood.
type PolicyStatus struct {
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []Condition `json:"conditions,omitempty"`
}

// ConditionValid is True when the policy is understood and in force, False when it is not, with the reason in the message.
const ConditionValid = "Valid"

// Condition is one thing that is or is not so.
type Condition struct {
	Type string `json:"type"`
	// +kubebuilder:validation:Enum=True;False;Unknown
	Status string `json:"status"`
	// +optional
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitzero"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// CiliumCIDRGroup is a named list of prefixes that policies refer to by name or by label.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={ccg}
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumCIDRGroup struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              CIDRGroupSpec `json:"spec"`
}

// CIDRGroupSpec holds the prefixes of a group; none means that the group selects nothing.
type CIDRGroupSpec struct {
	ExternalCIDRs []CIDR `json:"externalCIDRs"`
}

// CIDR is a prefix, 192.0.2.0/24 or 2001:db8::/32.
//
// +kubebuilder:validation:MinLength=3
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^[0-9a-fA-F:.]+/[0-9]{1,3}$`
type CIDR string

// CiliumCIDRGroupList is a list of groups.
//
// +kubebuilder:object:root=true
type CiliumCIDRGroupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumCIDRGroup `json:"items"`
}
