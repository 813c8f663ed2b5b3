package load

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
)

// listeners are the other ends of the connections that this process makes, in a namespace of their own. They are emptied between
// two measurements: nobody wakes up meanwhile.
type listeners []socket

// listenIn listens on all addresses of a namespace.
func listenIn(ns string, ports []uint16) (ls listeners, err error) {
	n, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	err = n.Do(func() error {
		for _, p := range ports {
			l, err := listen(netip.AddrPortFrom(netip.IPv4Unspecified(), p))
			if err != nil {
				return err
			}
			if err := unix.SetNonblock(int(l), true); err != nil {
				return fmt.Errorf("listen without blocking: %w", err)
			}
			ls = append(ls, l)
		}
		return nil
	})
	return ls, err
}

// empty ends the connections that have come.
func (ls listeners) empty() error {
	for _, l := range ls {
		for {
			c, errno := l.accept()
			if errno == syscall.EAGAIN {
				break
			}
			if errno != 0 && errno != syscall.ECONNABORTED && errno != syscall.EINTR {
				return fmt.Errorf("accept: %w", errno)
			}
			if errno == 0 {
				c.close()
			}
		}
	}
	return nil
}
