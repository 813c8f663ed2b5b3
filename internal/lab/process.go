package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
)

// Process is a program that was started inside a namespace and outlives the one who started it.
type Process struct {
	ID   process.ID
	Log  string        // file of its output
	done chan struct{} // closed when it has ended while we were there
	err  error         // how it ended; read after done
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended says how the process ended, "" while it runs.
func (p *Process) Ended() string {
	select {
	case <-p.done:
	default:
		return ""
	}
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// failed says how a process ended that should be running, with the end of its log.
func (p *Process) failed() error {
	if tail := Tail(p.Log, 5); tail != "" {
		return fmt.Errorf("ended early (%s); the end of %s:\n%s", p.Ended(), p.Log, tail)
	}
	return fmt.Errorf("ended early (%s); its log %s is empty", p.Ended(), p.Log)
}

// start starts a program in a session of its own inside the namespace, its output appended to a file.
func start(ns *netns.NS, log string, cmd *exec.Cmd) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o750); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	id, err := process.Of(cmd.Process.Pid) // our child: the number stays its own until Wait
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	p := &Process{ID: id, Log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Workload says what to serve in a pod.
type Workload struct {
	Hypha string // the binary
	NS    *netns.NS
	Name  string
	Node  string
	Log   string // file of its output
	HTTP  int    // port of an HTTP server that is all it serves; 0: all servers at their usual ports
}

// StartWorkload starts the pod's servers and returns when all their ports are open.
func StartWorkload(w Workload, timeout time.Duration) (*Process, error) {
	r, wr, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start workload of pod %s: %w", w.Name, err)
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command(w.Hypha, "workload", "serve", "--name", w.Name, "--node", w.Node, "--ready-fd", "3")
	if w.HTTP != 0 {
		cmd.Args = append(cmd.Args, "--http-port", strconv.Itoa(w.HTTP), "--echo-port", "0")
	}
	cmd.ExtraFiles = []*os.File{wr}
	p, err := start(w.NS, w.Log, cmd)
	_ = wr.Close()
	if err != nil {
		return nil, fmt.Errorf("start workload of pod %s: %w", w.Name, err)
	}
	_ = r.SetReadDeadline(time.Now().Add(timeout))
	b, err := io.ReadAll(io.LimitReader(r, 64))
	if err == nil && strings.TrimSpace(string(b)) == "ready" {
		return p, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = p.ID.Stop(0)
		return nil, fmt.Errorf("start workload of pod %s: not ready within %s", w.Name, timeout)
	}
	_ = p.ID.Stop(time.Second)
	<-p.done
	return nil, fmt.Errorf("start workload of pod %s: %w", w.Name, p.failed())
}

// Tail returns the last lines of a file, "" when there is none.
func Tail(path string, lines int) string {
	const most = 8 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
