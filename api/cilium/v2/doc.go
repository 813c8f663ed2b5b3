// Package v2 holds the resources of the API group cilium.io/v2 that Hypha accepts: CiliumNetworkPolicy,
// CiliumClusterwideNetworkPolicy and CiliumCIDRGroup, and the rule they share with the JSON of `policy import`.
//
// They are plain structs. A list that is absent (nil) and a list that is there but empty mean different things in a
// policy: absent says nothing, empty selects nothing. Both survive a round trip through JSON and YAML (CVE-2025-64715).
// Nothing here validates; internal/control/policy/parse does, and reads strictly. Fields of the published resources
// that Hypha does not support yet are left out on purpose, so that nobody can ask for them and be ignored.
//
// +kubebuilder:object:generate=true
package v2

// The names under which the resources travel.
const (
	Group      = "cilium.io"
	APIVersion = "cilium.io/v2"

	KindNetworkPolicy            = "CiliumNetworkPolicy"
	KindClusterwideNetworkPolicy = "CiliumClusterwideNetworkPolicy"
	KindCIDRGroup                = "CiliumCIDRGroup"
)
