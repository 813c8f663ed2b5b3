// Package cni is the CNI plugin: it translates the calls of a container runtime (CNI specification 1.1) into calls of the
// agent, and the agent's answers into the specification's results and error codes. It does nothing itself: devices,
// addresses and policy are the agent's. A runtime starts it for every workload, so it imports little and ends soon.
//
// While the agent is down ADD fails within Timeout, and DEL succeeds and leaves a note that the agent works off when it starts.
package cni

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/paths"
)

// Timeout bounds one call of the agent. The agent gives up a little earlier, so its reason arrives.
const Timeout = 4800 * time.Millisecond

// Versions of the specification that results can be given in.
var supported = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Main serves the one call that the environment and stdin describe and returns the exit code. about is said when somebody
// starts the plugin by hand.
func Main(stdout io.Writer, about string) int {
	p := &plugin{}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, supported, about)
	if err == nil && p.result != nil {
		if _, werr := stdout.Write(p.result); werr != nil {
			err = types.NewError(types.ErrIOFailure, "write result: "+werr.Error(), "")
		}
	}
	if err == nil {
		return 0
	}
	if p.undo != nil { // attached, but the runtime is told of a failure
		p.undo()
	}
	if werr := printError(stdout, err); werr != nil {
		fmt.Fprintln(os.Stderr, "hypha-cni:", err, "and the error could not be written:", werr)
	}
	return 1
}

// plugin is one call.
type plugin struct {
	result []byte // of ADD, printed only when nothing can fail any more
	undo   func() // of ADD
}

// agent is where the agent of this node is reached.
type agent struct {
	socket  string
	pending string // directory for notes
	log     *slog.Logger
}

func (a *agent) admin() agentv1connect.AdminClient   { return client.Admin(a.socket) }
func (a *agent) reader() agentv1connect.ReaderClient { return client.Reader(a.socket) }

// agentOf finds the agent that the network configuration means. The environment has no say: it is the runtime's.
func agentOf(c *conf, log *slog.Logger) (*agent, *types.Error) {
	socket := c.Socket
	if socket == "" {
		dir, node := c.StateDir, c.NodeName
		if dir == "" {
			dir = paths.StateDir
		}
		if node == "" {
			host, err := os.Hostname()
			if err != nil {
				return nil, types.NewError(types.ErrInvalidNetworkConfig, "the host has no name: set nodeName in the network configuration", err.Error())
			}
			node = host
		}
		socket = paths.For(dir, node).AdminSocket()
	}
	// The socket lies in the agent's own directory: <state-dir>/<node-name>.
	own := filepath.Dir(socket)
	return &agent{
		socket: socket, log: log,
		pending: paths.For(filepath.Dir(own), filepath.Base(own)).PendingDel(),
	}, nil
}

// begin reads what every call needs.
func begin(cmd string, args *skel.CmdArgs) (*conf, *agent, func(error), error) {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return nil, nil, nil, err
	}
	log, closeLog := openLog(c.LogFile)
	log = log.With("command", cmd, "container", args.ContainerID, "interface", args.IfName)
	a, aerr := agentOf(c, log)
	if aerr != nil {
		closeLog()
		return nil, nil, nil, aerr
	}
	start := time.Now()
	return c, a, func(err error) {
		if err != nil {
			log.Error("failed", "error", err, "took", time.Since(start))
		} else {
			log.Info("done", "took", time.Since(start))
		}
		closeLog()
	}, nil
}

func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Timeout)
}

// openLog appends to the file that the configuration names. Logging must not keep a workload from its network.
func openLog(path string) (*slog.Logger, func()) {
	if path == "" {
		return slog.New(slog.DiscardHandler), func() {}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hypha-cni: no log:", err)
		return slog.New(slog.DiscardHandler), func() {}
	}
	return slog.New(slog.NewTextHandler(f, nil)), func() { _ = f.Close() }
}
