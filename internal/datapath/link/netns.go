package link

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
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
	var h *netlink.Handle
	err := netns.In(f, func() (err error) { // netlink.NewHandleAt would take whichever thread it is on, the main one as well
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	return h, err
}

func (s *space) Close() error {
	s.Handle.Close()
	return s.f.Close()
}

// sysctls writes values inside the namespace: there is no netlink for them. A value
// that the namespace does not have (IPv6 switched off at boot) is an error only when it is required.
func (s *space) sysctls(values []sysctl) error {
	return netns.In(s.f, func() error {
		var failed error
		for _, v := range values {
			if err := os.WriteFile("/proc/sys/net/"+v.path, []byte(v.value), 0); err != nil && (v.required || !errors.Is(err, os.ErrNotExist)) {
				failed = errors.Join(failed, fmt.Errorf("set sysctl: %w", err))
			}
		}
		return failed
	})
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
