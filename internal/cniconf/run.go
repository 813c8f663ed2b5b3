package cniconf

import (
	"context"
	"log/slog"
	"time"

	"github.com/hypha-net/hypha/internal/fault"
)

// Look is how often Run looks whether the configuration is still there and alone.
const Look = 5 * time.Second

// Run keeps the configuration in place until ctx ends; then, with uninstall, it takes it away. It stays otherwise: while the
// agent is away a runtime hears from the plugin why a workload cannot start.
func Run(ctx context.Context, c Config, uninstall bool, log *slog.Logger) error {
	failed := fault.New(log, "CNI configuration not written", "CNI configuration written")
	tick := time.NewTicker(Look)
	defer tick.Stop()
	for {
		failed.Note(c.Write())
		select {
		case <-ctx.Done():
			if uninstall {
				return c.Remove()
			}
			return nil
		case <-tick.C:
		}
	}
}
