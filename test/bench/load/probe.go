package load

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Found is what a probe saw.
type Found struct {
	At     time.Duration `json:"at"`     // when the first connection was through, as Now tells
	Tries  int           `json:"tries"`  // connections that were not
	Failed int           `json:"failed"` // connections to the steady place that failed meanwhile
}

// ProbeArgs are the arguments of a process for Main that reads addresses from its input, one a line, and connects to each until it
// is through; then it prints Found as JSON. Before each try it connects to a place that always is there. It accepts in the
// server's namespace on these ports.
func ProbeArgs(server string, ports []uint16, steady netip.AddrPort) []string {
	return []string{"probe", "-server", server, "-ports", join(ports), "-steady", steady.String()}
}

const (
	probePause    = 100 * time.Microsecond // between tries
	probeWait     = 1                      // ms for a connection that is not through at once
	probePatience = 2 * time.Minute
)

// Now is the time that all processes of the machine share.
func Now() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // there is no machine without it
	return time.Duration(t.Nano())
}

func probe(args []string, stdin io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	e := endFlags(f)
	steady := f.String("steady", "", "IPv4 address and port that always is there")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	always, err := parseAddr(*steady)
	if err != nil {
		return err
	}
	ls, err := e.listen()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	lines, out := bufio.NewScanner(stdin), json.NewEncoder(stdout)
	for lines.Scan() {
		to, err := parseAddr(lines.Text())
		if err != nil {
			return err
		}
		found, err := seek(sockaddr(to), sockaddr(always), ls)
		if err != nil {
			return fmt.Errorf("seek %s: %w", to, err)
		}
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return lines.Err()
}

func seek(to, steady *unix.RawSockaddrInet4, ls listeners) (f Found, err error) {
	for began := Now(); ; f.Tries++ {
		if _, err := connectOnce(steady); err != nil {
			f.Failed++
		}
		through, err := try(to)
		f.At = Now()
		if err := ls.empty(); err != nil {
			return f, err
		}
		if err != nil || through {
			return f, err
		}
		if f.At-began > probePatience {
			return f, fmt.Errorf("not there after %s", probePatience)
		}
		time.Sleep(probePause)
	}
}

// try connects and waits no longer than a connection takes: what was sent before a service was there may be lost for good.
func try(to *unix.RawSockaddrInet4) (through bool, err error) {
	s, err := newSocket()
	if err != nil {
		return false, err
	}
	defer s.close()
	if err := s.abort(); err != nil {
		return false, err
	}
	if err := unix.SetNonblock(int(s), true); err != nil {
		return false, err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(s), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
	if errno != syscall.EINPROGRESS {
		return errno == 0, nil
	}
	fds := []unix.PollFd{{Fd: int32(s), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, probeWait); err != nil || n == 0 {
		return false, nil // a signal, or nobody: the next try will tell
	}
	failed, err := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && failed == 0, nil
}
