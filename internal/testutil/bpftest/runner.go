package bpftest

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/maps"
)

// Runner runs many packets: it stays on one CPU in the namespace, so that a packet is one system call and what it told comes
// by one ring, in order. Only the goroutine that Runner was given to may use it.
type Runner struct {
	e    *Env
	ring *ringbuf.Reader
	rec  ringbuf.Record
}

// Result is what became of a packet.
type Result struct {
	Verdict uint32
	Frame   []byte
	Mark    uint32
	Events  []maps.Event
}

// Runner calls fn with a runner, on a thread of its own.
func (e *Env) Runner(fn func(*Runner) error) error {
	return e.NS.Do(func() error {
		cpu, err := stay()
		if err != nil {
			return err
		}
		ring, err := ringbuf.NewReader(e.rings[cpu])
		if err != nil {
			return err
		}
		ring.SetDeadline(time.Now().Add(-time.Second))
		return errors.Join(fn(&Runner{e: e, ring: ring}), ring.Close())
	})
}

// stay pins the thread to the first CPU that it may run on.
func stay() (cpu int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	for !set.IsSet(cpu) {
		cpu++
	}
	set.Zero()
	set.Set(cpu)
	return cpu, unix.SchedSetaffinity(0, &set)
}

// Run runs a program on a packet.
func (r *Runner) Run(prog string, p Packet) (res Result, err error) {
	res.Verdict, res.Frame, res.Mark, err = r.e.run(r.e.Prog(prog), prog, p)
	if err != nil {
		return res, err
	}
	res.Events, err = r.events()
	return res, err
}

func (r *Runner) events() (out []maps.Event, err error) {
	for {
		err := r.ring.ReadInto(&r.rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var ev maps.Event
		if len(r.rec.RawSample) != int(unsafe.Sizeof(ev)) {
			return nil, errors.New("an event of another size")
		}
		copy((*[unsafe.Sizeof(ev)]byte)(unsafe.Pointer(&ev))[:], r.rec.RawSample)
		out = append(out, ev)
	}
}
