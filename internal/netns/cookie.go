package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Cookie is the number by which the kernel's programs know the network namespace of the calling thread, never used again
// while the machine runs. It is 0 where the kernel does not tell (before Linux 5.14).
func Cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the cookie of a network namespace: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the cookie of a network namespace: %w", err)
	}
	return n, nil
}

// CookieAt is the cookie of the network namespace at a path, be it a name in Dir or a process's /proc/<pid>/ns/net.
func CookieAt(path string) (n uint64, err error) {
	err = Inside(path, func() (err error) { n, err = Cookie(); return err })
	return n, err
}
