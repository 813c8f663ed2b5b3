package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Inside runs fn inside the namespace at a path, be it a name in Dir or a process's /proc/<pid>/ns/net, on a thread that ends with
// it. Goroutines that fn starts are outside again; sockets that it opens stay inside.
func Inside(path string, fn func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer func() { _ = f.Close() }()
	return In(f, fn)
}

// In is Inside for a namespace that is open.
func In(f *os.File, fn func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", f.Name(), err)
		}
		return fn()
	})
}

// Do is Inside for a named namespace.
func (n *NS) Do(fn func() error) error { return Inside(n.Path(), fn) }

// Start starts a command inside the namespace. The command must not ask for Pdeathsig: it would die with the thread
// that started it, at once.
func (n *NS) Start(cmd *exec.Cmd) error { return n.StartOn(cmd, nil) }

// StartOn is Start with the command bound to these CPUs; none: all.
func (n *NS) StartOn(cmd *exec.Cmd, cpus []int) error {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
		return errors.New("start command in network namespace: Pdeathsig would end it at once")
	}
	return n.Do(func() error {
		if len(cpus) > 0 {
			var set unix.CPUSet
			for _, c := range cpus {
				set.Set(c)
			}
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				return fmt.Errorf("bind to CPUs %v: %w", cpus, err)
			}
		}
		return cmd.Start()
	})
}

// Output runs a command inside the namespace and returns what it printed, standard error included in the error.
func (n *NS) Output(cmd *exec.Cmd) (string, error) {
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s in %s: %w: %s", strings.Join(cmd.Args, " "), n.name, err,
			strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// DialContext connects from inside the namespace. The address must hold an IP address: names would be looked up outside.
func (n *NS) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("dial in network namespace %s: %w", n.name, err)
	}
	err = n.Do(func() (err error) { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
	return c, err
}

// Listen listens for streams inside the namespace.
func (n *NS) Listen(network, addr string) (l net.Listener, err error) {
	err = n.Do(func() (err error) { l, err = net.Listen(network, addr); return err })
	return l, err
}

// ListenPacket listens for datagrams inside the namespace.
func (n *NS) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = n.Do(func() (err error) { c, err = net.ListenPacket(network, addr); return err })
	return c, err
}

// Sysctl writes a setting of the namespace; key is like "net.ipv4.ip_forward", its last part may hold dots when
// written with "/".
func (n *NS) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	return n.Do(func() error {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s=%s in %s: %w", key, value, n.name, err)
		}
		return nil
	})
}

// Processes returns the processes that are inside the namespace.
func (n *NS) Processes() ([]int, error) {
	var want unix.Stat_t
	if err := unix.Stat(n.Path(), &want); err != nil {
		return nil, fmt.Errorf("look for processes in %s: %w", n.name, err)
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes in %s: %w", n.name, err)
	}
	var out []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == want.Ino && st.Dev == want.Dev {
			out = append(out, pid)
		}
	}
	return out, nil
}
