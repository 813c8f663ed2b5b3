package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/test/bench/stat"
	"github.com/hypha-net/hypha/test/bench/task"
)

// Row 8: what policy adds to from_pod, by BPF_PROG_RUN. Every figure is a difference between two arms of the same world and
// round: with the workload under a policy set, and under none (set 0, which nothing is asked for).

// sizes are how many entries the policy has.
var sizes = []int{0, 100, 1000, 10000, 60000}

// Policy sets of a world, all judged for ingress of the second workload.
const (
	setNone  = 0
	setPeers = 2  // a row for each of n peers, the packet's own among them, one entry each
	setAny   = 3  // the packet's peer has no row among the n: the row for any peer decides
	setList  = 4  // the peer's row holds 16 entries, of which the last decides
	setLong  = 5  // the peer's row is a list of n ports in the overflow map
	setBoth  = 12 // setPeers for ingress, and the first workload has an egress policy too
)

// cases are the rows of the table.
var cases = []struct {
	set  uint32
	what string
	long bool // only where there are entries to make a long list of
}{
	{set: setPeers, what: "n peers with an entry each, the packet's one of them"},
	{set: setAny, what: "n other peers, the row for any peer decides"},
	{set: setList, what: "n peers, and 16 entries for the packet's, the last decides"},
	{set: setLong, what: "one peer, n ports: the overflow map", long: true},
	{set: setBoth, what: "n peers, judged twice: egress of one end, ingress of the other"},
}

const (
	benchPort  = 30001
	benchClass = 12 // of the first workload's identity in worlds that have peers
)

// judge is a world of one size.
type judge struct {
	*bpftest.World
	n     int
	frame []byte
	fresh *ebpf.Program // makes the packet's connection unknown, then runs from_pod
	find  *ebpf.Program // looks the connection up and does nothing else
	reach *ebpf.Program // find without the look-up
	empty *ebpf.Program
}

// An arm of a world: a program run under a set, on a connection that is new each time or on record.
type programArm struct {
	what string // "new", "established", or the name of a helper
	set  uint32
}

// programTimes are what one run took in each round, in ns.
type programTimes struct {
	n   int
	arm map[programArm][]float64
}

// over is what an arm costs more than another: the difference of their fastest rounds, which what else the machine does
// touches least, and the median of the paired differences.
func (p *programTimes) over(a, b programArm) (fastest, middle float64) {
	x, y := p.arm[a], p.arm[b]
	paired := make([]float64, len(x))
	for i := range x {
		paired[i] = x[i] - y[i]
	}
	return slices.Min(x) - slices.Min(y), stat.Median(paired)
}

