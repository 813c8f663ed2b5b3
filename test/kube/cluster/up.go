package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/kube/machine"
)

// ErrLeftover says that something of a cluster is there that does not work.
var ErrLeftover = errors.New("remove it first (make kube-down)")

// Up makes the cluster. It returns once all nodes are registered and know their images. With a cluster that runs it does nothing.
func (c *Cluster) Up(ctx context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	if err := c.checkPrograms(); err != nil {
		return err
	}
	switch running, err := c.running(); {
	case err != nil:
		return err
	case running:
		c.say("The cluster %s runs already.", c.Name)
		return nil
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.make(ctx); err != nil {
		return fmt.Errorf("%w\nwhat there is stays to be looked at, in %s: `make kube-down` removes it", err, c.Dir)
	}
	return nil
}

// running says whether the cluster is there and well, as far as its processes tell.
func (c *Cluster) running() (bool, error) {
	s, err := c.load()
	if errors.Is(err, fs.ErrNotExist) {
		names, err := netns.List(c.prefix() + "-")
		if err == nil && len(names) > 0 {
			err = fmt.Errorf("there are network namespaces of a cluster %s: %w", c.Name, ErrLeftover)
		}
		return false, err
	}
	if err != nil {
		return false, err
	}
	if !s.Ready || s.BootID != bootID() {
		return false, fmt.Errorf("there is a cluster in %s that was not finished: %w", c.Dir, ErrLeftover)
	}
	if s.Nodes != c.Nodes || s.DualStack != c.DualStack || s.Member != c.Member {
		return false, fmt.Errorf("there is another cluster in %s, of %d nodes, dual stack %v, control plane as a node %v: %w", c.Dir, s.Nodes, s.DualStack, s.Member,
			ErrLeftover)
	}
	for _, name := range c.machines() {
		if _, alive, err := c.machine(name); err != nil || !alive {
			return false, fmt.Errorf("there is a cluster in %s, but %s has ended (%w): %w", c.Dir, name, err, ErrLeftover)
		}
	}
	return true, nil
}

func (c *Cluster) make(ctx context.Context) error {
	s := state{BootID: bootID(), Nodes: c.Nodes, DualStack: c.DualStack, Member: c.Member, MountedNetNS: !netns.Mounted()}
	if err := c.store(s); err != nil {
		return err
	}
	var err error
	s.Controllers, err = machine.Delegate()
	if err := errors.Join(err, c.store(s)); err != nil {
		return err
	}
	if err := c.wire(); err != nil {
		return err
	}
	secret, err := newSecrets()
	if err != nil {
		return err
	}
	if err := c.furnishControl(secret); err != nil {
		return fmt.Errorf("prepare the control plane: %w", err)
	}
	c.say("starting the control plane")
	programs := c.controlPrograms()
	if c.Member {
		if err := c.furnishNode(secret, c.nodes()[0]); err != nil {
			return fmt.Errorf("prepare the control plane as a node: %w", err)
		}
		programs = append(programs, c.nodePrograms(c.nodes()[0])...)
	}
	if err := c.start(ctx, control, programs); err != nil {
		return err
	}
	api, err := c.api(secret)
	if err != nil {
		return err
	}
	if err := c.waitAPI(ctx, api); err != nil {
		return err
	}
	if err := c.addDNS(ctx); err != nil {
		return err
	}
	c.say("starting %d nodes", c.Nodes)
	for _, n := range c.workers() {
		if err := machine.Furnish(c.path(n.name), n.name); err != nil {
			return err
		}
		if err := c.furnishNode(secret, n); err != nil {
			return fmt.Errorf("prepare node %s: %w", n.name, err)
		}
		if err := c.start(ctx, n.name, c.nodePrograms(n)); err != nil {
			return err
		}
	}
	if err := c.importAll(ctx); err != nil {
		return err
	}
	if err := c.waitNodes(ctx, api); err != nil {
		return err
	}
	s.Ready = true
	return c.store(s)
}

// start starts a machine whose root directory is there.
func (c *Cluster) start(ctx context.Context, name string, programs []machine.Program) error {
	ns, err := c.open(name)
	if err != nil {
		return err
	}
	groups, err := machine.MakeGroups(c.nsName(name))
	if err != nil {
		return err
	}
	_, err = machine.Start(ctx, ns, machine.Spec{
		Name: name, Root: c.path(name), Groups: groups, Programs: programs, Settings: kubeletSettings,
		Binds: []machine.Bind{{From: c.Programs, To: "/opt/kube/bin"}},
	}, c.path(name+".json"), c.pidFile(name))
	return err
}

// checkPrograms says early what is missing.
func (c *Cluster) checkPrograms() error {
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "loopback"} {
		if _, err := os.Stat(filepath.Join(c.Programs, name)); err != nil {
			return fmt.Errorf("%s is not built (make tools-kube): %w", name, err)
		}
	}
	return nil
}
