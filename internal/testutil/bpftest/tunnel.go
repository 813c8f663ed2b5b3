package bpftest

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Of `struct bpf_tunnel_key` (linux/bpf.h), up to and with the local address, which is where the kernel puts the outer
// source of a packet that came in.
const (
	tunnelKeySize  = 44
	tunnelKeyLocal = 28
	tunnelKeyIPv6  = 1 // BPF_F_TUNINFO_IPV6

	noKey = math.MaxUint32 // verdict of a program that could not set its key: older kernels' has no local address
)

// Outer is what the tunnel says of a packet that came out of it.
type Outer struct {
	From netip.Addr
	VNI  uint32
}

// tunnel is a small program that gives packets an outer header, which BPF_PROG_RUN cannot, and goes on into the program
// under test: it sets a key whose local address is the sender.
type tunnel struct {
	entry *ebpf.Program
	keys  *ebpf.Map // flags, then the key
}

func (o Outer) row() []byte {
	row := make([]byte, 4+tunnelKeySize)
	key := row[4:]
	binary.NativeEndian.PutUint32(key, o.VNI)
	if o.From.Is4() {
		a := o.From.As4()
		binary.NativeEndian.PutUint32(key[tunnelKeyLocal:], binary.BigEndian.Uint32(a[:]))
	} else {
		a := o.From.As16()
		copy(key[tunnelKeyLocal:], a[:])
		binary.NativeEndian.PutUint32(row, tunnelKeyIPv6)
	}
	return row
}

// RunTunneled runs a program on a frame that came out of the tunnel from a node.
func (e *Env) RunTunneled(prog string, ifindex int, outer netip.Addr, vni uint32, frame []byte) (verdict uint32, out []byte, err error) {
	e.t.Helper()
	verdict, out, _, err = e.RunPacket(prog, Packet{Frame: frame, IfIndex: ifindex, Outer: &Outer{From: outer, VNI: vni}})
	return verdict, out, err
}

// tunneled is the program to run in place of `prog`, with the key set.
func (e *Env) tunneled(prog string, o Outer) (*ebpf.Program, error) {
	t := e.tunnels[prog]
	if t == nil {
		var err error
		if t, err = e.newTunnel(prog); err != nil {
			return nil, err
		}
		e.tunnels[prog] = t
	}
	return t.entry, t.keys.Put(uint32(0), o.row())
}

func (e *Env) newTunnel(prog string) (*tunnel, error) {
	keys, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4 + tunnelKeySize, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, errors.Join(err, keys.Close())
	}
	// Held open to the end: a program array lets go of its programs when the last descriptor closes.
	e.t.Cleanup(func() { _ = errors.Join(keys.Close(), next.Close()) })
	if err := next.Put(uint32(0), e.Prog(prog)); err != nil {
		return nil, err
	}
	entry, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, keys.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R4, asm.R0, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Add.Imm(asm.R2, 4),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.FnSkbSetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		return nil, err
	}
	e.t.Cleanup(func() { _ = entry.Close() })
	return &tunnel{entry: entry, keys: keys}, nil
}
