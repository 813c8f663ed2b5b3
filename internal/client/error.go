package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/paths"
)

// Error says that the agent could not be asked, and what to do about it. It wraps the *connect.Error.
type Error struct {
	Node   string // whose agent
	Socket string
	Down   bool // nobody listens there
	What   string
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.What }

// Unwrap is what the transport said.
func (e *Error) Unwrap() error { return e.Err }

// Down says whether err means that no agent listens at its socket.
func Down(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Down
}

// Message is what a person should read of an error of a call: without the RPC's own prefix.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.What
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		return ce.Message()
	}
	return err.Error()
}

const adminPrefix = "/" + agentv1connect.AdminName + "/"

// explain turns a failure to reach the agent into an *Error; what the agent itself answered stays as it is.
func explain(ctx context.Context, socket, procedure string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	node := filepath.Base(filepath.Dir(socket))
	e := &Error{Node: node, Socket: socket, Err: err}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		e.Down = true
		if pid := busy(socket); pid != "" {
			e.What = fmt.Sprintf("the agent of node %s (pid %s) does not serve yet: it is starting or stopping, its log says what it waits for (socket %s)", node, pid, socket)
			break
		}
		e.What = fmt.Sprintf("the agent of node %s is not running (socket %s): start it with `%s`", node, socket, startCommand(socket))
	case errors.Is(err, fs.ErrPermission):
		e.What = fmt.Sprintf("no permission for the agent's socket %s: run this as root or as a member of the socket's group", socket)
	case errors.Is(err, syscall.EINVAL) && len(socket) > 107:
		e.What = fmt.Sprintf("the path of the agent's socket is longer than the 107 bytes a unix socket can have: %s", socket)
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && !fromAgent(err):
		e.What = fmt.Sprintf("the agent of node %s did not answer in time (socket %s): see its log and `hypha status`", node, socket)
	case connect.CodeOf(err) == connect.CodeUnimplemented && strings.HasPrefix(procedure, adminPrefix) && filepath.Base(socket) == filepath.Base(paths.Paths{}.AgentSocket()):
		e.What = fmt.Sprintf("the socket %s only reads: name %s for this", socket, filepath.Join(filepath.Dir(socket), "admin.sock"))
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF):
		e.What = fmt.Sprintf("the agent of node %s stopped while it was asked (socket %s): see its log, then try again", node, socket)
	default:
		return err
	}
	return e
}

// busy is the process number of an agent that runs beside a socket nobody listens on; "" when there is none, or only
// root could tell.
func busy(socket string) string {
	f, err := os.Open(paths.Paths{State: filepath.Dir(socket)}.Lock())
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		return "" // the lock goes with the file
	}
	pid, _ := io.ReadAll(io.LimitReader(f, 20)) // for people only
	return strings.TrimSpace(string(pid))
}

// fromAgent says whether the agent itself sent this error, rather than the transport.
func fromAgent(err error) bool {
	var ce *connect.Error
	return errors.As(err, &ce) && connect.IsWireError(ce)
}

func startCommand(socket string) string {
	dir := filepath.Dir(filepath.Dir(socket))
	node := filepath.Base(filepath.Dir(socket))
	switch {
	case dir == paths.DemoDir || strings.HasPrefix(dir, paths.DemoDir+"/"):
		return "hypha demo up"
	case dir == paths.StateDir:
		return "hypha-agent --node-name " + node
	default:
		return "hypha-agent --state-dir " + dir + " --node-name " + node
	}
}
