package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
	"github.com/hypha-net/hypha/test/kube/machine"
)

// Down removes all of the cluster, in whatever state it is: processes, mounts, namespaces, control groups, files. The names of things are
// known without its state. Nothing to remove is fine.
func (c *Cluster) Down(context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	names, err := netns.List(c.prefix() + "-")
	if err != nil {
		return err
	}
	s, err := c.load()
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.say("%v; removing what its names tell", err)
	}
	_, dirErr := os.Stat(c.Dir)
	if len(names) == 0 && dirErr != nil {
		c.say("There is no cluster %s.", c.Name)
		return nil
	}
	if dirErr == nil {
		if err := c.ours(); err != nil {
			return err
		}
		unlock, err := c.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	if !known || s.BootID == bootID() {
		if err := c.endMachines(); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := c.endLeftover(name); err != nil {
			return err
		}
	}
	errs := errors.Join(c.unplugSelf(), machine.RemoveGroups(c.prefix()+"-*"), machine.Withdraw(s.Controllers))
	for _, name := range names {
		errs = errors.Join(errs, netns.Delete(name))
	}
	if errs != nil { // the state stays, for another try
		return errs
	}
	if s.MountedNetNS {
		if err := netns.RemoveDir(); err != nil {
			return err
		}
	}
	if err := c.removeFiles(); err != nil {
		return err
	}
	c.say("The cluster %s is gone.", c.Name)
	return nil
}

// endMachines kills the first process of each machine; the kernel ends all others.
func (c *Cluster) endMachines() error {
	files, err := filepath.Glob(c.path("*.pid"))
	if err != nil {
		return err
	}
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	for i, f := range files {
		wg.Go(func() {
			id, err := process.ReadFile(f)
			if err != nil {
				c.say("%v; looking for it by its namespace", err)
				return
			}
			errs[i] = id.Stop(0)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// endLeftover waits for what the kernel is ending in a network namespace of the cluster, and kills what still runs there then: somebody's
// shell.
func (c *Cluster) endLeftover(name string) error {
	ns, err := netns.Open(name)
	if errors.Is(err, netns.ErrNotExist) {
		return nil // a file without a namespace
	}
	if err != nil {
		return err
	}
	var left []process.ID
	for range 100 {
		if left, err = others(ns); err != nil || len(left) == 0 {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, id := range left {
		what := id.Name()
		if err := id.Stop(0); err != nil {
			return fmt.Errorf("end what runs in %s: %w", name, err)
		}
		if what != "" {
			c.say("ended %s (process %d), which still ran in %s", what, id.PID, strings.TrimPrefix(name, c.prefix()+"-"))
		}
	}
	return nil
}

// others are the processes in a namespace, but not we and those who called us.
func others(ns *netns.NS) ([]process.ID, error) {
	pids, err := ns.Processes()
	if err != nil {
		return nil, err
	}
	spare := map[int]bool{}
	for pid := os.Getpid(); pid > 0; pid = process.Parent(pid) {
		spare[pid] = true
	}
	var out []process.ID
	for _, pid := range pids {
		if id, err := process.Of(pid); err == nil && !spare[pid] {
			out = append(out, id)
		}
	}
	return out, nil
}

// ours is an error where the cluster's directory is not that of a cluster, but of something else.
func (c *Cluster) ours() error {
	left, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("look at the cluster's directory: %w", err)
	}
	for _, e := range left {
		if e.Name() == "cluster.json" {
			return nil
		}
	}
	for _, e := range left {
		if e.Name() != "lock" && !strings.HasSuffix(e.Name(), ".tmp") {
			return fmt.Errorf("%s holds no cluster: it is left alone", c.Dir)
		}
	}
	return nil
}

// removeFiles deletes the cluster's directory, and that of all clusters when it was the last.
func (c *Cluster) removeFiles() error {
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	if filepath.Dir(c.Dir) == home {
		_ = os.Remove(home) // fails while there are others
	}
	return nil
}
