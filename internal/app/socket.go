package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/internal/paths"
)

// lockState makes sure that one agent only owns a state directory, for as long as the file is open.
func lockState(p paths.Paths) (*os.File, error) {
	if err := os.MkdirAll(p.State, 0o750); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	// Not for writing: an open file that may be written to keeps a disk from being remounted, and a disk that takes no writes
	// keeps no agent from running.
	f, err := os.OpenFile(p.Lock(), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the state directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for range 10 { // clients that ask whether an agent runs hold it for a moment
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		pid, _ := os.ReadFile(f.Name())
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another agent (pid %s) runs with %s: stop it, or choose another --state-dir or --node-name", pid, p.State)
		}
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	_ = os.WriteFile(f.Name(), []byte(strconv.Itoa(os.Getpid())), 0o600) // for the message above only
	return f, nil
}

// socketGroup is the number of the group that may open the sockets; none: root's.
func socketGroup(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("option socket-group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

// listenUnix opens a socket of the agent. Where its directory takes none, no room or not to be written to, it lies in the
// refuge, where clients look next: an agent in trouble must be able to say so.
func (a *Agent) listenUnix(path string) (net.Listener, error) {
	l, err := listenUnix(path, a.gid)
	if err == nil {
		if err := os.Remove(paths.Refuge(path)); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier run
			a.log.Warn("old socket stays behind", "err", err)
		}
		return l, nil
	}
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EDQUOT) {
		return nil, err
	}
	refuge := paths.Refuge(path)
	a.log.Warn("the state directory takes no socket, listening elsewhere", "err", err, "socket", refuge)
	if err := os.MkdirAll(filepath.Dir(refuge), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of sockets: %w", err)
	}
	return listenUnix(refuge, a.gid)
}

// admit lets a group reach the sockets: through the directory of all agents, whose content it need not list, and into this one's.
func admit(p paths.Paths, gid int) error {
	if gid == 0 {
		return nil
	}
	shared := filepath.Dir(p.State)
	st, err := os.Stat(shared)
	if err == nil {
		err = errors.Join(os.Chmod(shared, st.Mode().Perm()|0o011), os.Chown(p.State, 0, gid), os.Chmod(p.State, 0o710))
	}
	if err != nil && !errors.Is(err, syscall.EROFS) { // as it was left: a disk that takes no writes keeps no agent from running
		return fmt.Errorf("let group %d to the sockets: %w", gid, err)
	}
	return nil
}

// listenUnix opens a socket with mode 0660 for root and a group. The caller holds the state directory's lock, so a
// socket that is there already is a dead agent's.
func listenUnix(path string, gid int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	// Nobody may connect between bind and chmod.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		l.Close()
		return nil, fmt.Errorf("set owner of %s: %w", path, err)
	}
	return l, nil
}

// serveHTTP serves h, HTTP/1.1 and HTTP/2 without TLS, until ctx ends; then streams get a second to finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: &p, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}
