package v2alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// Annotations by which a Pod, or its Namespace for all of its pods, says from which pools its addresses are, and one of a pool.
const (
	AnnotationPool         = "ipam.cilium.io/ip-pool"
	AnnotationIPv4Pool     = "ipam.cilium.io/ipv4-pool"
	AnnotationIPv6Pool     = "ipam.cilium.io/ipv6-pool"
	AnnotationRequireMatch = "ipam.cilium.io/require-pool-match" // "true": never from the default pool
	AnnotationNoMasquerade = "ipam.cilium.io/skip-masquerade"    // of a CiliumPodIPPool; "true": its addresses leave the cluster as they are
)

// CiliumPodIPPool is ranges of addresses for pods, of which nodes get blocks as they need them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={cpip}
type CiliumPodIPPool struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              PodIPPoolSpec `json:"spec"`
}

// PodIPPoolSpec is the ranges, and for which pods they are that name no pool.
type PodIPPoolSpec struct {
	// +optional
	IPv4 *IPv4PoolSpec `json:"ipv4,omitempty"`
	// +optional
	IPv6 *IPv6PoolSpec `json:"ipv6,omitempty"`
	// Pods that have their addresses from here without naming it; both selectors have to match. A pod's name and namespace are its
	// labels io.kubernetes.pod.name and io.kubernetes.pod.namespace here.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// IPv4PoolSpec is ranges of IPv4 addresses.
type IPv4PoolSpec struct {
	// +kubebuilder:validation:MinItems=1
	CIDRs []v2.CIDR `json:"cidrs"`
	// Prefix length of a node's block.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	MaskSize int32 `json:"maskSize"`
}

// IPv6PoolSpec is ranges of IPv6 addresses.
type IPv6PoolSpec struct {
	// +kubebuilder:validation:MinItems=1
	CIDRs []v2.CIDR `json:"cidrs"`
	// Prefix length of a node's block.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	MaskSize int32 `json:"maskSize"`
}

// CiliumPodIPPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type CiliumPodIPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumPodIPPool `json:"items"`
}
