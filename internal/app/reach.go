package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/source/state"
)

// noRanges tells that this node has no pod ranges yet.
func noRanges(log *slog.Logger) *fault.Fault {
	return fault.New(log, "no pod ranges yet: waiting for the store", "pod ranges claimed")
}

// untilReached tries until something works, or cannot for another reason than that the store is not reached. waits tells of that.
func untilReached(ctx context.Context, waits *fault.Fault, try func() error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := try()
		if err == nil {
			waits.Note(nil)
			return nil
		}
		if !errors.Is(err, state.ErrUnreachable) {
			return err
		}
		waits.Note(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
