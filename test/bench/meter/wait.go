package meter

import (
	"context"
	"fmt"
	"time"
)

// Reach waits until something has come to a number, and looks every pause.
func Reach(ctx context.Context, want int, pause time.Duration, count func() (int, error)) error {
	for begin := time.Now(); ; {
		n, err := count()
		if err != nil || n >= want {
			return err
		}
		if time.Since(begin) > 3*time.Minute {
			return fmt.Errorf("%d of %d after %s", n, want, time.Since(begin).Round(time.Second))
		}
		if err := Wait(ctx, pause); err != nil {
			return err
		}
	}
}

// Wait sleeps for so long or until ctx ends.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
