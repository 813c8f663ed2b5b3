package model

import "net/netip"

// Talk is what a socket believes: it is connected to a backend, or has sent there, and talks to a service's frontend.
type Talk struct {
	Socket  uint64 // cookie
	Proto   uint8  // TCP or UDP
	Back    netip.AddrPort
	Front   netip.AddrPort
	Service ServiceID
}
