// Package socket ends sockets of a network namespace, by the kernel's sock_diag (sock_diag(7)). A socket is known by its cookie,
// the number by which programs know it, and by whom it is connected to: an address alone ends none.
package socket

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Peer is a socket, and whom it is connected to.
type Peer struct {
	Cookie uint64
	Proto  uint8 // TCP or UDP
	To     netip.AddrPort
}

// ErrUnsupported is what a kernel answers that ends no sockets.
var ErrUnsupported = errors.New("the kernel ends no sockets: it lacks CONFIG_INET_DIAG_DESTROY")

// States of TCP (include/net/tcp_states.h) in which somebody may still wait for the peer. A connected UDP socket is established.
const (
	established = 1
	synSent     = 2
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
)

const (
	tcpStates = 1<<established | 1<<synSent | 1<<finWait1 | 1<<finWait2 | 1<<closeWait
	udpStates = 1 << established
)

// End ends those of the sockets that are in the network namespace of the calling thread, and takes them out of want. Their owners
// get ECONNABORTED, once, where they send on a UDP socket EDESTADDRREQ; the peer of a TCP socket gets a reset. The kernel lists its sockets once for each protocol and IP
// version that is wanted. Sockets that are not there are no error.
func End(want map[Peer]bool) (ended int, failed error) {
	for _, kind := range []struct {
		family, proto uint8
		states        uint32
	}{{unix.AF_INET, unix.IPPROTO_UDP, udpStates}, {unix.AF_INET6, unix.IPPROTO_UDP, udpStates},
		{unix.AF_INET, unix.IPPROTO_TCP, tcpStates}, {unix.AF_INET6, unix.IPPROTO_TCP, tcpStates}} {
		if !wanted(want, kind.family, kind.proto) {
			continue
		}
		found := map[Peer]id{}
		err := list(kind.family, kind.proto, kind.states, func(x id) {
			if p := x.peer(kind.family, kind.proto); want[p] {
				found[p] = x
			}
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("list sockets: %w", err))
			continue
		}
		for p, x := range found {
			switch err := destroy(kind.family, kind.proto, x); {
			case err == nil:
				ended++
				delete(want, p)
			case errors.Is(err, unix.ENOENT): // closed meanwhile, or connected to somebody else
				delete(want, p)
			default:
				failed = errors.Join(failed, fmt.Errorf("end socket %d to %s: %w", p.Cookie, p.To, err))
			}
		}
	}
	return ended, failed
}

// wanted says whether sockets of a kind can be among them: one for IPv6 may speak IPv4.
func wanted(want map[Peer]bool, family, proto uint8) bool {
	for p := range want {
		if p.Proto == proto && (family == unix.AF_INET6 || p.To.Addr().Is4()) {
			return true
		}
	}
	return false
}

// Probe says why the kernel ends no sockets here; nil if it does. It ends none.
func Probe() error {
	for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		// Without the part of the kernel that lists them, ending any of them fails like ending one that is not there.
		if err := list(unix.AF_INET, proto, 0, func(id) {}); err != nil {
			return fmt.Errorf("list sockets of protocol %d: %w", proto, err)
		}
		if err := destroy(unix.AF_INET, proto, id{}); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