func measurePrograms(rounds, repeat int, log io.Writer) (out []*programTimes, err error) {
	err = task.Run(func(t testing.TB) error {
		var worlds []*judge
		for _, n := range sizes {
			_, _ = fmt.Fprintf(log, "policy of %d entries\n", n)
			w, err := newJudge(t, n)
			if err != nil {
				return err
			}
			worlds = append(worlds, w)
			out = append(out, &programTimes{n: n, arm: map[programArm][]float64{}})
		}
		for r := range rounds + 1 { // the first one warms up
			for i := range worlds {
				if r%2 == 1 {
					i = len(worlds) - 1 - i
				}
				into := out[i]
				if r == 0 {
					into = &programTimes{arm: map[programArm][]float64{}}
				}
				if err := worlds[i].round(into, repeat); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return out, err
}

func newJudge(t testing.TB, n int) (*judge, error) {
	cfg := bpftest.Defaults()
	cfg.Flags = bpftest.AllOff | maps.ConfigRedirectPeer
	w := &judge{World: bpftest.NewWorld(t, bpftest.Config{Config: cfg, MapSize: 1 << 18}), n: n}
	for _, p := range []*bpftest.Pod{&w.Pod1, &w.Pod2} { // all MACs equal: a frame that was delivered can be sent again
		p.HostMAC, p.MAC = w.Pod1.MAC, w.Pod1.MAC
	}
	allow := maps.PolicyValue{DefaultVerdict: maps.VerdictAllow}
	deny := maps.PolicyValue{DefaultVerdict: maps.VerdictDeny}
	entry := func(port uint16) maps.PolicyEntry {
		return maps.PolicyEntry{Proto: 17, PortLo: port, PortHi: port, Verdict: maps.VerdictAllow, Rule: uint32(port)}
	}
	var list []maps.PolicyEntry
	for i := range uint16(15) {
		list = append(list, entry(100+i))
	}
	list = append(list, entry(benchPort))
	peer := uint32(maps.ClassAny) // without entries the row for any peer is all there is
	if n > 0 {
		peer = benchClass
	}
	w.Put(w.Maps.ClassV1, uint32(bpftest.IDPod1), uint32(benchClass))
	for i := range n {
		w.Put(w.Maps.ClassV1, uint32(5000+i), uint32(5000+i))
		w.PutPolicy(setPeers, uint32(5000+i), maps.PolicyIngress, deny, entry(uint16(1+i)))
		w.PutPolicy(setAny, uint32(5000+i), maps.PolicyIngress, deny, entry(uint16(1+i)))
	}
	w.PutPolicy(setPeers, peer, maps.PolicyIngress, deny, entry(benchPort))
	w.PutPolicy(setBoth, peer, maps.PolicyIngress, deny, entry(benchPort))
	w.PutPolicy(setAny, maps.ClassAny, maps.PolicyIngress, allow)
	w.PutPolicy(setList, peer, maps.PolicyIngress, deny, list...)
	w.PutPolicy(1, maps.ClassAny, maps.PolicyEgress, deny, entry(benchPort))
	long := deny
	long.Flags = maps.PolicyOverflow
	w.PutPolicy(setLong, benchClass, maps.PolicyIngress, long)
	for i := range n {
		port := uint16(benchPort + i) // wraps around: every port once
		w.Put(w.Maps.PolicyOverflowV1, maps.PolicyOverflowKey{Prefixlen: maps.PolicyOverflowExactPort, Set: setLong, Class: benchClass,
			Dir: uint8(maps.PolicyIngress), Proto: 17, Port: port>>8 | port<<8}, entry(port))
	}
	w.frame = w.Pod1.Flow(w.Pod2.Addr(0), 40000, benchPort).UDP()
	return w, w.assemble(t)
}

// govern puts the receiving workload under a set, and the sending one under an egress policy or none.
func (w *judge) govern(set uint32) {
	w.Pod1.Set, w.Pod2.Set = setNone, set
	if set == setBoth {
		w.Pod1.Set = 1
	}
	w.PutPod(w.Pod1)
	w.PutPod(w.Pod2)
}

// assemble makes the small programs. They need the key of the packet's connection, so it is put on record first.
func (w *judge) assemble(t testing.TB) error {
	w.govern(setNone)
	if verdict, _ := w.MustRun(pod.FromPod, w.Pod1.Dev, w.frame); verdict != bpftest.Redirect {
		return fmt.Errorf("the packet's verdict is %d", verdict)
	}
	var keys *ebpf.Map
	for k := range w.Connections() {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: w.Maps.CtV1.KeySize(), MaxEntries: 1})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = m.Close() })
		if err := m.Put(uint32(0), k); err != nil {
			return err
		}
		keys = m
	}
	if keys == nil {
		return errors.New("the packet's connection is not on record")
	}
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = next.Close() })
	if err := next.Put(uint32(0), w.Prog(pod.FromPod)); err != nil {
		return err
	}
	key := asm.Instructions{ // R6 the context, R7 the key
		asm.Mov.Reg(asm.R6, asm.R1), asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.LoadMapPtr(asm.R1, keys.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R7, asm.R0),
	}
	onTable := func(fn asm.BuiltinFunc) asm.Instructions {
		return asm.Instructions{asm.LoadMapPtr(asm.R1, w.Maps.CtV1.FD()), asm.Mov.Reg(asm.R2, asm.R7), fn.Call()}
	}
	jump := asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, next.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call()}
	out := asm.Instructions{asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), asm.Return()}
	for _, p := range []struct {
		to    **ebpf.Program
		parts []asm.Instructions
	}{
		{&w.fresh, []asm.Instructions{key, onTable(asm.FnMapDeleteElem), jump, out}},
		{&w.find, []asm.Instructions{key, onTable(asm.FnMapLookupElem), out}},
		{&w.reach, []asm.Instructions{key, out}},
		{&w.empty, []asm.Instructions{{asm.Mov.Imm(asm.R0, 0), asm.Return()}}},
	} {
		var all asm.Instructions
		for _, part := range p.parts {
			all = append(all, part...)
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: all})
		if err != nil {
			return fmt.Errorf("load a helper of the benchmark: %w", err)
		}
		t.Cleanup(func() { _ = prog.Close() })
		*p.to = prog
	}
	return nil
}

// round measures every arm once.
func (w *judge) round(out *programTimes, repeat int) error {
	var failed error
	run := func(arm programArm, p *ebpf.Program, want uint32) {
		took, verdict, err := w.BenchProgram(p, w.Pod1.Dev, w.frame, repeat)
		if err == nil && verdict != want {
			err = fmt.Errorf("verdict %d instead of %d with %d entries", verdict, want, w.n)
		}
		failed = errors.Join(failed, err)
		out.arm[arm] = append(out.arm[arm], float64(took.Nanoseconds())/float64(repeat))
	}
	const none = ^uint32(0)
	run(armEmpty, w.empty, bpftest.Pass)
	run(armFind, w.find, none)
	run(armReach, w.reach, none)
	w.govern(setNone)
	run(programArm{"new", setNone}, w.fresh, bpftest.Redirect)
	run(programArm{"established", setNone}, w.Prog(pod.FromPod), bpftest.Redirect)
	for _, c := range cases {
		if c.long && w.n == 0 {
			continue
		}
		w.govern(c.set)
		run(programArm{"new", c.set}, w.fresh, bpftest.Redirect)
		if c.set == setPeers {
			run(programArm{"established", c.set}, w.Prog(pod.FromPod), bpftest.Redirect)
		}
	}
	return failed
}

// Arms of the helpers.
var armEmpty, armFind, armReach = programArm{what: "empty"}, programArm{what: "find"}, programArm{what: "reach"}
