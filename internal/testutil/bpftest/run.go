package bpftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Verdicts of a program.
const (
	Pass     uint32 = 0 // TC_ACT_OK
	Drop     uint32 = 2 // TC_ACT_SHOT
	Redirect uint32 = 7 // TC_ACT_REDIRECT

	XDPDrop     uint32 = 1
	XDPPass     uint32 = 2
	XDPTX       uint32 = 3
	XDPRedirect uint32 = 4
)

// Of `struct __sk_buff` (linux/bpf.h), as BPF_PROG_RUN takes it.
const (
	skbSize    = 192
	skbMark    = 8
	skbIngress = 36
	skbIfIndex = 40
	skbGSOSize = 176
)

// Packet is a frame and what the kernel knows besides.
type Packet struct {
	Frame   []byte
	IfIndex int
	Ingress int // device by which the node took in what it forwards, 0: its own packet
	Mark    uint32
	GSOSize uint32
	Outer   *Outer // not nil: it came out of the tunnel
}

// What BPF_PROG_RUN cannot do everywhere.
var (
	ErrNoIngress = errors.New("this kernel runs no program on a packet that it would forward")
	ErrNoTunnel  = errors.New("this kernel gives no packet the outer source that a tunnel would")
)

// Run runs a program on a frame that came in (or leaves) by a device, and returns its verdict and the frame after it.
func (e *Env) Run(prog string, ifindex int, frame []byte) (verdict uint32, out []byte, err error) {
	verdict, out, _, err = e.RunPacket(prog, Packet{Frame: frame, IfIndex: ifindex})
	return verdict, out, err
}

// RunPacket is Run with more of the packet's context; mark is the packet's after the program.
func (e *Env) RunPacket(prog string, p Packet) (verdict uint32, out []byte, mark uint32, err error) {
	pr := e.Prog(prog)
	err = e.NS.Do(func() error {
		var err error
		verdict, out, mark, err = e.run(pr, prog, p)
		return err
	})
	return verdict, out, mark, err
}

// run is one BPF_PROG_RUN, on a thread that is in the namespace.
func (e *Env) run(pr *ebpf.Program, name string, p Packet) (verdict uint32, out []byte, mark uint32, err error) {
	var before, after [skbSize]byte
	binary.NativeEndian.PutUint32(before[skbMark:], p.Mark)
	binary.NativeEndian.PutUint32(before[skbIngress:], uint32(p.Ingress))
	binary.NativeEndian.PutUint32(before[skbIfIndex:], uint32(p.IfIndex))
	binary.NativeEndian.PutUint32(before[skbGSOSize:], p.GSOSize)
	if p.Outer != nil {
		if pr, err = e.tunneled(name, *p.Outer); err != nil {
			return 0, nil, 0, fmt.Errorf("set outer header: %w", err)
		}
	}
	// With room for what a program adds; the kernel refuses frames shorter than an Ethernet header.
	opts := ebpf.RunOptions{Data: p.Frame, DataOut: make([]byte, len(p.Frame)+256)}
	if pr.Type() != ebpf.XDP { // before there is an skb there is none of its fields
		opts.Context, opts.ContextOut = before[:], after[:]
	}
	verdict, err = pr.Run(&opts)
	switch {
	case p.Ingress != 0 && errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w: %w", ErrNoIngress, err) // or the frame is too short
	case err == nil && p.Outer != nil && verdict == noKey:
		err = ErrNoTunnel
	}
	if err != nil {
		return 0, nil, 0, fmt.Errorf("run %s: %w", name, err)
	}
	return verdict, opts.DataOut, binary.NativeEndian.Uint32(after[skbMark:]), nil
}

// MustRun is Run that fails the test on errors.
func (e *Env) MustRun(prog string, ifindex int, frame []byte) (verdict uint32, out []byte) {
	e.t.Helper()
	verdict, out, err := e.Run(prog, ifindex, frame)
	e.must(err)
	return verdict, out
}

// Bench runs a program many times on the same frame and returns the mean time of one run. What the program rewrites
// stays rewritten from one run to the next.
func (e *Env) Bench(prog string, ifindex int, frame []byte, repeat int) (time.Duration, error) {
	took, _, err := e.BenchProgram(e.Prog(prog), ifindex, frame, repeat)
	return took / time.Duration(repeat), err
}

// BenchProgram does so with a program that need not be one of the objects', and returns the time of all runs together and
// the last one's verdict.
func (e *Env) BenchProgram(pr *ebpf.Program, ifindex int, frame []byte, repeat int) (took time.Duration, verdict uint32, err error) {
	var ctx [skbSize]byte
	binary.NativeEndian.PutUint32(ctx[skbIfIndex:], uint32(ifindex))
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx[:], Repeat: uint32(repeat)}
	err = e.NS.Do(func() error {
		var before, after unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
			return err
		}
		var err error
		if verdict, err = pr.Run(&opts); err != nil {
			return err
		}
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after); err != nil {
			return err
		}
		took = time.Duration(after.Nano() - before.Nano())
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("run %s: %w", pr, err)
	}
	return took, verdict, nil
}
