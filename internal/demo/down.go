package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/process"
)

// Down removes everything the demo made, whatever state it is in. Nothing to remove is fine.
func (d *Demo) Down(ctx context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := d.lock(false)
	if err != nil && !errors.Is(err, errNone) {
		return err
	}
	if err == nil {
		defer unlock()
	}
	st, err := d.load()
	if err != nil { // none, or damaged: the names of all things are known without it
		if !errors.Is(err, errNone) {
			d.say("%v; removing what its names tell", err)
		}
		st = newState()
	}
	d.state = st
	names, err := netns.List(d.prefix + "-")
	if err != nil {
		return err
	}
	_, dirErr := os.Stat(d.dir)
	if len(names) == 0 && dirErr != nil && !d.pinned() {
		d.say("There is no demo.")
		return nil
	}
	if err := d.endAll(ctx, names); err != nil {
		return err
	}
	var errs error
	for _, name := range names {
		errs = errors.Join(errs, netns.Delete(name))
	}
	for _, n := range nodes {
		p := paths.For(d.dir, n.name)
		errs = errors.Join(errs, lab.RemovePins(p), lab.RemoveCgroup(p))
	}
	if errs != nil { // the state stays, for another try
		return errs
	}
	if st.MountedBPF {
		errs = errors.Join(errs, lab.UnmountBPF())
	}
	if st.MountedNetNS {
		errs = errors.Join(errs, netns.RemoveDir())
	}
	errs = errors.Join(errs, d.removeFiles())
	if errs == nil {
		d.say("The demo is gone: namespaces, links, BPF objects, files and processes.")
	}
	return errs
}

// pinned says whether something of the demo is left in bpffs.
func (d *Demo) pinned() bool {
	for _, n := range nodes {
		if _, err := os.Stat(paths.For(d.dir, n.name).BPF); err == nil {
			return true
		}
	}
	return false
}

// endAll kills the demo's own processes (all they could put in order goes too), then whatever else is left in its
// namespaces.
func (d *Demo) endAll(ctx context.Context, names []string) error {
	ids := []process.ID{d.state.World}
	for _, p := range d.state.Pods {
		ids = append(ids, p.Server)
	}
	for _, a := range d.state.Agents {
		ids = append(ids, a)
	}
	if d.state.BootID != bootID() {
		ids = nil // other processes have these numbers now
	}
	if err := each(ctx, ids, func(_ context.Context, id process.ID) error { return id.Stop(0) }); err != nil {
		return err
	}
	for _, name := range names {
		ns, err := netns.Open(name)
		if err != nil {
			continue // a file without a namespace
		}
		if err := d.endProcesses(ns, strings.TrimPrefix(name, d.prefix+"-")); err != nil {
			return err
		}
	}
	return nil
}

// endProcesses kills what runs in a namespace of the demo, but not us and those who called us.
func (d *Demo) endProcesses(ns *netns.NS, where string) error {
	pids, err := ns.Processes()
	if err != nil {
		return err
	}
	spare := map[int]bool{}
	for pid := os.Getpid(); pid > 0; pid = process.Parent(pid) {
		spare[pid] = true
	}
	for _, pid := range pids {
		id, err := process.Of(pid)
		if err != nil || spare[pid] {
			continue
		}
		name := id.Name()
		if err := id.Stop(0); err != nil {
			return fmt.Errorf("end what runs in %s: %w", where, err)
		}
		if name != "" {
			d.say("ended %s (process %d), which still ran in %s", name, pid, where)
		}
	}
	return nil
}

// removeFiles deletes what the demo put into its directory, and the directory if that was all.
func (d *Demo) removeFiles() error {
	for _, f := range d.ownFiles() {
		if err := os.RemoveAll(f); err != nil {
			return fmt.Errorf("remove the demo's files: %w", err)
		}
	}
	left, err := os.ReadDir(d.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the demo's files: %w", err)
	}
	for _, e := range left { // of a write that was cut short
		if !strings.HasSuffix(e.Name(), ".tmp") {
			return fmt.Errorf("%s holds files that are not the demo's (%s): they are left alone", d.dir, e.Name())
		}
		if err := os.Remove(d.dir + "/" + e.Name()); err != nil {
			return fmt.Errorf("remove the demo's files: %w", err)
		}
	}
	if err := os.Remove(d.dir); err != nil {
		return fmt.Errorf("remove the demo's files: %w", err)
	}
	return nil
}
