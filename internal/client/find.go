package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/paths"
)

// Environment variables that Find reads where its arguments are empty. The last two are the agent's own.
const (
	EnvSocket   = "HYPHA_SOCKET"
	EnvStateDir = "HYPHA_STATE_DIR"
	EnvNodeName = "HYPHA_NODE_NAME"
)

// NoAgentError says that no agent of this machine was found. Its text tells how to start one or name its socket.
type NoAgentError struct {
	Looked []string // patterns of the places that were looked at
	Denied string   // a directory among them that may not be read; "": none
}

// Error implements error.
func (e *NoAgentError) Error() string {
	if e.Denied != "" {
		return fmt.Sprintf("no permission to look for agents in %s: run this as root, or name a socket that your group may open with --socket or %s",
			e.Denied, EnvSocket)
	}
	return fmt.Sprintf("no agent found on this machine (looked for %s): start one with `hypha-agent`, try `hypha demo up`, "+
		"or name its socket with --socket or %s", strings.Join(e.Looked, ", "), EnvSocket)
}

// Find returns the socket of the agent that is meant: the admin socket, or the one that only reads.
//
// A socket that is named is taken as it is, there or not; one that the environment names only where no argument says
// anything: what somebody typed wins over what the shell remembers. Then the state directory, if one is named, is
// searched, else the default ones; a named node must be the one. Of the agents of a directory this host's own comes
// first, then those that accept connections, each in name order.
func Find(stateDir, nodeName, explicitSocket string, admin bool) (string, error) {
	if explicitSocket == "" && stateDir == "" && nodeName == "" {
		explicitSocket = os.Getenv(EnvSocket)
	}
	if explicitSocket != "" {
		return strings.TrimPrefix(explicitSocket, "unix://"), nil
	}
	name := or(nodeName, EnvNodeName)
	dirs := []string{paths.StateDir, paths.DemoDir}
	if d := or(stateDir, EnvStateDir); d != "" {
		dirs = []string{d}
		if name != "" { // both known: no search, so that an agent that was never started is named in the error
			return socketOf(d, name, admin), nil
		}
	}
	return find(dirs, name, admin)
}

func find(dirs []string, name string, admin bool) (string, error) {
	host, _ := os.Hostname() // unknown: no preference
	var looked []string
	var denied, down string // down: first agent that has a directory but does not answer
	for _, d := range dirs {
		pattern := socketOf(d, "*", admin)
		if name != "" {
			pattern = socketOf(d, name, admin)
		}
		looked = append(looked, pattern)
		found, err := candidates(d, name, host, admin)
		if errors.Is(err, fs.ErrPermission) && denied == "" {
			denied = d
		}
		for _, s := range found {
			if accepts(s) {
				return s, nil
			}
			if down == "" {
				down = s
			}
		}
	}
	if down != "" {
		return down, nil
	}
	return "", &NoAgentError{Looked: looked, Denied: denied}
}

// candidates are the sockets of the agents that have a state directory, this host's first, then in name order. An error
// says that there may be more.
func candidates(dir, name, host string, admin bool) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var own, others []string
	for _, e := range entries {
		switch n := e.Name(); {
		case !e.IsDir() || name != "" && n != name:
		case n == host:
			own = append(own, socketOf(dir, n, admin))
		default:
			s := socketOf(dir, n, admin)
			for _, trace := range []string{s, paths.For(dir, n).Lock()} { // of an agent, stopped or not
				_, lerr := os.Lstat(trace)
				if lerr == nil {
					others = append(others, s)
					break
				}
				if errors.Is(lerr, fs.ErrPermission) {
					err = lerr
				}
			}
		}
	}
	return append(own, others...), err
}

func socketOf(stateDir, node string, admin bool) string {
	p := paths.For(stateDir, node)
	if admin {
		return p.AdminSocket()
	}
	return p.AgentSocket()
}

// accepts says whether somebody listens. A socket file outlives an agent that was killed.
func accepts(socket string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	c, err := dial(ctx, socket)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was written
	return true
}

func or(arg, env string) string {
	if arg != "" {
		return arg
	}
	return os.Getenv(env)
}
