package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A raw IPv4 TCP socket, blocking.
type socket int

// maxWait bounds each blocking call: a benchmark must not hang when packets are lost for good.
const maxWait = 3 // s

func newSocket() (socket, error) {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, fmt.Errorf("socket: %w", errno)
	}
	s := socket(fd)
	if err := s.tune(); err != nil {
		s.close()
		return -1, err
	}
	return s, nil
}

func (s socket) tune() error {
	on := int32(1)
	if err := s.option(unix.IPPROTO_TCP, unix.TCP_NODELAY, unsafe.Pointer(&on), unsafe.Sizeof(on)); err != nil {
		return err
	}
	wait := unix.Timeval{Sec: maxWait}
	if err := s.option(unix.SOL_SOCKET, unix.SO_RCVTIMEO, unsafe.Pointer(&wait), unsafe.Sizeof(wait)); err != nil {
		return err
	}
	return s.option(unix.SOL_SOCKET, unix.SO_SNDTIMEO, unsafe.Pointer(&wait), unsafe.Sizeof(wait)) // of connect too
}

func (s socket) option(level, name uintptr, p unsafe.Pointer, size uintptr) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(s), level, name, uintptr(p), size, 0)
	if errno != 0 {
		return fmt.Errorf("setsockopt: %w", errno)
	}
	return nil
}

// abort has the socket's end leave nothing behind: a reset, and no port that has to rest.
func (s socket) abort() error {
	now := unix.Linger{Onoff: 1}
	return s.option(unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&now), unsafe.Sizeof(now))
}

func sockaddr(a netip.AddrPort) *unix.RawSockaddrInet4 {
	sa := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], a.Port())
	return sa
}

// connect goes on waiting when a signal (the Go runtime sends some) interrupts it, as Linux allows.
func (s socket) connect(sa *unix.RawSockaddrInet4) syscall.Errno {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(s), uintptr(unsafe.Pointer(sa)), unsafe.Sizeof(*sa))
		switch errno {
		case syscall.EINTR:
		case syscall.EISCONN:
			return 0
		default:
			return errno
		}
	}
}

func (s socket) accept() (socket, syscall.Errno) {
	fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(s), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	return socket(fd), errno
}

// read returns the number of bytes, 0 at the end of the stream.
func (s socket) read(b *byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(s), uintptr(unsafe.Pointer(b)), 1)
	return int(n), errno
}

func (s socket) write(b *byte) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(s), uintptr(unsafe.Pointer(b)), 1)
	return errno
}

func (s socket) close() { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s), 0, 0) }
