package cluster

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/hypha-net/hypha/test/kube/machine"
)

// ErrUnwell ends Status when it has said why.
var ErrUnwell = errors.New("the cluster is not well")

// Status prints how each program of each machine is.
func (c *Cluster) Status() error {
	s, err := c.load()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no cluster %s: `make kube-up` makes one", c.Name)
	}
	if err != nil {
		return err
	}
	c.Nodes, c.Member = s.Nodes, s.Member
	well := s.Ready
	if !well {
		c.say("The cluster was not finished.")
	}
	for _, name := range c.machines() {
		id, alive, err := c.machine(name)
		if err != nil {
			return err
		}
		if !alive {
			c.say("%-8s does not run; see %s", name, machine.Spec{Root: c.path(name)}.Log(machine.Own))
			well = false
			continue
		}
		c.say("%-8s process %d (nsenter --all --target %d)", name, id.PID, id.PID)
		states, err := machine.States(c.path(name))
		if err != nil {
			return err
		}
		for _, p := range states {
			how := "runs"
			if p.PID == 0 {
				how, well = "does not run ("+p.Ended+")", false
			}
			c.say("  %-24s %s, started %d times; %s", p.Name, how, p.Starts, machine.Spec{Root: c.path(name)}.Log(p.Name))
		}
	}
	if !well {
		return ErrUnwell
	}
	return nil
}
