// Package route keeps the node's routes as the table of model.Route wants them. Its routes carry a protocol number of
// their own, in the main table; a route with another number is never changed or deleted, and where one stands in the
// way that is an error.
package route

import "github.com/vishvananda/netlink"

// Routing protocol numbers (rtm_protocol) that mark Hypha's routes.
const (
	Protocol         netlink.RouteProtocol = 104 // of this package
	ProtocolWorkload netlink.RouteProtocol = 105 // to workloads of this node; they go with their device
)
