package v2

// ObjectMeta is what Hypha reads of a resource's metadata.
type ObjectMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	UID         string            `json:"uid,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// CiliumNetworkPolicy limits what workloads of its own namespace may send and receive.
type CiliumNetworkPolicy struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   ObjectMeta `json:"metadata"`
	Spec       *Rule      `json:"spec,omitzero"`
	Specs      []Rule     `json:"specs,omitzero"`
}

// CiliumClusterwideNetworkPolicy is a policy of all namespaces, and of workloads that have none.
type CiliumClusterwideNetworkPolicy struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   ObjectMeta `json:"metadata"`
	Spec       *Rule      `json:"spec,omitzero"`
	Specs      []Rule     `json:"specs,omitzero"`
}

// CiliumCIDRGroup is a named list of prefixes that policies refer to by name or by label.
type CiliumCIDRGroup struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   ObjectMeta    `json:"metadata"`
	Spec       CIDRGroupSpec `json:"spec"`
}

// CIDRGroupSpec holds the prefixes of a group; none means that the group selects nothing.
type CIDRGroupSpec struct {
	ExternalCIDRs []string `json:"externalCIDRs"`
}
