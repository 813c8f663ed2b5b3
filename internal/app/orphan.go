package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/socket"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/netns"
)

const (
	// gather is how long backends that leave are gathered: those of one change come together. It is also longer than any program
	// that has chosen one of them before needs to say so.
	gather = 100 * time.Millisecond
	// breath is how many times as long as the last round took it rests at least: at most a tenth of a CPU goes into this.
	breath = 10
	// relapse is the pause before what failed is tried again.
	relapse = 5 * time.Second
)

// orphans ends the sockets whose backend has left its service, so that their owners connect anew and get another.
type orphans struct {
	log      *slog.Logger
	services *services
	talks    func(fn func(model.Talk) bool) error // what sockets believe
	inForce  func() uint64                        // the revision of the services' rows that the kernel has
	homes    func() []string                      // network namespaces, by path: the node's first, then those of workloads
	tcp      bool                                 // TCP sockets too
	failed   *fault.Fault
}

// departed are the backends that have left since somebody last looked.
type departed struct {
	all  bool // not known which: an earlier agent may have seen some go
	ends map[netip.AddrPort]bool
}

func (d *departed) add(ends map[netip.AddrPort]bool) {
	if d.ends == nil {
		d.ends = map[netip.AddrPort]bool{}
	}
	maps.Copy(d.ends, ends)
}

func (d *departed) none() bool { return !d.all && len(d.ends) == 0 }

// Run follows the services until ctx ends. Nothing is ended before the store has told all of them.
func (o *orphans) Run(ctx context.Context) error {
	rows := o.services.rows
	if !waitFor(ctx, func() bool { return rows.Snapshot().Complete() }) {
		return nil
	}
	todo, pause := departed{all: true}, gather
	for {
		if todo.none() {
			select {
			case <-ctx.Done():
				return nil
			case <-o.services.leaving:
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		todo.add(o.services.takeLeft())
		// Whoever connects anew must not get the same backend again.
		want := rows.Snapshot().Revision()
		if !waitFor(ctx, func() bool { return o.inForce() >= want }) {
			return nil
		}
		began := time.Now()
		err := o.end(todo)
		o.failed.Note(err)
		if pause = max(gather, breath*time.Since(began)); err != nil {
			pause = max(pause, relapse)
		} else {
			todo = departed{}
		}
	}
}

// end ends the sockets that talk to those that have left. Sockets are listed only if one of them is among those that ever did.
func (o *orphans) end(d departed) error {
	want, err := o.find(d)
	if err != nil {
		return err
	}
	total := 0
	for i, path := range o.homes() {
		if len(want) == 0 {
			break
		}
		var n int
		var failed error
		away := netns.Inside(path, func() error { n, failed = socket.End(want); return nil })
		total += n
		switch {
		case failed != nil:
			err = errors.Join(err, fmt.Errorf("network namespace %s: %w", path, failed))
		case away != nil && i == 0:
			err = errors.Join(err, away)
		case away != nil: // a workload that has gone: so have its sockets
			o.log.Debug("network namespace not searched for sockets", "err", away)
		}
	}
	if total > 0 {
		o.log.Info("sockets of removed backends ended", "sockets", total)
	}
	return err
}

// chunk is how many talks are judged at a time.
const chunk = 4096

// find reads who talks to those that have left.
func (o *orphans) find(d departed) (map[socket.Peer]bool, error) {
	want := map[socket.Peer]bool{}
	talks := make([]model.Talk, 0, chunk)
	judge := func() {
		for _, t := range o.services.orphans(talks) {
			want[socket.Peer{Cookie: t.Socket, Proto: t.Proto, To: t.Back}] = true
		}
		talks = talks[:0]
	}
	err := o.talks(func(t model.Talk) bool {
		if (d.all || d.ends[t.Back]) && (t.Proto == model.ProtoUDP || t.Proto == model.ProtoTCP && o.tcp) {
			if talks = append(talks, t); len(talks) == chunk {
				judge()
			}
		}
		return true
	})
	judge()
	return want, err
}
