package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// ExecError is a command that could not be started; the code is what a shell would return.
type ExecError struct {
	Code int // 126 or 127
	Err  error
}

// Error implements error.
func (e *ExecError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *ExecError) Unwrap() error { return e.Err }

// ExitCode is what the command ends with.
func (e *ExecError) ExitCode() int { return e.Code }

// Exec becomes the command, inside a pod's (or node's, or the world's) network namespace, with the pods' names in
// /etc/hosts. As the process is replaced, exit code, input, terminal and signals are the command's own. It returns only
// when that fails. Mounts are the caller's but for the hosts file.
func (d *Demo) Exec(name string, argv []string) error {
	if err := needRoot(); err != nil {
		return err
	}
	st, err := d.load()
	if err != nil {
		return err
	}
	d.state = st
	if _, ok := d.find(name); !ok && !isNode(name) && name != worldName {
		return d.noPod(name)
	}
	ns, err := d.open(name)
	if errors.Is(err, netns.ErrNotExist) {
		return fmt.Errorf("%s is not running: `hypha demo up` mends the demo", name)
	}
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return &ExecError{126, fmt.Errorf("%s cannot be run: %w", argv[0], err)}
		}
		return &ExecError{127, fmt.Errorf("%s is not installed on this machine (`hypha workload get URL` and `echo` need nothing): %w", argv[0], err)}
	}
	f, err := os.Open(ns.Path())
	if err != nil {
		return fmt.Errorf("enter %s: %w", name, err)
	}
	if err := d.enterCgroup(name); err != nil {
		return fmt.Errorf("enter %s: %w", name, err)
	}
	runtime.LockOSThread() // never unlocked: this thread becomes the command
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", name, err)
	}
	if err := d.showHosts(); err != nil {
		return err
	}
	if err := syscall.Exec(path, argv, os.Environ()); err != nil {
		return &ExecError{126, fmt.Errorf("run %s: %w", path, err)}
	}
	return nil
}

// showHosts puts the pods' names in front of /etc/hosts, for this thread and what it becomes only.
func (d *Demo) showHosts() error {
	const hosts = "/etc/hosts"
	if _, err := os.Stat(hosts); err != nil {
		return nil // nothing to put it over
	}
	fail := func(err error) error { return fmt.Errorf("show the pods' names: %w", err) }
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fail(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fail(err)
	}
	if err := unix.Mount(d.hostsFile(), hosts, "", unix.MS_BIND, ""); err != nil {
		return fail(err)
	}
	return nil
}

// enterCgroup moves this process into the control group of the node, or of the pod's node, so that it finds services as they do.
func (d *Demo) enterCgroup(name string) error {
	node := name
	if p, ok := d.find(name); ok {
		node = p.Node
	}
	if !isNode(node) {
		return nil // the world finds none
	}
	return lab.EnterCgroup(paths.For(d.dir, node))
}
