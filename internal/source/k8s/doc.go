// Package k8s tells an agent the cluster's state as an API server keeps it, and tells the API server this node's share: policies,
// services, nodes, identities, who lives where, and the pods of this node.
//
// What a caller may rely on:
//   - Open never waits for the API server. Tables become complete once it has told all that goes into them; Ready waits for that.
//   - With the API server away tables keep what they have. A watch that was interrupted goes on where it was, or is compared
//     with a new list, so that what was deleted meanwhile is deleted then, and nothing else.
//   - Publishing (this node, its workloads) declares what should be there and returns at once; it is written, and written again
//     when somebody deletes it, until it is withdrawn.
//   - A number stands for one set of labels: its CiliumIdentity can be created once. Where the search for a free number begins
//     depends on the labels alone, so nodes that ask at once for the same labels come to the same one.
//   - A policy that is not understood is not in force, and the log says why; an earlier version of it that was, stays.
//
// Objects are cut down to rows as they come in; none is kept.
package k8s
