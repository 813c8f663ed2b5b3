package load

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// serve accepts until the process is killed; ready is called once it listens.
func serve(addr netip.AddrPort, mode Mode, ready func()) error {
	l, err := listen(addr)
	if err != nil {
		return err
	}
	defer l.close()
	ready()
	runtime.LockOSThread()
	for {
		c, errno := l.accept()
		switch {
		case errno == syscall.EAGAIN || errno == syscall.EINTR || errno == syscall.ECONNABORTED:
			continue
		case errno != 0:
			return fmt.Errorf("accept: %w", errno)
		case mode == CRR:
			answer(c) // the byte is there already or about to come
			c.close() // first, so that the client's port is free at once
			continue
		}
		if err := c.tune(); err != nil {
			return err
		}
		go func() {
			runtime.LockOSThread()
			for answer(c) {
			}
			c.close()
		}()
	}
}

func listen(addr netip.AddrPort) (l socket, err error) {
	if l, err = newSocket(); err != nil {
		return l, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := unix.SetsockoptInt(int(l), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return l, fmt.Errorf("setsockopt: %w", err)
	}
	if err := unix.Bind(int(l), &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return l, fmt.Errorf("bind %s: %w", addr, err)
	}
	if err := unix.Listen(int(l), 4096); err != nil {
		return l, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// answer returns one byte to who sent it, and says whether there was one.
func answer(c socket) bool {
	var b byte
	for {
		n, errno := c.read(&b)
		if errno == syscall.EINTR || errno == syscall.EAGAIN {
			continue
		}
		return errno == 0 && n == 1 && c.write(&b) == 0
	}
}

var errShort = errors.New("the server closed the connection without an answer")
