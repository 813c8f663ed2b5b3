// Package endpoint is the life of a workload on this node: attach, check, change labels, detach, and find everything
// again after a restart. It owns the endpoint table, the endpoint numbers and the state files; what it decides is done
// by others, behind the interfaces in deps.go, each with a fake in the package fake.
//
// Attaching goes in an order that is safe at every point (a workload can send before ADD returns):
//
//	number, addresses, labels -> identity -> device pair, down -> policy in force -> endpoint rows
//	  -> programs attached -> address published -> link up -> state file -> answer
//
// Whatever was done before a failure is undone, last first; what cannot be undone at once is tried again by Run. A
// device is always deleted before its programs are detached. Detaching starts with the state file, so a crash in the
// middle leaves what the next Restore takes for an orphan and removes.
//
// Calls for one attachment (container id and interface) are served one after the other; nothing slow happens under a
// lock that others need. Every call ends by its deadline, at the latest after Config.Timeout.
package endpoint
