package arm

import (
	"fmt"
	"net/netip"
)

// Service is a virtual address with ports, behind which there are two endpoints at the same ports.
type Service struct {
	Number    int // the same for no two of a benchmark
	Name      string
	Addr      netip.Addr
	Ports     []uint16
	Endpoints [2]netip.Addr
}

// Endpoints are the server's addresses in the topology cli - node - srv.
var Endpoints = [2]netip.Addr{netip.MustParseAddr(srvAddr), netip.MustParseAddr(srvAddr2)}

// NewService is the i-th of many: one port, and endpoints of its own that do not exist.
func NewService(i int) Service {
	return Service{
		Number: i, Name: fmt.Sprintf("s%d", i), Addr: nth("10.96.0.1", i), Ports: []uint16{80},
		Endpoints: [2]netip.Addr{nth("100.64.0.1", 2*i), nth("100.64.0.1", 2*i+1)},
	}
}

// nth is the i-th address from one on.
func nth(first string, i int) netip.Addr {
	a := netip.MustParseAddr(first).As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n += uint32(i)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
