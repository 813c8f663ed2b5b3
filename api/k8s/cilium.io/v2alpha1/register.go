package v2alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is where these resources are served.
var GroupVersion = schema.GroupVersion{Group: "cilium.io", Version: "v2alpha1"}

// AddToScheme makes the types known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &CiliumEndpointSlice{}, &CiliumEndpointSliceList{}, &CiliumPodIPPool{}, &CiliumPodIPPoolList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
