package datapath_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// patience is how long an episode may take: connections that are closing live for 10 s in the kernel, in the model for ever.
const patience = 5 * time.Second

// bench runs packets through the kernel and the model.
type bench struct {
	t      testing.TB
	town   *town
	o      *oracle
	run    *bpftest.Runner
	tally  tally
	faults []error // of this episode
}

// tally counts what was tried.
type tally struct {
	packets map[string]int // by program
	passed  int
	refused map[uint8]int // by reason
	short   int           // frames that the kernel runs no program on
	against int           // passed though the model refuses
	slow    int           // episodes given up because they took too long
}

// episode is a fresh start: n packets of `prog`, and others as they come.
func (b *bench) episode(r *rand.Rand, prog string, n int, mode mode) error {
	b.o = &oracle{town: b.town, memory: newMemory()}
	b.faults = nil
	if err := b.forget(); err != nil {
		return err
	}
	b.town.legislate(r)
	start := time.Now()
	g := newGen(r, b.o, prog, mode)
	for done := 0; done < n; {
		s := g.next()
		if err := b.one(g, s); err != nil {
			return err
		}
		if s.prog == prog {
			done++
		}
		if r.IntN(300) == 0 {
			b.town.legislate(r)
		}
	}
	b.tables()
	if time.Since(start) > patience {
		b.tally.slow++
		b.tally.packets[prog] -= n
		b.faults = nil
	}
	return errors.Join(b.faults...)
}

// forget empties the kernel's memory of packets.
func (b *bench) forget() error {
	m := b.town.e.Maps
	if err := wipe[maps.CTKey, maps.CTValue](m.CtV1); err != nil {
		return err
	}
	if err := wipe[maps.FragKey, maps.FragValue](m.FragV1); err != nil {
		return err
	}
	return wipe[maps.NATKey, maps.NATValue](m.NatV2)
}

// tables compares how many conversations are on record.
func (b *bench) tables() {
	if have, want := len(b.town.e.Connections()), len(b.o.conns); have != want {
		b.faults = append(b.faults, fmt.Errorf("%d connections on record, the model has %d", have, want))
	}
}

func (b *bench) one(g *gen, s shot) error {
	res, err := b.run.Run(s.prog, s.Packet)
	if errors.Is(err, unix.EINVAL) {
		b.tally.short++
		if _, why := read(s.Frame); why == 0 {
			b.fault(s, fmt.Errorf("the kernel takes no such packet: %w", err))
		}
		return nil
	}
	if err != nil {
		return err
	}
	b.tally.packets[s.prog]++
	f := b.model(s)
	if err := b.compare(s, f, res); err != nil {
		b.fault(s, err)
	}
	if f.act == refused {
		b.tally.refused[f.why]++
	} else if f.act != quiet {
		b.tally.passed++
		g.saw(s, res.Frame, f)
	}
	return nil
}

func (b *bench) model(s shot) fate {
	switch s.prog {
	case pod.FromPod:
		return b.o.fromPod(s.Packet)
	case pod.ToPod:
		return b.o.toPod(s.Packet)
	case overlay.FromOverlay:
		return b.o.fromOverlay(s.Packet)
	case overlay.ToOverlay:
		return b.o.toOverlay(s.Packet)
	case host.FromNetdev:
		return b.o.fromNetdev(s.Packet)
	}
	panic(s.prog)
}

func (b *bench) fault(s shot, err error) {
	if len(b.faults) < 3 {
		b.faults = append(b.faults, fmt.Errorf("%s, %s: device %d, ingress %d, mark %#x, outer %+v: %w\n%s", s.prog, s.story, s.IfIndex, s.Ingress,
			s.Mark, s.Outer, err, hex.Dump(s.Frame[:min(len(s.Frame), 160)])))
	}
}

func (b *bench) compare(s shot, f fate, res bpftest.Result) error {
	want := map[action]uint32{refused: bpftest.Drop, quiet: bpftest.Drop, toPod: bpftest.Redirect, toStack: bpftest.Pass,
		toTunnel: bpftest.Redirect, toNet: bpftest.Redirect, reply: bpftest.Redirect}[f.act]
	switch {
	case f.back != nil:
		want = bpftest.Redirect
		f.frame, f.mark = f.back, markDeliver
	case f.act == toTunnel && s.prog == overlay.ToOverlay:
		want = bpftest.Pass
	}
	drops := bpftest.Drops(res.Events)
	if res.Verdict != want {
		if want == bpftest.Drop {
			b.tally.against++
		}
		return fmt.Errorf("verdict %d, drops %v; want %d, %d", res.Verdict, drops, want, f.why)
	}
	if err := told(f, res.Events); err != nil {
		return err
	}
	if f.frame == nil {
		return nil
	}
	if res.Mark != f.mark {
		return fmt.Errorf("mark %#x, want %#x", res.Mark, f.mark)
	}
	if err := b.settle(&f, res.Frame); err != nil {
		return err
	}
	if f.act == reply || f.back != nil {
		return same(f.frame, res.Frame)
	}
	return rewritten(s.Frame, f.frame, res.Frame)
}

// told compares the events: one about a drop, with its reason and rule, none about what goes on.
func told(f fate, events []maps.Event) error {
	count := 0
	for _, e := range events {
		switch {
		case e.Type == maps.EventDrop:
			count++
			if f.act != refused || e.Code != f.why {
				return fmt.Errorf("dropped for %d (file %d, line %d), want %d", e.Code, e.File, e.Line, f.why)
			}
			if f.rule != 0 && e.Rule != f.rule {
				return fmt.Errorf("dropped by rule %d, want %d", e.Rule, f.rule)
			}
		case e.Type == maps.EventTrace && f.act == refused:
			return fmt.Errorf("traced at %d, and dropped", e.Code)
		case e.Type == maps.EventTrace && f.act == toTunnel && (e.Code != maps.TraceToOverlay || e.Tunnel.Netip() != f.peer):
			return fmt.Errorf("went to %v at point %d, want to %v", e.Tunnel.Netip(), e.Code, f.peer)
		}
	}
	if f.act == refused && count != 1 {
		return fmt.Errorf("%d events about the drop for %d", count, f.why)
	}
	return nil
}

// settle checks the port that a packet left under, and fills it in.
func (b *bench) settle(f *fate, got []byte) error {
	if f.lease == nil {
		return nil
	}
	var port uint16
	if f.portAt > 0 && f.portAt+1 < len(got) {
		port = uint16(be16(got[f.portAt:]))
	} else if f.portAt == 0 {
		port = b.leased(*f.lease)
	}
	if f.port != 0 && port != f.port {
		return fmt.Errorf("left under port %d, want %d", port, f.port)
	}
	if !b.o.nat.take(*f.lease, port) {
		return fmt.Errorf("left under port %d, which is not its to take", port)
	}
	if f.portAt > 0 {
		f.frame[f.portAt], f.frame[f.portAt+1] = byte(port>>8), byte(port)
	}
	return nil
}

// leased asks the kernel for a port that no frame shows.
func (b *bench) leased(l lease) uint16 {
	k := maps.NATKey{Src: maps.AddrFrom(l.own.addr), Dst: maps.AddrFrom(l.peer.addr), Sport: swap(l.own.port), Dport: swap(l.peer.port),
		Proto: l.proto, Dir: maps.NATForward}
	var v maps.NATValue
	if b.town.e.Maps.NatV2.Lookup(k, &v) != nil {
		return 0
	}
	return swap(v.Sport)
}

func swap(n uint16) uint16 { return n<<8 | n>>8 }
