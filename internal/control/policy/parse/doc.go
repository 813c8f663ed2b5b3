// Package parse reads policies as people write them: the JSON of `policy import` (one rule or an array) and
// CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, CiliumCIDRGroup and ClusterNetworkPolicy
// (policy.networking.k8s.io/v1alpha2) documents in YAML or JSON, several per file.
//
// It is strict, because a policy that is half understood is a hole: an unknown field, a value of the wrong type, a null,
// a bad prefix or port, or a part of the language that is known but not supported yet is an error that says where it is
// and what would be right; all errors of a file come joined, and nothing of it is returned then. What is returned is
// valid, and as written: absent and empty lists stay apart. Input is hostile: its size, depth and alias expansion are
// bounded, and no input makes the package panic or work for long.
//
// A policy is put into audit mode, where its denials are reported and not enforced, by the annotation
// policy.hypha.io/audit: "true" on a resource, or by the label hypha:audit=true on a rule of `policy import`.
package parse

// Limits on what is read.
const (
	MaxSize  = 4 << 20   // bytes of a JSON file
	MaxYAML  = 512 << 10 // bytes of a YAML file: the reader is slower
	maxDocs  = 5000      // YAML documents of a file
	maxDepth = 32        // nested lists and maps
	maxNodes = 250_000   // values of a file, aliases expanded
	maxErrs  = 50        // errors of a file, then reading stops
	maxPorts = 40        // ports, and port rules, of one member
)

// What puts a policy into audit mode.
const (
	AuditAnnotation  = "policy.hypha.io/audit"
	AuditLabelSource = "hypha"
	AuditLabelKey    = "audit"
)
