package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/lab"
)

// Start starts the agent and waits until it is ready and knows this many nodes.
func (n *Node) Start(ctx context.Context, nodes int) error {
	if err := n.Launch(); err != nil {
		return err
	}
	return n.WaitReady(ctx, nodes)
}

// Launch starts the agent and does not wait.
func (n *Node) Launch() error {
	p, err := n.agent.Start()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	n.reader, n.admin = client.Reader(n.Paths.AgentSocket()), client.Admin(n.Paths.AdminSocket())
	return nil
}

// WaitReady waits until the agent is ready and knows this many nodes.
func (n *Node) WaitReady(ctx context.Context, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	_, err := n.agent.WaitReady(ctx, n.running(), nodes)
	return err
}

// Use makes later starts run this agent's binary.
func (n *Node) Use(binary string) { n.agent.Binary = binary }

func (n *Node) running() *lab.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Kill ends the agent with SIGKILL; nil when it does not run.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL) }

// Stop ends the agent in its own order.
func (n *Node) Stop() error { return n.end(syscall.SIGTERM) }

func (n *Node) end(sig syscall.Signal) error {
	p := n.running()
	if p == nil {
		return nil
	}
	if err := p.ID.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.Done():
		return nil
	case <-time.After(10 * time.Second):
		_ = p.ID.Signal(syscall.SIGKILL)
		return fmt.Errorf("agent %s did not end within 10 s of %s", n.Name, sig)
	}
}

// PID is the number of the agent's process, 0 when it does not run.
func (n *Node) PID() int {
	if p := n.running(); p != nil && p.ID.Alive() {
		return p.ID.PID
	}
	return 0
}

// Reader asks the agent. All callers share its connections, so that they are few.
func (n *Node) Reader() agentv1connect.ReaderClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reader
}

// Admin changes things by the agent, as Reader.
func (n *Node) Admin() agentv1connect.AdminClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.admin
}

// Log is the end of the agent's log, and how the agent ended if it has.
func (n *Node) Log(lines int) string {
	text := lab.Tail(n.agent.Log, lines)
	if p := n.running(); p != nil && p.Ended() != "" {
		text += "\nended: " + p.Ended()
	}
	return text
}

// Status is the agent's status.
func (n *Node) Status(ctx context.Context) (*agentv1.StatusResponse, error) {
	resp, err := n.Reader().Status(ctx, connect.NewRequest(&agentv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Endpoints are the agent's.
func (n *Node) Endpoints(ctx context.Context) ([]*agentv1.Endpoint, error) {
	resp, err := n.Reader().ListEndpoints(ctx, connect.NewRequest(&agentv1.ListEndpointsRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetEndpoints(), nil
}

// Rows are the rows of a kernel map of the node, as the agent shows them: values by column.
func (n *Node) Rows(ctx context.Context, name string) ([]map[string]string, error) {
	stream, err := n.Reader().DumpMap(ctx, connect.NewRequest(&agentv1.DumpMapRequest{Name: name}))
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %s", n.Name, name, client.Message(err))
	}
	defer func() { _ = stream.Close() }()
	var out []map[string]string
	for stream.Receive() {
		row := map[string]string{}
		for _, col := range stream.Msg().GetColumns() {
			row[col.GetName()] = col.GetValue()
		}
		out = append(out, row)
	}
	return out, stream.Err()
}

// Hypha runs the CLI against this node's agent and returns what it printed, both streams together.
func (c *Cluster) Hypha(ctx context.Context, n *Node, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.cfg.Bin.Hypha, append([]string{"--state-dir", c.Dir, "--node-name", n.Name}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("hypha %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// Import puts a policy document in force on all nodes and returns its revision.
func (c *Cluster) Import(ctx context.Context, doc string) (uint64, error) {
	resp, err := c.Nodes[0].Admin().ImportPolicy(ctx, connect.NewRequest(&agentv1.ImportPolicyRequest{Document: doc, Filename: "test"}))
	if err != nil {
		return 0, fmt.Errorf("import policy: %s", client.Message(err))
	}
	return resp.Msg.GetRevision(), c.WaitPolicy(ctx, resp.Msg.GetRevision())
}

// DeletePolicies takes the policies with these labels ("name=x") away on all nodes; none: all.
func (c *Cluster) DeletePolicies(ctx context.Context, labels ...string) error {
	resp, err := c.Nodes[0].Admin().DeletePolicy(ctx, connect.NewRequest(&agentv1.DeletePolicyRequest{Labels: labels, All: len(labels) == 0}))
	if err != nil {
		return fmt.Errorf("delete policy: %s", client.Message(err))
	}
	return c.WaitPolicy(ctx, resp.Msg.GetRevision())
}

// WaitPolicy returns when all nodes enforce the revision.
func (c *Cluster) WaitPolicy(ctx context.Context, revision uint64) error {
	for _, n := range c.Nodes {
		if _, err := n.Reader().WaitPolicy(ctx, connect.NewRequest(&agentv1.WaitPolicyRequest{Revision: revision})); err != nil {
			return fmt.Errorf("wait for policy on %s: %s", n.Name, client.Message(err))
		}
	}
	return nil
}
