package event

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
)

// producer is a program that puts its packet's bytes into the ring of its CPU, as one record, and counts.
func producer(t testing.TB, m *maps.Maps) *ebpf.Program {
	t.Helper()
	all := m.Replacements()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		// r8 = the ring of this CPU
		asm.FnGetSmpProcessorId.Call(),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, all[maps.Events].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.Mov.Reg(asm.R8, asm.R0),
		// r7 = this CPU's counters
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, all[maps.EventCount].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.Mov.Reg(asm.R7, asm.R0),
		// copy the packet to the stack
		asm.Mov.Reg(asm.R1, asm.R9), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -512+48),
		asm.Mov.Imm(asm.R4, int32(recordSize)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "exit"),
		asm.Mov.Reg(asm.R1, asm.R8), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -512+48),
		asm.Mov.Imm(asm.R3, int32(recordSize)), asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "stored"),
		asm.LoadMem(asm.R1, asm.R7, 8, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R7, 8, asm.R1, asm.DWord),
		asm.Ja.Label("exit"),
		asm.LoadMem(asm.R1, asm.R7, 0, asm.DWord).WithSymbol("stored"), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R7, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func openMaps(t testing.TB, ring uint32) *maps.Maps {
	t.Helper()
	m, err := maps.Open(maps.Config{Dir: pintest.Dir(t), CT: 4096, NAT: 4096, Ring: ring}, maps.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func produce(t testing.TB, p *ebpf.Program, n uint32) {
	t.Helper()
	if _, err := p.Run(&ebpf.RunOptions{Data: record(full), Repeat: n}); err != nil {
		t.Fatal(err)
	}
}

// Every record is read or counted as lost, across a restart of the reader too.
func TestStoredPlusLostIsAll(t *testing.T) {
	m := openMaps(t, 64<<10)
	p := producer(t, m)
	const before, during = 5000, 200_000
	type sum struct {
		sync.Mutex
		got, lost uint64
	}
	var s sum
	run := func(ctx context.Context, r *Reader) chan error {
		done := make(chan error, 1)
		go func() {
			done <- r.Run(ctx, func(e model.Event) {
				if e.Rule != 300 || e.Type != 1 {
					t.Errorf("event %+v", e)
				}
				s.Lock()
				s.got++
				s.Unlock()
			}, func(_ int, n uint64) { s.Lock(); s.lost += n; s.Unlock() })
		}()
		return done
	}
	r, err := New(Deps{Log: slog.New(slog.DiscardHandler), Maps: m})
	if err != nil {
		t.Fatal(err)
	}
	produce(t, p, before) // more than the ring holds, before anybody reads
	for round := range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		done := run(ctx, r)
		produce(t, p, during)
		want := func() uint64 {
			counts, err := m.EventCounts()
			if err != nil {
				t.Fatal(err)
			}
			var stored, lost uint64
			for _, c := range counts {
				stored, lost = stored+c.Stored, lost+c.Lost
			}
			if all := uint64(before + (round+1)*during); stored+lost != all {
				t.Fatalf("%d stored, %d lost of %d", stored, lost, all)
			}
			return stored
		}()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			s.Lock()
			ok := s.got == want
			s.Unlock()
			if ok {
				break
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if all := uint64(before + (round+1)*during); s.got != want || s.got+s.lost != all {
			t.Fatalf("round %d: %d read, %d lost of %d (%d stored)", round, s.got, s.lost, all, want)
		}
		if s.lost == 0 && round == 0 {
			t.Error("the ring never overflowed: the test tests nothing")
		}
		if r, err = New(Deps{Log: slog.New(slog.DiscardHandler), Maps: m}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// BenchmarkRead measures the whole way from a full ring to the callback, one CPU's.
func BenchmarkRead(b *testing.B) {
	m := openMaps(b, 16<<20)
	p := producer(b, m)
	const burst = 50_000
	events := 0
	for b.Loop() {
		b.StopTimer()
		r, err := New(Deps{Log: slog.New(slog.DiscardHandler), Maps: m})
		if err != nil {
			b.Fatal(err)
		}
		produce(b, p, burst)
		ctx, cancel := context.WithCancel(context.Background())
		var n atomic.Int64
		b.StartTimer()
		err = r.Run(ctx, func(model.Event) {
			if n.Add(1) == burst {
				b.StopTimer() // what follows is the wait for the readers to end
				cancel()
			}
		}, func(int, uint64) {})
		b.StartTimer()
		if err != nil {
			b.Fatal(err)
		}
		events += burst
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
