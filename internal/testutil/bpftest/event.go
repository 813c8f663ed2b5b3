package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/hypha-net/hypha/bpf/maps"
)

const ringSize = 64 << 10 // bytes; 472 events

func (e *Env) openRings() error {
	for cpu := range e.Maps.EventsV1.MaxEntries() {
		ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringSize})
		if err != nil {
			return err
		}
		e.t.Cleanup(func() { _ = ring.Close() })
		if err := e.Maps.EventsV1.Update(&cpu, ring, ebpf.UpdateAny); err != nil {
			return err
		}
		e.rings = append(e.rings, ring)
	}
	return nil
}

// Events takes what the programs told since the last call, in order of time per CPU.
func (e *Env) Events() []maps.Event {
	e.t.Helper()
	var out []maps.Event
	for _, ring := range e.rings {
		events, err := drain(ring)
		e.must(err)
		out = append(out, events...)
	}
	return out
}

func drain(ring *ebpf.Map) (out []maps.Event, err error) {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	r.SetDeadline(time.Now().Add(-time.Second))
	for {
		rec, err := r.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var ev maps.Event
		if err := binary.Read(bytes.NewReader(rec.RawSample), binary.NativeEndian, &ev); err != nil {
			return nil, err
		}
		out = append(out, ev)
	}
}

// Counts are the programs' own counters of events, summed over CPUs.
func (e *Env) Counts() (stored, lost uint64) {
	e.t.Helper()
	var key uint32
	var per []maps.EventCount
	e.must(e.Maps.EventCountV1.Lookup(&key, &per))
	for _, c := range per {
		stored += c.Stored
		lost += c.Lost
	}
	return stored, lost
}

// Metric is the packet counter of a drop reason (0 = forwarded) over all directions and CPUs.
func (e *Env) Metric(reason uint8) (packets uint64) {
	e.t.Helper()
	for dir := range uint32(3) {
		key := uint32(reason)<<2 | dir
		var per []maps.Metric
		e.must(e.Maps.MetricsV1.Lookup(&key, &per))
		for _, m := range per {
			packets += m.Count
		}
	}
	return packets
}
