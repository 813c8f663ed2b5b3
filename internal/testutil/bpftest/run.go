package bpftest

import (
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
)

// skb mirrors the head of `struct __sk_buff` as BPF_PROG_RUN takes it (linux/bpf.h). Only mark, priority, ingress_ifindex,
// ifindex, cb, tstamp, wire_len, gso_segs and gso_size may be set.
type skb struct {
	_       [2]uint32 // len, pkt_type
	Mark    uint32
	_       [6]uint32
	Ingress uint32
	IfIndex uint32
	_       [30]uint32
	GSOSegs uint32
	_       [2]uint32
	GSOSize uint32
	_       [3]uint32
}

// Packet is a frame and what the kernel knows besides.
type Packet struct {
	Frame   []byte
	IfIndex int
	Ingress int // device by which the node took in what it forwards, 0: its own packet
	Mark    uint32
	GSOSize uint32
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
	ctx := skb{IfIndex: uint32(p.IfIndex), Ingress: uint32(p.Ingress), Mark: p.Mark, GSOSize: p.GSOSize}
	var after skb
	// With room for what a program adds; the kernel refuses frames shorter than an Ethernet header.
	opts := ebpf.RunOptions{Data: p.Frame, DataOut: make([]byte, len(p.Frame)+256), Context: ctx, ContextOut: &after}
	err = e.NS.Do(func() error {
		var err error
		verdict, err = pr.Run(&opts)
		return err
	})
	if p.Ingress != 0 && errors.Is(err, unix.EINVAL) {
		return 0, nil, 0, fmt.Errorf("run %s: %w", prog, ErrNoIngress)
	}
	if err != nil {
		return 0, nil, 0, fmt.Errorf("run %s: %w", prog, err)
	}
	return verdict, opts.DataOut, after.Mark, nil
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
	ctx := skb{IfIndex: uint32(ifindex)}
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx, Repeat: uint32(repeat)}
	var took time.Duration
	pr := e.Prog(prog)
	err := e.NS.Do(func() error {
		var before, after unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
			return err
		}
		if _, err := pr.Run(&opts); err != nil {
			return err
		}
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after); err != nil {
			return err
		}
		took = time.Duration(after.Nano() - before.Nano())
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", prog, err)
	}
	return took / time.Duration(repeat), nil
}
