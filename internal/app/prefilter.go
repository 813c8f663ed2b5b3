package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/control/prefilter"
	"github.com/hypha-net/hypha/internal/datapath/device"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	dpprefilter "github.com/hypha-net/hypha/internal/datapath/prefilter"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/file"
)

// denials keeps the list of denied sources: a change is written to its file before it is in force, and the kernel is kept in
// line with it, whatever devices come and go.
type denials struct {
	log     *slog.Logger
	path    string
	target  *dpprefilter.Target
	devices *device.Table
	behind  *fault.Fault // why the kernel does not have the list

	mu   sync.Mutex
	list prefilter.List
}

// prefilterEvery is how often the agent looks whether the program is still on every device.
const prefilterEvery = 5 * time.Second

// openPrefilter reads the list. Where its file is damaged or gone, what the kernel holds is the list; with the prefilter off
// there is none, and the file stays for when it is on again.
func (a *Agent) openPrefilter() error {
	log := a.log.With("part", "prefilter")
	target := dpprefilter.New(dpprefilter.Config{Fast: a.fast()}, dpprefilter.Deps{Maps: a.maps, Loader: a.loader})
	a.denials = &denials{log: log, path: a.paths.Prefilter(), target: target, devices: a.outside,
		behind: fault.New(log, "denied sources are not in force", "denied sources are in force"), list: prefilter.Empty()}
	if !a.cfg.Prefilter {
		return nil
	}
	return a.denials.restore()
}

func (d *denials) restore() error {
	var damaged *file.DamagedError
	err := file.ReadJSON(d.path, &d.list)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damaged) {
		return err
	}
	revision, deny, kerr := d.target.Held()
	if kerr != nil {
		return kerr
	}
	d.list = prefilter.List{Revision: max(revision, prefilter.Empty().Revision), Deny: deny}
	if damaged == nil && len(deny) == 0 {
		return nil
	}
	d.log.Warn("denied sources are those that the kernel holds", "err", err, "revision", d.list.Revision, "cidrs", len(deny))
	if err := d.save(d.list); err != nil {
		d.log.Warn("denied sources not written down", "err", err)
	}
	return nil
}

func (d *denials) save(l prefilter.List) error { return file.WriteJSON(d.path, l, 0o600) }

// Run keeps the kernel in line until ctx ends.
func (d *denials) Run(ctx context.Context) error {
	look := time.NewTicker(prefilterEvery)
	defer look.Stop()
	for {
		changed := d.devices.Snapshot().Changed()
		d.bring()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-look.C:
		}
	}
}

// bring brings the list into force, and the programs that accelerate services onto the devices.
func (d *denials) bring() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.sync() // noted
}

// slow are the devices that do not accelerate services, by name, and why.
func (d *denials) slow() map[string]error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.target.Slow()
}

// sync brings the list into force; d.mu is held.
func (d *denials) sync() error {
	var devices []device.Device
	for _, dev := range d.devices.Snapshot().All() {
		devices = append(devices, dev)
	}
	err := d.target.Sync(d.list.Revision, d.list.Deny, devices)
	d.behind.Note(err)
	return err
}

// errNotYet says that a change is decided and written down, but not in force.
var errNotYet = errors.New("not in force yet, the agent tries again by itself")

// change takes a step from the list as it is to the next one and puts that in force. When it fails nothing has changed, unless
// the error is errNotYet.
func (d *denials) change(step func(prefilter.List) (prefilter.List, int, error)) (revision uint64, changed int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, changed, err := step(d.list)
	if err == nil && changed > 0 {
		err = d.target.Fits(next.Deny)
	}
	if err == nil && changed > 0 {
		err = d.save(next)
	}
	if err != nil || changed == 0 {
		return d.list.Revision, 0, err
	}
	d.list = next
	if err := d.sync(); err != nil {
		return next.Revision, changed, fmt.Errorf("revision %d is %w: %w", next.Revision, errNotYet, err)
	}
	d.log.Info("denied sources changed", "revision", next.Revision, "cidrs", len(next.Deny))
	return next.Revision, changed, nil
}

// current is the list, and why it is not in force, nil if it is.
func (d *denials) current() (prefilter.List, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list, d.behind.Err()
}

// modes are the outside devices and how each runs the program: "native", "generic", or "" when it does not.
func (d *denials) modes(l prefilter.List) (names, modes []string) {
	for _, dev := range d.devices.Snapshot().All() {
		mode := ""
		if len(l.Deny) > 0 {
			mode, _ = loader.XDPMode(dev.Index) // a device that is gone runs nothing
		}
		names, modes = append(names, dev.Name), append(modes, mode)
	}
	return names, modes
}

// nodeAddrs are the addresses under which packets of the cluster's nodes come, with the names of the nodes. Without an overlay a
// node speaks to workloads under its address in their range.
func (a *Agent) nodeAddrs() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	add := func(n *model.Node) {
		for _, addr := range n.Addrs {
			out[addr] = n.Name
		}
		if !a.cfg.Tunnel() {
			for _, addr := range n.Routers {
				out[addr] = n.Name
			}
		}
	}
	for _, n := range a.store.nodes.Table().Snapshot().All() {
		add(&n)
	}
	add(&a.self)
	return out
}

func (a *Agent) prefilterStatus(add addFunc) {
	if !a.cfg.Prefilter {
		add("prefilter", stateDisabled, "enable-xdp-prefilter is off", "")
		return
	}
	list, err := a.denials.current()
	names, modes := a.denials.modes(list)
	var on []string
	for i, name := range names {
		on = append(on, name+" ("+cmp.Or(modes[i], "not attached")+")")
	}
	var hits []string
	for _, h := range prefilter.Hits(list.Deny, a.nodeAddrs()) { // of nodes that came later
		hits = append(hits, h.String())
	}
	text := fmt.Sprintf("revision %d, %s denied", list.Revision, count(len(list.Deny), "CIDR"))
	switch {
	case err != nil:
		add("prefilter", stateFailure, text+", not in force: "+err.Error(),
			"the agent tries again by itself; `ip link show` says which device has another XDP program")
	case len(list.Deny) == 0:
		add("prefilter", stateOK, "nothing is denied, nothing attached", "")
	case len(on) == 0:
		add("prefilter", stateWarning, text+", but the node has no outside device", "set --devices")
	case len(hits) > 0:
		add("prefilter", stateWarning, text+":\n"+strings.Join(hits[:min(len(hits), mostWrong)], "\n"),
			"take these CIDRs off the list (`hypha prefilter delete`): this node does not hear of those")
	default:
		packets, _, derr := a.maps.PrefilterDrops()
		if derr != nil {
			add("prefilter", stateFailure, derr.Error(), "see the agent's log")
			return
		}
		add("prefilter", stateOK, fmt.Sprintf("%s on %s; %s dropped", text, strings.Join(on, ", "), count(packets, "packet")), "")
	}
}
