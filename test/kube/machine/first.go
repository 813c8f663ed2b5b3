package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// path is where machines look for programs; /opt/kube/bin is for those that are not the real machine's.
const path = "/opt/kube/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// pause is how long a program that has ended stays away.
const pause = 2 * time.Second

// stateFile is where a machine says how its programs are.
const stateFile = "/run/programs.json"

// State is how a program of a machine is.
type State struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"` // inside; 0 while it does not run
	Starts int    `json:"starts"`
	Ended  string `json:"ended"` // how it ended last, "" while it has not
}

// States reads how the programs of the machine with this root are. Before it has started any, the error is fs.ErrNotExist.
func States(root string) ([]State, error) {
	b, err := os.ReadFile(filepath.Join(root, stateFile))
	if err != nil {
		return nil, fmt.Errorf("read state of programs: %w", err)
	}
	var out []State
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read state of programs: %w", err)
	}
	return out, nil
}

// first is the life of the machine's first process. It does not return, but for errors at the start.
func (s Spec) first() error {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM)
	go func() {
		<-terminate
		os.Exit(0) // and the kernel ends the others
	}()
	if err := s.mount(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := leaveRoot(); err != nil {
		return err
	}
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	r := &runner{spec: s, byPID: map[int]int{}, states: make([]State, len(s.Programs)), log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	for i, p := range s.Programs {
		r.states[i].Name = p.Name
		r.start(i)
	}
	for {
		r.reap()
	}
}

// runner starts programs, by their place in the specification, and takes note of their ends.
type runner struct {
	spec Spec
	log  *slog.Logger

	mu     sync.Mutex
	byPID  map[int]int
	states []State
}

func (r *runner) start(i int) {
	r.mu.Lock() // until the number of the process is known: it might end before that
	defer r.mu.Unlock()
	st := &r.states[i]
	st.Starts++
	pid, err := r.exec(r.spec.Programs[i])
	if err != nil {
		st.Ended = err.Error()
		r.log.Error("start program", "name", st.Name, "error", err)
		time.AfterFunc(pause, func() { r.start(i) })
	} else {
		st.PID = pid
		r.byPID[pid] = i
	}
	r.write()
}

func (r *runner) exec(p Program) (int, error) {
	file, err := exec.LookPath(p.Args[0])
	if err != nil {
		return 0, err
	}
	out, err := os.OpenFile(filepath.Join("/var/log", p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	// Not os.StartProcess, which wants to wait for its child itself.
	return syscall.ForkExec(file, p.Args, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + path, "HOME=/root"}, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// reap waits for any child to end: a program, or a process whose parents have ended.
func (r *runner) reap() {
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, 0, nil)
	if errors.Is(err, unix.ECHILD) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.byPID[pid]
	if !ok {
		return
	}
	delete(r.byPID, pid)
	st := &r.states[i]
	st.PID, st.Ended = 0, fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		st.Ended = "signal: " + ws.Signal().String()
	}
	r.log.Error("program ended", "name", st.Name, "how", st.Ended)
	time.AfterFunc(pause, func() { r.start(i) })
	r.write()
}

// write tells the state, in one step for readers.
func (r *runner) write() {
	b, err := json.Marshal(r.states)
	if err == nil {
		err = os.WriteFile(stateFile+".tmp", b, 0o644)
	}
	if err == nil {
		err = os.Rename(stateFile+".tmp", stateFile)
	}
	if err != nil {
		r.log.Error("write state of programs", "error", err)
	}
}
