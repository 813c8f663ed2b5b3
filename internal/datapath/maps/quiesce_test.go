package maps

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/hypha-net/hypha/internal/datapath/pintest"
)

// slowProgram sets byte 0 of its map, is busy for a while, then sets byte 1.
func slowProgram(t *testing.T) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	if err := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnLoop); errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("this kernel has no bpf_loop (Linux 5.17), which a program that is busy for long needs")
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	set := func(at int16) asm.Instructions {
		return asm.Instructions{asm.LoadMapValue(asm.R1, state.FD(), 0), asm.StoreImm(asm.R1, at, 1, asm.Byte)}
	}
	u64 := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	fn := func(name string, linkage btf.FuncLinkage, params ...btf.FuncParam) *btf.Func { // bpf_loop wants to know its callback
		return &btf.Func{Name: name, Linkage: linkage, Type: &btf.FuncProto{Return: u64, Params: params}}
	}
	body := set(0)
	body[0] = btf.WithFuncMetadata(body[0], fn("slow", btf.GlobalFunc, btf.FuncParam{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}})).WithSymbol("slow")
	body = append(body,
		asm.Mov.Imm(asm.R1, 1<<23),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("step"),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
	)
	body = append(body, set(1)...)
	body = append(body,
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
		btf.WithFuncMetadata(asm.Mov.Imm(asm.R0, 0).WithSymbol("step"), fn("step", btf.StaticFunc,
			btf.FuncParam{Name: "i", Type: u64}, btf.FuncParam{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}})),
		asm.Return(),
	)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: body})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	return prog, state
}

func TestQuiesceWaitsForRunningPrograms(t *testing.T) {
	m := open(t, small(filepath.Join(pintest.Dir(t), "maps")))
	prog, state := slowProgram(t)
	read := func() (v [8]byte) {
		must(t, state.Lookup(uint32(0), &v))
		return v
	}
	caught, tries := 0, 0
	for ; caught < 5 && tries < 2000; tries++ { // on a busy machine this test may look too late
		must(t, state.Put(uint32(0), [8]byte{}))
		done := make(chan error, 1)
		go func() {
			_, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
			done <- err
		}()
		for end := time.Now().Add(10 * time.Second); read()[0] == 0 && time.Now().Before(end); {
		}
		was := read()
		must(t, m.Quiesce())
		is := read()
		must(t, <-done)
		if was[0] == 1 && was[1] == 0 {
			caught++
			if is[1] == 0 {
				t.Fatal("Quiesce returned while a program that ran before it was still running")
			}
		}
	}
	if caught == 0 {
		t.Fatalf("the program was never seen running, of %d times", tries)
	}
}

func BenchmarkQuiesce(b *testing.B) {
	m, err := Open(small(filepath.Join(pintest.Dir(b), "maps")), Deps{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	for b.Loop() {
		if err := m.Quiesce(); err != nil {
			b.Fatal(err)
		}
	}
}
