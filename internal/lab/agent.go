package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"sigs.k8s.io/yaml"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// Agent says how to start one.
type Agent struct {
	Binary   string
	NS       *netns.NS // of its node
	StateDir string
	Node     string
	Config   string         // file to write its options to
	Log      string         // file of its output
	Options  map[string]any // besides state-dir and node-name, by the names of the flags
}

// Paths are the agent's places.
func (a Agent) Paths() paths.Paths { return paths.For(a.StateDir, a.Node) }

// Start writes the options and starts the agent; it is not ready yet.
func (a Agent) Start() (*Process, error) {
	opts := map[string]any{"state-dir": a.StateDir, "node-name": a.Node}
	group, err := Cgroup(a.Paths())
	if err == nil && group != "" {
		opts["cgroup-root"] = group
		err = os.MkdirAll(group, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make control group of agent %s: %w", a.Node, err)
	}
	maps.Copy(opts, a.Options)
	b, err := yaml.Marshal(opts)
	if err != nil {
		return nil, fmt.Errorf("write options of agent %s: %w", a.Node, err)
	}
	if err := os.MkdirAll(filepath.Dir(a.Config), 0o750); err != nil {
		return nil, fmt.Errorf("write options of agent %s: %w", a.Node, err)
	}
	if err := os.WriteFile(a.Config, b, 0o640); err != nil {
		return nil, fmt.Errorf("write options of agent %s: %w", a.Node, err)
	}
	cmd := exec.Command(a.Binary, "--config", a.Config)
	for _, e := range os.Environ() { // the agent must not take options meant for us
		if !strings.HasPrefix(e, "HYPHA_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	p, err := start(a.NS, a.Log, cmd)
	if err != nil {
		return nil, fmt.Errorf("agent %s: %w", a.Node, err)
	}
	return p, nil
}

// WaitReady returns the agent's status once it serves, has nothing in state FAILURE and knows at least this many nodes.
// p, which may be nil, is the process: when it ends, so does the waiting.
func (a Agent) WaitReady(ctx context.Context, p *Process, nodes int) (*agentv1.StatusResponse, error) {
	c := client.Reader(a.Paths().AgentSocket())
	var done <-chan struct{}
	if p != nil {
		done = p.Done()
	}
	last := errors.New("it does not answer")
	for {
		asked := time.Now()
		resp, err := c.Status(ctx, connect.NewRequest(&agentv1.StatusRequest{}))
		switch {
		case err != nil:
			if ctx.Err() == nil {
				last = errors.New(client.Message(err))
			}
		case resp.Msg.GetState() == agentv1.Component_FAILURE:
			last = errors.New(complaint(resp.Msg))
		case int(resp.Msg.GetNodes()) < nodes:
			last = fmt.Errorf("it knows %d of %d nodes", resp.Msg.GetNodes(), nodes)
		default:
			return resp.Msg, nil
		}
		select {
		case <-time.After(20*time.Millisecond + 10*time.Since(asked)): // a status costs the agent something where there is much to count
		case <-done:
			return nil, fmt.Errorf("agent %s %w", a.Node, p.failed())
		case <-ctx.Done():
			return nil, fmt.Errorf("agent %s is not ready: %w (its log: %s)", a.Node, last, a.Log)
		}
	}
}

// complaint is what the failed components of a status say.
func complaint(st *agentv1.StatusResponse) string {
	var out []string
	for _, c := range st.GetComponents() {
		if c.GetState() == agentv1.Component_FAILURE {
			out = append(out, c.GetName()+": "+c.GetMessage())
		}
	}
	if len(out) == 0 {
		return "its status is FAILURE"
	}
	return strings.Join(out, "; ")
}
