// Package link makes the device pairs that join workloads to the node: one end inside the workload's network namespace,
// the host side in the agent's. It goes in steps so that policy is in force before an address is reachable:
//
//	Create   the pair exists, addresses included, both ends down
//	         (the caller writes the maps and attaches the programs)
//	Up       both ends up, routes inside and on the host
//
// All methods are idempotent and may be used concurrently. Host sides are named "hy" and 10 hex digits (paths.HostIf) and
// carry their agent's mark as alias; no other device is ever changed or deleted.
//
// On the host side IPv6 gets no link-local address and so sends nothing by itself. rp_filter may have any value there:
// the route back to each workload leads through its own device. Offloads stay at the kernel's defaults.
package link
