// Package v2alpha1 holds the resources of the API group cilium.io/v2alpha1, with their CRDs (../crd).
//
// +kubebuilder:object:generate=true
// +groupName=cilium.io
package v2alpha1
