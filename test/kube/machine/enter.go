package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/process"
)

// enter goes into the control groups and starts the machine's first process, for which these are the root of all groups: a namespace of
// control groups begins where its maker is.
func (s Spec) enter(specFile, pidFile string) error {
	for _, dir := range s.Groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter control group: %w", err)
		}
	}
	log, err := os.OpenFile(s.Log(Own), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{word, first, specFile}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	id, err := process.Of(cmd.Process.Pid)
	if err == nil {
		err = id.WriteFile(pidFile)
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return nil
}
