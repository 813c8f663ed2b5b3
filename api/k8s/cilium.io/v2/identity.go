package v2

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CiliumIdentity gives a set of labels its number, which is the object's name: that it can be created once only is what makes
// sure of one set of labels for a number.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories={cilium},scope=Cluster,shortName={ciliumid}
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.metadata.labels.io\.kubernetes\.pod\.namespace`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CiliumIdentity struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// The labels, keys with their source ("k8s:app").
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="an identity keeps its labels"
	SecurityLabels map[string]string `json:"security-labels"`
}

// IdentityMark is the annotation of an identity that goes, because nobody uses it. Whoever takes it into use removes it, or changes the
// identity in any other way.
const IdentityMark = "io.cilium.heartbeat"

// CiliumIdentityList is a list of identities.
//
// +kubebuilder:object:root=true
type CiliumIdentityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []CiliumIdentity `json:"items"`
}
