package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
	"github.com/hypha-net/hypha/internal/fault"
)

// repairEvery is how often the agent looks whether its kernel objects are still there. Devices, programs and pins can be
// removed without a word to those who follow netlink.
const repairEvery = 2 * time.Second

// repairs is what became of the looks.
type repairs struct {
	failed *fault.Fault

	mu   sync.Mutex
	last string // what was mended at last
	at   time.Time
}

func newRepairs(log *slog.Logger) *repairs {
	return &repairs{failed: fault.New(log, "kernel objects could not be repaired", "kernel objects are in place again")}
}

// mended notes what somebody had taken away and is back.
func (r *repairs) mended(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.at = what, time.Now()
}

// done says how things are when nothing is missing.
func (r *repairs) done() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == "" {
		return "in place"
	}
	return fmt.Sprintf("in place; repaired at %s: %s", r.at.Format("15:04:05"), r.last)
}

// repair keeps the tunnel device, with its programs, and the pins of maps in place until ctx ends. Workloads' devices are
// the endpoint manager's, outside devices and routes their reconcilers'.
func (a *Agent) repair(ctx context.Context) error {
	t := time.NewTicker(repairEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		pinned, err := a.maps.Repin()
		if pinned > 0 {
			a.log.Warn("pins of maps were removed from outside and are back", "maps", pinned)
			a.repairs.mended(counted(pinned, "pin of a map", "pins of maps") + " had been removed")
		}
		err = errors.Join(err, a.repairOverlay(), a.repairSockets())
		a.repairs.failed.Note(err)
	}
}

func (a *Agent) repairOverlay() error {
	if !a.cfg.Tunnel() {
		return nil
	}
	what := overlay.Verify(a.tunnel)
	if what == nil {
		what = a.loader.Attached(loader.Overlay, a.tunnel.Index)
	}
	if what == nil {
		return nil
	}
	if err := a.openOverlay(); err != nil {
		return err
	}
	a.log.Warn("the tunnel device was changed from outside and is in order again", "was", what)
	a.repairs.mended("the tunnel device: " + what.Error())
	return nil
}

func (a *Agent) repairSockets() error {
	what := a.loader.SocketsAttached()
	if what == nil {
		return nil
	}
	if err := a.loader.AttachSockets(); err != nil {
		return err
	}
	a.log.Warn("programs of sockets were taken away from outside and are back", "was", what)
	a.repairs.mended("programs of sockets: " + what.Error())
	return nil
}
