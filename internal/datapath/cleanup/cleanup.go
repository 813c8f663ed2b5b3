// Package cleanup removes what one agent put into the kernel, whether the agent ended well or not. The agent must not
// run any more.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/host"
	"github.com/hypha-net/hypha/internal/datapath/link"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/overlay"
	"github.com/hypha-net/hypha/internal/datapath/route"
	"github.com/hypha-net/hypha/internal/paths"
)

// Run removes the agent's workload devices, overlay device, routes, router addresses, programs, pins and its settings
// of the node. It works in the calling thread's network namespace, which must be the agent's. What fails does not keep
// the rest from going.
func Run(ctx context.Context, p paths.Paths, log *slog.Logger) error {
	return errors.Join(Devices(ctx, p, log), host.Restore(p.HostRecord()), Pins(p))
}

// Devices removes what is in the network namespace: devices, routes and filters.
func Devices(ctx context.Context, p paths.Paths, log *slog.Logger) error {
	pairs, err := link.New(link.Config{Owner: p.Owner()}, link.Deps{Log: log})
	if err != nil {
		return err
	}
	defer pairs.Close()
	failed := overlay.Delete()
	all, err := pairs.List(ctx)
	failed = errors.Join(failed, err)
	for _, l := range all {
		failed = errors.Join(failed, pairs.Delete(ctx, l.HostIfName))
	}
	routes, err := route.New()
	if err != nil {
		return errors.Join(failed, err)
	}
	defer routes.Close()
	return errors.Join(failed, routes.Clear(ctx), loader.RemoveFilters())
}

// Pins detaches the pinned links and removes everything under the agent's bpffs directory. It needs no network
// namespace; devices whose links it detaches lose their programs.
func Pins(p paths.Paths) error {
	failed := loader.Unpin(p.Links())
	if err := os.RemoveAll(p.BPF); err != nil {
		failed = errors.Join(failed, fmt.Errorf("remove pins: %w", err))
	}
	// The parent is every agent's; it goes with the last.
	err := os.Remove(filepath.Dir(p.BPF))
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		failed = errors.Join(failed, fmt.Errorf("remove pins: %w", err))
	}
	return failed
}
