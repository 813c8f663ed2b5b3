package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
	"github.com/hypha-net/hypha/test/bench/meter"
)

// Row 5: one service comes to n others.

// changeReport is what adding services took on each arm.
type changeReport struct {
	services int
	got      map[string]*changes
}

// changes are times from the event on: the call that stores a service, or the start of the command that loads its rules.
type changes struct {
	called  []time.Duration // until the call, or the command, returned
	kernel  []time.Duration // until the row was in the kernel; of Hypha only
	through []time.Duration // until a connection was through
	failed  int             // connections to another service that failed meanwhile
}

// A prober is a load process beside a site's client that says when an address begins to answer.
type prober struct {
	site
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startProber(ctx context.Context, s site) (*prober, error) {
	p := &prober{site: s}
	cmd, err := child(ctx, s, load.ProbeArgs(s.ends().Server.Name(), serverPorts, place(arm.NewService(0))), nil, func(cmd *exec.Cmd) error {
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		p.in, p.out, cmd.Stderr = in, json.NewDecoder(out), os.Stderr
		return err
	})
	p.cmd = cmd
	return p, err
}

func (p *prober) stop() {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// add adds a service and waits until it is there.
func (p *prober) add(ctx context.Context, v arm.Service, into *changes) error {
	event, arrived, err := p.adding(ctx, v)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(p.in, place(v)); err != nil {
		return fmt.Errorf("tell the probe on %s: %w", p.Name(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	rowAt, rowErr := time.Duration(0), make(chan error, 1)
	began := load.Now()
	go func() { rowErr <- await(ctx, arrived, &rowAt) }()
	err = event()
	returned := load.Now()
	if err := errors.Join(err, <-rowErr); err != nil {
		return fmt.Errorf("add a service on %s: %w", p.Name(), err)
	}
	var f load.Found
	if err := p.out.Decode(&f); err != nil {
		return fmt.Errorf("hear from the probe on %s: %w", p.Name(), err)
	}
	into.called = append(into.called, returned-began)
	if arrived != nil {
		into.kernel = append(into.kernel, rowAt-began)
	}
	into.through = append(into.through, f.At-began)
	into.failed += f.Failed
	return nil
}

// await notes when a row is in the kernel; without a question at once.
func await(ctx context.Context, arrived func() (bool, error), at *time.Duration) error {
	for arrived != nil {
		there, err := arrived()
		if *at = load.Now(); err != nil || there {
			return err
		}
		if err := meter.Wait(ctx, 20*time.Microsecond); err != nil {
			return fmt.Errorf("wait for the row: %w", err)
		}
	}
	return nil
}

// perRound is how many services come to Hypha in a round: what takes milliseconds needs more of them for its p99.
const perRound = 10

// changesOf adds services to sites in turn; next is the number of the next one.
func changesOf(ctx context.Context, o options, n int, all []site, next *int) (r changeReport, err error) {
	r = changeReport{services: n, got: map[string]*changes{}}
	var probers []*prober
	for _, s := range all {
		p, err := startProber(ctx, s)
		if err != nil {
			return r, err
		}
		defer p.stop()
		probers = append(probers, p)
		r.got[s.Name()] = &changes{}
	}
	end := time.Now().Add(o.patience)
	for round := 0; round < o.rounds && (round < 3 || time.Now().Before(end)); round++ {
		for _, p := range probers {
			times := perRound
			if rival(p.Name()) {
				times = 1
			}
			for range times {
				if err := p.add(ctx, serviceOf(*next, true), r.got[p.Name()]); err != nil {
					return r, err
				}
				*next++
			}
		}
		slices.Reverse(probers)
	}
	return r, nil
}
