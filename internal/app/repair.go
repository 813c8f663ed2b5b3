package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
)

// repairEvery is how often the agent looks whether its kernel objects are still there. Devices, programs and pins can be
// removed without a word to those who follow netlink.
const repairEvery = 2 * time.Second

// repairs are what could not be mended at the last look.
type repairs struct {
	mu     sync.Mutex
	failed error
}

func (r *repairs) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// note keeps the outcome of a look, and says whether it is another one than before.
func (r *repairs) note(err error) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = (err == nil) != (r.failed == nil) || err != nil && err.Error() != r.failed.Error()
	r.failed = err
	return news
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
		}
		err = errors.Join(err, a.repairOverlay(), a.repairSockets())
		if a.repairs.note(err) {
			if err != nil {
				a.log.Error("kernel objects could not be repaired", "error", err)
			} else {
				a.log.Info("kernel objects are in place again")
			}
		}
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
	return nil
}
