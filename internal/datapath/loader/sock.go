package loader

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/sock"
)

// AttachSockets puts the programs of sockets onto the configured control group, or makes sure that they are there in their
// newest form; without a configured one it takes them off. An attached program is replaced without a gap.
func (l *Loader) AttachSockets() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attachSockets()
}

func (l *Loader) attachSockets() error {
	if l.cfg.Cgroup == "" {
		var failed error
		for name := range sock.Hooks() {
			failed = errors.Join(failed, unpinLink(l.sockPin(name)), l.release(l.sockPin(name)))
		}
		return failed
	}
	if l.progs == nil {
		return errors.New("attach programs to sockets: loader is closed")
	}
	id, err := l.cgroupID()
	if err != nil {
		return err
	}
	for name, hook := range sock.Hooks() {
		prog := l.progs[name]
		err := l.attachLink(l.sockPin(name), prog, func(have link.Link) (bool, ebpf.ProgramID) { return grouped(have, id) },
			func() (link.Link, error) {
				return link.AttachCgroup(link.CgroupOptions{Path: l.cfg.Cgroup, Attach: hook, Program: prog})
			})
		if err != nil {
			return fmt.Errorf("attach %s to control group %s: %w", name, l.cfg.Cgroup, err)
		}
	}
	return nil
}

// SocketsAttached says what the control group lacks of the programs of sockets, nil if it has all, in their newest form.
func (l *Loader) SocketsAttached() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Cgroup == "" {
		return nil
	}
	id, err := l.cgroupID()
	if err != nil {
		return err
	}
	for name := range sock.Hooks() {
		have, err := link.LoadPinnedLink(l.sockPin(name), nil)
		if err != nil {
			return fmt.Errorf("program %s is not on control group %s: %w", name, l.cfg.Cgroup, err)
		}
		here, running := grouped(have, id)
		if err := have.Close(); err != nil {
			return err
		}
		if !here || running != l.ids[name] {
			return fmt.Errorf("program %s is not on control group %s", name, l.cfg.Cgroup)
		}
	}
	return nil
}

// cgroupID is the number of the control group: its inode's.
func (l *Loader) cgroupID() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(l.cfg.Cgroup, &st); err != nil {
		return 0, fmt.Errorf("look at control group %s: %w", l.cfg.Cgroup, err)
	}
	return st.Ino, nil
}

// grouped says whether a link is on the control group of this number, and which program it runs.
func grouped(l link.Link, id uint64) (bool, ebpf.ProgramID) {
	info, err := l.Info()
	if err != nil {
		return false, 0
	}
	g := info.Cgroup()
	return g != nil && g.CgroupId == id, info.Program
}

func (l *Loader) sockPin(name string) string { return filepath.Join(l.cfg.Links, name) }
