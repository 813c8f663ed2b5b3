// Package policy compiles policies into what the datapath asks: for every local workload a policy set, for every known
// identity a peer class, for every (set, class, direction) a short list of which the first match decides.
//
// Engine is pure: no I/O, clock or goroutine, and not safe for concurrent use. It is given changes and answers with a
// model.PolicyPlan, whose steps, applied in order and write by write, let every packet see the policy before or the one
// after. It owns the numbers of sets and classes, and allocates the node-local identities of the prefixes that the
// policies in use name. It starts from what the kernel holds (model.PolicyState), so a restart without news writes nothing.
//
// How it works, and where:
//
//	parse.Policy -> rule.go, scope.go, peer.go   entries: peers, ports, verdict, rule id
//	                cluster.go, rank.go          those of tiers Admin and Baseline, asked in order
//	                set.go                       the entries that one workload is under, shared by content
//	identities   -> identity.go, index.go        which peers each identity is, found by index
//	addresses    -> place.go, people.go          who lives where, as far as blocks tell addresses apart
//	                cell.go                      peers that the sets in use cannot tell apart
//	                list.go                      entries of one set for one cell -> the sorted list
//	                plan.go                      kernel state and wanted state -> ordered steps
//
// Semantics that the published language leaves open:
//   - Requirements (from/toRequires) of all allowing members that select a workload limit the from/toEndpoints of all of
//     them; a member with nothing but requirements allows nothing.
//   - The scope of a namespaced peer selector is lifted by asking for a namespace, namespace labels or a reserved label
//     (matchLabels, In, Exists). DoesNotExist never lifts it; NotIn on a namespace lifts it to "any other namespace"
//     and still wants a namespace (CVE-2023-41333).
//   - A policy in audit mode counts its denials (its deny rules, and the default deny it causes) and lets them pass. It never
//     lets pass what the other policies deny. What it allows is allowed.
//   - allow-localhost=always comes before everything, explicit deny rules and tier Admin too.
//   - ClusterNetworkPolicies of one tier and priority go by name. Their namespaces and pods are those of every cluster; nodes
//     include this one.
//   - CIDRs mean the outside, and nodes with policy-cidr-match-mode. Those of NetworkPolicies (ipBlock) and the networks of
//     ClusterNetworkPolicies are blocks: they mean addresses, whoever lives there. A workload or node of which it is not known
//     where it lives is in no block, and refused where one denies.
//   - Default deny by enforcement mode "always" comes behind tier Baseline, that of a policy before it.
package policy
