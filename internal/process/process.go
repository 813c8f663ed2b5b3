// Package process names processes so that a number used again by the kernel is never taken for the old process: by
// number and start time. What is not the process that was meant is never signalled.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ID names one process of this boot.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// Of names the running process with this number.
func Of(pid int) (ID, error) {
	start, _, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Start: start}, nil
}

// String is "pid.start", which ParseID reads.
func (id ID) String() string { return fmt.Sprintf("%d.%d", id.PID, id.Start) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	a, b, ok := strings.Cut(s, ".")
	pid, err1 := strconv.Atoi(a)
	start, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || pid <= 0 {
		return ID{}, fmt.Errorf("%q names no process", s)
	}
	return ID{PID: pid, Start: start}, nil
}

// Alive says whether the process still runs; one that has ended and was not waited for does not.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	start, state, err := stat(id.PID)
	return err == nil && start == id.Start && state != 'Z' && state != 'X'
}

// Signal sends sig. os.ErrProcessDone means that the process runs no more.
func (id ID) Signal(sig syscall.Signal) error {
	if !id.Alive() {
		return os.ErrProcessDone
	}
	p, err := os.FindProcess(id.PID) // holds the process by a descriptor where the kernel can
	if err != nil {
		return os.ErrProcessDone
	}
	defer func() { _ = p.Release() }()
	if !id.Alive() { // between the first look and taking hold, the number may have changed hands
		return os.ErrProcessDone
	}
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	return nil
}

// Stop asks the process to end and kills it after the grace time. nil means that it runs no more.
func (id ID) Stop(grace time.Duration) error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := id.Signal(step.sig); err != nil {
			if errors.Is(err, os.ErrProcessDone) {
				return nil
			}
			return err
		}
		for end := time.Now().Add(step.wait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if !id.Alive() {
				return nil
			}
		}
	}
	return fmt.Errorf("process %d does not end", id.PID)
}

// Name is the command name of the process, "" when it is gone.
func (id ID) Name() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", id.PID))
	if err != nil || !id.Alive() {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Parent is the number of the process's parent, 0 when it is not known.
func Parent(pid int) int {
	f, err := fields(pid)
	if err != nil || len(f) < 2 {
		return 0
	}
	n, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return 0
	}
	return n
}

// WriteFile keeps the name of a process in a file, for ReadFile. The file is replaced in one step.
func (id ID) WriteFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(id.String()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// ReadFile reads what WriteFile wrote. A missing file is os.ErrNotExist.
func ReadFile(path string) (ID, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return ID{}, fmt.Errorf("read pid file: %w", err)
	}
	id, err := ParseID(strings.TrimSpace(string(b)))
	if err != nil {
		return ID{}, fmt.Errorf("read pid file %s: %w", path, err)
	}
	return id, nil
}

// stat reads start time and state of a process (proc(5)).
func stat(pid int) (start uint64, state byte, err error) {
	f, err := fields(pid)
	if err != nil {
		return 0, 0, err
	}
	if len(f) < 20 || len(f[0]) == 0 {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	start, err = strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return start, f[0][0], nil
}

// fields are those after the command name, which may hold blanks and brackets: f[0] is field 3 of proc(5).
func fields(pid int) ([][]byte, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]), nil
}
