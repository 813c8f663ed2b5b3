// Package v2 holds the resources of the API group cilium.io/v2 as an API server keeps them, with their CRDs (../crd).
//
// Of a policy the rule is api/cilium/v2.Rule, the one that internal/control/policy/parse reads: there is one language and
// one parser. The CRDs check its shape and keep fields that they do not know (pruned, a policy would say less than its author
// wrote); what is wrong with them the parser says, in the condition Valid of the policy's status. Agents therefore read policies
// as the API server has them, not through these types.
//
// +kubebuilder:object:generate=true
// +groupName=cilium.io
package v2
