package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is an open network namespace of a workload with a netlink socket inside.
type space struct {
	f *os.File
	*netlink.Handle
}

// enter opens the namespace at path. The error is fs.ErrNotExist when there is no such file, ErrNoNetNS when it is
// something else, ErrOwnNetNS for the agent's own.
func enter(path string) (*space, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	h, err := handleAt(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", path, err), f.Close())
	}
	return &space{f, h}, nil
}

func handleAt(f *os.File) (*netlink.Handle, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, ErrNoNetNS
	}
	if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		return nil, ErrNoNetNS
	}
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return nil, err
	}
	if err := unix.Fstat(int(f.Fd()), &other); err != nil {
		return nil, err
	}
	if own.Ino == other.Ino && own.Dev == other.Dev {
		return nil, ErrOwnNetNS
	}
	return netlink.NewHandleAt(netns.NsHandle(int(f.Fd())), unix.NETLINK_ROUTE)
}

func (s *space) Close() error {
	s.Handle.Close()
	return s.f.Close()
}

// sysctls writes values inside the namespace, on a thread that ends with it: there is no netlink for them. A value
// that the namespace does not have (IPv6 switched off at boot) is an error only when it is required.
func (s *space) sysctls(values []sysctl) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else gets this thread
		if err := unix.Setns(int(s.f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		var failed error
		for _, v := range values {
			if err := os.WriteFile("/proc/sys/net/"+v.path, []byte(v.value), 0); err != nil && (v.required || !errors.Is(err, os.ErrNotExist)) {
				failed = errors.Join(failed, fmt.Errorf("set sysctl: %w", err))
			}
		}
		done <- failed
	}()
	return <-done
}

type sysctl struct {
	path, value string
	required    bool
}

// podSysctls are what the workload's end needs inside.
func podSysctls(ifName string, v6 bool) []sysctl {
	if !v6 {
		return nil
	}
	conf := "ipv6/conf/" + ifName + "/"
	return []sysctl{
		{conf + "disable_ipv6", "0", true}, // images switch it off by default
		{conf + "accept_ra", "0", false},   // its routes come from here
		{conf + "accept_dad", "0", false},  // nobody else can have its address
	}
}
