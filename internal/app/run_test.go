package app

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sync/errgroup"
)

// A start that fails must not look like an end that was asked for.
func TestStop(t *testing.T) {
	part := errors.New("part")
	for _, want := range []error{nil, part} {
		g, ctx := errgroup.WithContext(t.Context())
		failed := make(chan struct{})
		g.Go(func() error {
			defer close(failed)
			if want == nil {
				<-ctx.Done()
			}
			return want
		})
		if want != nil {
			<-failed
			<-ctx.Done()
		}
		err := errors.Join(errors.New("listen"), stop(g))
		if errors.Is(err, context.Canceled) || errors.Is(err, part) != (want != nil) {
			t.Errorf("part %v: %v", want, err)
		}
	}
}
