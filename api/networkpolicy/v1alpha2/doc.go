// Package v1alpha2 holds the resource of the API group policy.networking.k8s.io/v1alpha2 that Hypha accepts:
// ClusterNetworkPolicy, the administrator's rules before (tier Admin) and behind (tier Baseline) all other policies.
//
// They are plain structs without validation; internal/control/policy/parse reads them strictly. Fields of the published
// resource that Hypha does not support (domainNames) are left out on purpose, so that nobody can ask for them and be ignored.
package v1alpha2

// The names under which the resource travels.
const (
	APIVersion = "policy.networking.k8s.io/v1alpha2"

	KindClusterNetworkPolicy = "ClusterNetworkPolicy"
)

// Limits of the published schema.
const (
	MaxPriority = 1000
	MaxItems    = 25  // rules of a direction; peers, protocols and networks of a rule
	MaxName     = 100 // characters of a rule's name
)

// KeyNamespaceName is the label that every namespace has with its own name.
const KeyNamespaceName = "kubernetes.io/metadata.name"
