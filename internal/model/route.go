package model

import "net/netip"

// Route is a route of the node to other nodes' workloads.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    netip.Addr   `json:"via,omitzero"`     // next hop; invalid: the destination is on the device's link
	Device string       `json:"device,omitempty"` // "": the one that leads to Via
	Src    netip.Addr   `json:"src,omitzero"`     // source the node's own stack takes
	MTU    int          `json:"mtu,omitempty"`    // bytes; 0: the device's
}
