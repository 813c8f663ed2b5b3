package main

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hypha-net/hypha/bpf/host"
)

// A program rewrites its packet, and BPF_PROG_RUN runs it again on what is left. So a small program goes before: it makes the
// packet anew, of the next flow, and jumps to the program that is measured, or to an empty one.

// Of an Ethernet frame that holds an IPv4 packet without options.
const (
	clientLow  = 28 // low half of the source address
	destAt     = 30
	sourcePort = 34
	udpEnd     = 42
	tcpEnd     = 54
)

// Of struct __sk_buff (linux/bpf.h).
const (
	skbData    = 76
	skbDataEnd = 80
)

// The programs to jump to.
const (
	jumpMeasured = iota
	jumpEmpty
	jumps
)

// programs is the array to jump by.
func (w *town) programs(t testing.TB) (*ebpf.Map, error) {
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: jumps})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = next.Close() })
	empty, err := helper(t, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
	if err != nil {
		return nil, err
	}
	for i, p := range []*ebpf.Program{jumpMeasured: w.Prog(host.FromNetdev), jumpEmpty: empty} {
		if err := next.Put(uint32(i), p); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func helper(t testing.TB, all asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: all})
	if err != nil {
		return nil, fmt.Errorf("load a helper of the benchmark: %w", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, nil
}

// newMaker makes the programs that go before, by where they jump to; both count the same flows.
func newMaker(t testing.TB, w *town, k traffic, kind int, frame []byte, next *ebpf.Map) (out [jumps]*ebpf.Program, err error) {
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return out, err
	}
	t.Cleanup(func() { _ = count.Close() })
	for to := range out {
		if out[to], err = helper(t, w.maker(k, kind, frame, count, next, to)); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (w *town) maker(k traffic, kind int, frame []byte, count, next *ebpf.Map, to int) asm.Instructions {
	size := tcpEnd
	if k.udp {
		size = udpEnd
	}
	all := asm.Instructions{ // R6 the context, R7 the number of the flow, R2 the packet
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.LoadMapPtr(asm.R1, count.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord), asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	}
	if k.flows > 0 {
		all = append(all, asm.And.Imm(asm.R7, int32(k.flows-1)))
	}
	all = append(all, asm.Add.Imm(asm.R7, int32(firstOf(kind))),
		asm.LoadMem(asm.R2, asm.R6, skbData, asm.Word), asm.LoadMem(asm.R3, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, int32(size)), asm.JGT.Reg(asm.R4, asm.R3, "out"))
	for at := 0; at < size; at += 4 {
		if size-at < 4 {
			all = append(all, asm.StoreImm(asm.R2, int16(at), int64(binary.NativeEndian.Uint16(frame[at:])), asm.Half))
			break
		}
		all = append(all, asm.StoreImm(asm.R2, int16(at), int64(int32(binary.NativeEndian.Uint32(frame[at:]))), asm.Word))
	}
	all = append(all,
		asm.Mov.Reg(asm.R5, asm.R7), asm.And.Imm(asm.R5, 1<<portBits-1), asm.Add.Imm(asm.R5, firstPort),
		asm.HostTo(asm.BE, asm.R5, asm.Half), asm.StoreMem(asm.R2, sourcePort, asm.R5, asm.Half),
		asm.Mov.Reg(asm.R5, asm.R7), asm.RSh.Imm(asm.R5, portBits), asm.Add.Imm(asm.R5, firstClient&0xffff),
		asm.HostTo(asm.BE, asm.R5, asm.Half), asm.StoreMem(asm.R2, clientLow, asm.R5, asm.Half))
	if !k.straight {
		first := uint32(firstVIP)
		all = append(all, asm.Mov.Reg(asm.R5, asm.R7), asm.Mod.Imm(asm.R5, int32(w.vips)), asm.Add.Imm(asm.R5, int32(first)),
			asm.HostTo(asm.BE, asm.R5, asm.Word), asm.StoreMem(asm.R2, destAt, asm.R5, asm.Word))
	}
	return append(all,
		asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, next.FD()), asm.Mov.Imm(asm.R3, int32(to)), asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), asm.Return())
}
