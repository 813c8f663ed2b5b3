package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
)

// agents starts the agents that do not run and waits until all are ready and know each other. The first one keeps the
// store, so it comes first.
func (d *Demo) agents(ctx context.Context) error {
	running := make([]*lab.Process, len(nodes))
	for i, n := range nodes {
		a, err := d.agent(n)
		if err != nil {
			return err
		}
		if running[i], err = d.startAgent(n, a); err != nil {
			return err
		}
		if _, err := a.WaitReady(ctx, running[i], 1); err != nil {
			return err
		}
	}
	for i, n := range nodes {
		a, err := d.agent(n)
		if err != nil {
			return err
		}
		if _, err := a.WaitReady(ctx, running[i], len(nodes)); err != nil {
			return err
		}
	}
	return nil
}

// startAgent starts a node's agent unless it runs in the node's namespace. The process is nil when it was there.
func (d *Demo) startAgent(n node, a lab.Agent) (*lab.Process, error) {
	id := d.agentID(n.name)
	if runsIn(a.NS, id) {
		return nil, nil
	}
	if err := id.Stop(5 * time.Second); err != nil { // one whose namespace is gone
		return nil, fmt.Errorf("stop the old agent of %s: %w", n.name, err)
	}
	if answers(a.Paths().AgentSocket()) {
		return nil, fmt.Errorf("an agent that the demo did not start answers at %s: stop it first", a.Paths().AgentSocket())
	}
	p, err := a.Start()
	if err != nil {
		return nil, err
	}
	if err := d.update(func(s *state) { s.Agents[n.name] = p.ID }); err != nil {
		return nil, errors.Join(err, p.ID.Stop(time.Second))
	}
	return p, nil
}

func (d *Demo) agentID(node string) process.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Agents[node]
}

// outside keeps a server running in the world's namespace, for pods to talk to.
func (d *Demo) outside() error {
	ns, err := d.open(worldName)
	if err != nil {
		return err
	}
	d.mu.Lock()
	id := d.state.World
	d.mu.Unlock()
	if runsIn(ns, id) {
		return nil
	}
	if err := id.Stop(time.Second); err != nil {
		return fmt.Errorf("stop the old server outside: %w", err)
	}
	p, err := lab.StartWorkload(lab.Workload{Hypha: d.bin.Hypha, NS: ns, Name: worldName, Node: "the outside", Log: d.logFile(worldName)}, 5*time.Second)
	if err != nil {
		return err
	}
	return d.update(func(s *state) { s.World = p.ID })
}

// answers says whether somebody listens at a unix socket.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// runsIn says whether a process runs and is inside the namespace.
func runsIn(ns *netns.NS, id process.ID) bool {
	if !id.Alive() {
		return false
	}
	pids, err := ns.Processes()
	return err == nil && slices.Contains(pids, id.PID) && id.Alive()
}

// freshBoot forgets what did not survive a restart of the machine.
func (d *Demo) freshBoot() (bool, error) {
	if d.state.BootID == bootID() {
		return false, nil
	}
	pods := d.pods()
	for _, f := range d.ownFiles() {
		if err := os.RemoveAll(f); err != nil {
			return false, fmt.Errorf("remove what is left from before the restart: %w", err)
		}
	}
	d.state = newState()
	for i := range pods { // wished for by the user: attached anew
		pods[i].Addrs, pods[i].Server = nil, process.ID{}
	}
	return true, d.update(func(s *state) { s.Pods = pods })
}

func newState() *state {
	return &state{BootID: bootID(), Created: time.Now().UTC().Truncate(time.Second), Agents: map[string]process.ID{}}
}
