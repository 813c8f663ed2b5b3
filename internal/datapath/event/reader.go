// Package event reads what the datapath tells: the records of the per-CPU rings, as model.Event, and how many records
// found no room. It allocates nothing per event.
package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
)

const (
	// poll bounds how long a record may lie in its ring when the datapath sent no wake-up with it. Each wait is a blocking
	// system call that the runtime's monitor has to notice: ten a second and CPU were most of what an idle agent used.
	poll = time.Second
	// batch is how long a reader that has emptied its ring lets records gather. The kernel wakes it only for the first one after
	// it had caught up: waiting for each would cost a wake-up, with its interrupt and its switch, for every record of a busy ring.
	batch = 5 * time.Millisecond
	// lossEvery is how often the counters of lost records are looked at.
	lossEvery = time.Second
)

// Deps are what New needs from others.
type Deps struct {
	Log  *slog.Logger
	Maps *maps.Maps
}

// Reader reads the rings of one agent. The rings remember how far they were read, so a new agent goes on where the old
// one ended.
type Reader struct {
	log  *slog.Logger
	maps *maps.Maps
	cpus []*ringbuf.Reader
	lost []uint64 // last seen counters
}

// New opens the rings. Losses count from now on.
func New(deps Deps) (*Reader, error) {
	r := &Reader{log: deps.Log, maps: deps.Maps}
	for cpu, ring := range deps.Maps.Rings() {
		rr, err := ringbuf.NewReader(ring)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open event ring of CPU %d: %w", cpu, err), r.close())
		}
		r.cpus = append(r.cpus, rr)
	}
	counts, err := deps.Maps.EventCounts()
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	for _, c := range counts {
		r.lost = append(r.lost, c.Lost)
	}
	return r, nil
}

func (r *Reader) close() error {
	var failed error
	for _, rr := range r.cpus {
		failed = errors.Join(failed, rr.Close())
	}
	return failed
}

// Run hands every event to got, and every loss to lost, until ctx ends; then it returns nil, and the reader is closed.
// got is called by one goroutine per CPU, so concurrently, in order for each CPU. A slow got fills the rings: then
// records are lost and counted, and no packet is held up.
func (r *Reader) Run(ctx context.Context, got func(model.Event), lost func(cpu int, n uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(r.cpus))
	for cpu, rr := range r.cpus {
		wg.Go(func() {
			if errs[cpu] = r.read(ctx, cpu, rr, got, lost); errs[cpu] != nil {
				cancel()
			}
		})
	}
	wg.Go(func() {
		<-ctx.Done()
		for _, rr := range r.cpus {
			_ = rr.Flush() // a quiet ring wakes its reader
		}
	})
	wg.Go(func() { r.watchLoss(ctx, lost) })
	wg.Wait()
	return errors.Join(errors.Join(errs...), r.close())
}

func (r *Reader) read(ctx context.Context, cpu int, rr *ringbuf.Reader, got func(model.Event), lost func(int, uint64)) error {
	d := decoder{cpu: cpu}
	var rec ringbuf.Record
	var ev model.Event
	rr.SetDeadline(time.Now().Add(poll))
	for n := 0; ; n++ {
		if n&0xff == 0 && ctx.Err() != nil {
			return nil
		}
		switch err := rr.ReadInto(&rec); {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			if ctx.Err() != nil {
				return nil
			}
			rr.SetDeadline(time.Now().Add(poll))
			d.tick()
			continue
		default:
			return fmt.Errorf("read event ring of CPU %d: %w", cpu, err)
		}
		if n&0xfff == 0 {
			d.tick()
		}
		if !d.decode(rec.RawSample, &ev) {
			lost(cpu, 1) // a program of another version made it
			continue
		}
		got(ev)
		if rr.AvailableBytes() == 0 {
			time.Sleep(batch)
		}
	}
}

// watchLoss turns counters into losses.
func (r *Reader) watchLoss(ctx context.Context, lost func(int, uint64)) {
	t := time.NewTicker(lossEvery)
	defer t.Stop()
	unread := fault.New(r.log, "Could not read how many events were lost", "Lost events are counted again")
	for {
		select {
		case <-ctx.Done():
			unread.Note(r.countLoss(lost))
			return
		case <-t.C:
			unread.Note(r.countLoss(lost))
		}
	}
}

func (r *Reader) countLoss(lost func(int, uint64)) error {
	counts, err := r.maps.EventCounts()
	if err != nil {
		return err
	}
	for cpu, c := range counts {
		if n := c.Lost - r.lost[cpu]; n != 0 {
			lost(cpu, n)
			r.lost[cpu] = c.Lost
		}
	}
	return nil
}
