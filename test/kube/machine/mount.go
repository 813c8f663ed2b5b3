package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mount is mount(2) that says what failed.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	return nil
}

// bind shows a directory or file of the real machine, with what is mounted in it.
func bind(from, to string) error { return mount(from, to, "", unix.MS_BIND|unix.MS_REC, "") }

// bindReadOnly is bind for what may only be read.
func bindReadOnly(from, to string) error {
	if err := bind(from, to); err != nil {
		return err
	}
	return mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// mount makes the machine's view of files and enters it.
func (s Spec) mount() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil { // the real machine sees nothing of what follows
		return err
	}
	if err := mount(s.Root, s.Root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, step := range []func() error{s.mountSystem, s.mountKernel, s.mountBinds, s.mountSettings} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := unix.Chdir(s.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // pivot_root(2): the old root lies on top of the new one then
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") // pods may ask for mounts that both they and the node see
}

// mountSystem shows programs, libraries and devices of the real machine.
func (s Spec) mountSystem() error {
	for _, dir := range system {
		if st, err := os.Lstat("/" + dir); err != nil || !st.IsDir() {
			continue
		}
		to := filepath.Join(s.Root, dir)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := bindReadOnly("/"+dir, to); err != nil {
			return err
		}
	}
	dev := filepath.Join(s.Root, "dev")
	if err := bind("/dev", dev); err != nil {
		return err
	}
	shm := filepath.Join(dev, "shm")
	if _, err := os.Stat(shm); err != nil {
		return nil
	}
	return mount("tmpfs", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

// mountKernel mounts what the kernel tells of the namespaces that the machine is made of.
func (s Spec) mountKernel() error {
	proc, sys := filepath.Join(s.Root, "proc"), filepath.Join(s.Root, "sys")
	safe := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := errors.Join(mount("proc", proc, "proc", safe, ""), mount("sysfs", sys, "sysfs", safe, "")); err != nil {
		return err
	}
	if err := mountGroups(s.Root); err != nil {
		return err
	}
	if err := mount("bpffs", filepath.Join(sys, "fs", "bpf"), "bpf", safe, "mode=0700"); err != nil {
		return err
	}
	for _, dir := range []string{"debug", "tracing", "security"} { // of the whole machine, where it has them
		from := filepath.Join("/sys/kernel", dir)
		if entries, err := os.ReadDir(from); err != nil || len(entries) == 0 {
			continue
		}
		if err := bind(from, filepath.Join(sys, "kernel", dir)); err != nil {
			return err
		}
	}
	return nil
}

func (s Spec) mountBinds() error {
	binds := s.Binds
	for _, dir := range shared {
		binds = append(binds, Bind{From: dir, To: dir})
	}
	for _, b := range binds {
		if _, err := os.Stat(b.From); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		to := filepath.Join(s.Root, b.To)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := bindReadOnly(b.From, to); err != nil {
			return err
		}
	}
	return nil
}

// mountSettings puts files in the place of settings that belong to the whole kernel: programs read and write these instead.
func (s Spec) mountSettings() error {
	for key, value := range s.Settings {
		at := filepath.Join(s.Root, "proc", "sys", key)
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file := filepath.Join(s.Root, "var", "lib", "settings", key)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := bind(file, at); err != nil {
			return err
		}
	}
	return nil
}
