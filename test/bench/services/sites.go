package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/page"
)

// sitesReport is all of rows 4 and 5 that arms are compared in.
type sitesReport struct {
	arms     []site
	connects []connectReport
	changes  []changeReport
}

// sites brings all arms to one number of services after the other, and measures at each.
func sites(ctx context.Context, o options, t *page.Targets) (text string, err error) {
	var r sitesReport
	for _, s := range newSites(o.bin, o.sizes) {
		if o.arms == nil || s.Name() == baseName || slices.Contains(o.arms, s.Name()) {
			r.arms = append(r.arms, s)
		}
	}
	defer func() {
		for _, s := range r.arms {
			err = errors.Join(err, s.close())
		}
	}()
	next := newSince
	for _, n := range o.sizes {
		say("  %d services", n)
		if err := r.grow(ctx, n); err != nil {
			return "", err
		}
		say("  connect to one of %d", n)
		c, err := connects(ctx, o, n, r.arms)
		if err != nil {
			return "", err
		}
		r.connects = append(r.connects, c)
		if !slices.Contains(o.changes, n) {
			continue
		}
		say("  one more than %d", n)
		x, err := changesOf(ctx, o, n, r.changing(), &next)
		if err != nil {
			return "", err
		}
		r.changes = append(r.changes, x)
	}
	r.judge(t)
	return r.text(o), nil
}

// settled is when agents have written down what they heard last.
const settled = 2 * time.Second

// grow brings all arms to so many services. They are made one after the other, and grow together.
func (r *sitesReport) grow(ctx context.Context, n int) error {
	g, gctx := errgroup.WithContext(ctx)
	if len(r.connects) == 0 {
		g.SetLimit(1)
	}
	for _, s := range r.arms {
		g.Go(func() error {
			if err := s.grow(gctx, n); err != nil {
				return fmt.Errorf("bring %s to %d services: %w", s.Name(), n, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return meter.Wait(ctx, settled)
}

// changing are the arms to which services come: Hypha with events at the socket, and kube-proxy's shapes.
func (r *sitesReport) changing() (out []site) {
	for _, s := range r.arms {
		if s.Name() == atSocket || rival(s.Name()) {
			out = append(out, s)
		}
	}
	return out
}

// has says whether an arm was measured.
func (r *sitesReport) has(name string) bool {
	return slices.ContainsFunc(r.arms, func(s site) bool { return s.Name() == name })
}

// at is the report of so many services, nil without one.
func (r *sitesReport) at(services int) *connectReport {
	for i := range r.connects {
		if r.connects[i].services == services {
			return &r.connects[i]
		}
	}
	return nil
}

// Names of arms.
const (
	baseName   = "A2"
	atSocket   = "C"
	inPackets  = "Cp"
	byIPTables = "B1"
	byNFTables = "B2"
)
