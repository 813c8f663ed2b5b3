package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// tunnelKey mirrors `struct bpf_tunnel_key` (linux/bpf.h) up to the local address, which is where the kernel puts the
// outer source of a packet that came in.
type tunnelKey struct {
	ID     uint32
	Remote [16]byte
	TOS    uint8
	TTL    uint8
	Ext    uint16
	Label  uint32
	Local  [16]byte
}

const (
	flagIPv6 = 1              // BPF_F_TUNINFO_IPV6
	noKey    = math.MaxUint32 // verdict of a program that could not set its key: older kernels' has no local address
)

// RunTunneled runs a program on a frame that came out of the tunnel from a node. BPF_PROG_RUN cannot give a packet its
// outer header, so a small program sets a key whose local address is the sender, and goes on into the one under test.
func (e *Env) RunTunneled(prog string, ifindex int, outer netip.Addr, vni uint32, frame []byte) (verdict uint32, out []byte, err error) {
	e.t.Helper()
	key := tunnelKey{ID: vni}
	var flags int32
	if outer.Is4() {
		a := outer.As4()
		binary.NativeEndian.PutUint32(key.Local[:], binary.BigEndian.Uint32(a[:]))
	} else {
		key.Local = outer.As16()
		flags = flagIPv6
	}
	var raw bytes.Buffer
	if err := binary.Write(&raw, binary.NativeEndian, key); err != nil {
		return 0, nil, err
	}
	entry, err := e.tunnelEntry(prog, raw.Bytes(), flags)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, entry.Close()) }()
	e.progs["tunneled"] = entry
	defer delete(e.progs, "tunneled")
	verdict, out, err = e.Run("tunneled", ifindex, frame)
	if err == nil && verdict == noKey {
		err = ErrNoTunnel
	}
	return verdict, out, err
}

func (e *Env) tunnelEntry(prog string, key []byte, flags int32) (_ *ebpf.Program, err error) {
	keys, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(key)), MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: key}}})
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
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, keys.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Mov.Imm(asm.R3, int32(len(key))),
		asm.Mov.Imm(asm.R4, flags),
		asm.FnSkbSetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
}
