package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
	"github.com/hypha-net/hypha/test/bench/stat"
	"github.com/hypha-net/hypha/test/bench/task"
)

// Row 6: from_netdev on packets to a service whose backend is on this node, by BPF_PROG_RUN.

// manyFlows are the flows of the second kind of packets, a power of two.
const manyFlows = 4096

// A traffic is one kind of packets.
type traffic struct {
	what     string
	flows    int // 0: each packet is a new one's first
	udp      bool
	straight bool // to the workload's own address
}

// traffics are the kinds, each to a service and, with the same number behind half of them, straight.
var traffics = []traffic{
	{what: "an established connection", flows: 1},
	{what: fmt.Sprintf("%d established connections", manyFlows), flows: manyFlows},
	{what: "a new connection"},
	{what: "a flow of datagrams", flows: 1, udp: true},
	{what: "an established connection", flows: 1, straight: true},
	{what: fmt.Sprintf("%d established connections", manyFlows), flows: manyFlows, straight: true},
	{what: "a new connection", straight: true},
	{what: "a flow of datagrams", flows: 1, udp: true, straight: true},
}

// tableRows are those of the tables of connections and translations.
const tableRows = 1 << 17

const (
	frontPort = 80
	backPort  = 8080
)

// programTimes are what a packet took in each round, in ns: the program, and an empty one in its place.
type programTimes struct {
	vips           int
	program, empty [][]float64 // by traffic
}

// alone is the program without what brings it its packets: the difference of the fastest rounds, which what else the machine does
// touches least, and the median of the paired differences.
func (p *programTimes) alone(kind int) (fastest, middle float64) {
	paired := make([]float64, len(p.program[kind]))
	for i := range paired {
		paired[i] = p.program[kind][i] - p.empty[kind][i]
	}
	return slices.Min(p.program[kind]) - slices.Min(p.empty[kind]), stat.Median(paired)
}

// measurePrograms measures worlds of so many VIPs, interleaved.
func measurePrograms(sizes []int, rounds, repeat int) (out []*programTimes, err error) {
	err = task.Run(func(t testing.TB) error {
		var towns []*town
		for _, n := range sizes {
			say("  %d VIPs", n)
			w, err := newTown(t, n)
			if err != nil {
				return err
			}
			if err := errors.Join(w.fill(), w.establish()); err != nil {
				return fmt.Errorf("%d VIPs: %w", n, err)
			}
			towns = append(towns, w)
			out = append(out, &programTimes{vips: n, program: make([][]float64, len(traffics)), empty: make([][]float64, len(traffics))})
		}
		for r := range rounds {
			for i := range towns {
				if r%2 == 1 {
					i = len(towns) - 1 - i
				}
				if err := towns[i].round(out[i], repeat); err != nil {
					return fmt.Errorf("%d VIPs: %w", towns[i].vips, err)
				}
			}
		}
		return nil
	})
	return out, err
}

// town is a world with so many VIPs.
type town struct {
	*bpftest.World
	vips    int
	dev     int
	program []*ebpf.Program // by traffic: makes the next packet and runs from_netdev on it
	empty   []*ebpf.Program // the same with an empty program
	frames  [][]byte
}

func newTown(t testing.TB, vips int) (*town, error) {
	cfg := bpftest.Defaults()
	cfg.Flags = bpftest.AllOff | maps.ConfigRedirectPeer | maps.ConfigServices
	w := &town{World: bpftest.NewWorld(t, bpftest.Config{Config: cfg, MapSize: tableRows}), vips: vips}
	w.dev = w.OpenOutside(1500)
	for i := range vips {
		w.serve(i)
	}
	next, err := w.programs(t)
	if err != nil {
		return nil, err
	}
	for i, k := range traffics {
		frame := w.frame(k, 0, "A")
		if k.flows == 0 {
			frame = w.frame(k, 0, "S")
		}
		w.frames = append(w.frames, frame)
		m, err := newMaker(t, w, k, i, frame, next)
		if err != nil {
			return nil, err
		}
		w.program, w.empty = append(w.program, m[0]), append(w.empty, m[1])
	}
	return w, nil
}

// serve writes the rows of the i-th VIP, each with a set of its own.
func (w *town) serve(i int) {
	set := uint32(i + 1)
	w.Put(w.Maps.LbAddressV1, maps.AddrFrom(vip(i)), maps.LBAddressVIP)
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		w.Put(w.Maps.LbSlotV1, maps.LBSlotKey{Slots: set}, maps.LBBackend{Addr: maps.AddrFrom(w.Pod1.V4), Port: swapped(backPort), Proto: proto})
		w.Put(w.Maps.LbFrontendV1, maps.LBFrontendKey{Addr: maps.AddrFrom(vip(i)), Port: swapped(frontPort), Proto: proto}, maps.LBFrontend{Service: set, Slots: set, Count: 1})
	}
}

func swapped(p uint16) uint16 { return p<<8 | p>>8 }

// firstVIP and firstClient are numbers of addresses: VIPs and clients are those from them on.
const (
	firstVIP    = 203<<24 | 1
	firstClient = 198<<24 | 51<<16 | 1<<8
)

func numbered(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func vip(i int) netip.Addr { return numbered(firstVIP + uint32(i)) }

// The number of a flow tells its ends: the client's port from its low bits, the client's address from those above, the VIP from all.
const (
	portBits  = 14
	firstPort = 1 << portBits
)

// frame is a packet of the n-th flow.
func (w *town) frame(k traffic, n int, flags string) []byte {
	f := packet.Flow{SrcMAC: packet.MAC(0xee), DstMAC: packet.MAC(1), Src: numbered(firstClient + uint32(n>>portBits)), Dst: vip(n % w.vips),
		SrcPort: firstPort + uint16(n&(1<<portBits-1)), DstPort: frontPort}
	if k.straight {
		f.Dst, f.DstPort = w.Pod1.V4, backPort
	}
	if k.udp {
		return f.UDP()
	}
	return f.TCP(flags)
}

// firstOf is the number of a traffic's first flow: none has another's.
func firstOf(kind int) int { return kind << 24 }

// fill has the tables full, so that a new connection takes an old one's place, as it does on a busy node.
func (w *town) fill() error {
	for kind, k := range traffics {
		if k.flows > 0 {
			continue
		}
		if _, verdict, err := w.BenchProgram(w.program[kind], w.dev, w.frames[kind], tableRows); err != nil || verdict != bpftest.Redirect {
			return errors.Join(fmt.Errorf("fill the tables: verdict %d", verdict), err)
		}
	}
	return nil
}

// establish opens the connections that are to be on record, and answers them.
func (w *town) establish() error {
	return w.Runner(func(r *bpftest.Runner) error {
		run := func(prog string, dev int, frame []byte) error {
			res, err := r.Run(prog, bpftest.Packet{Frame: frame, IfIndex: dev})
			if err == nil && res.Verdict != bpftest.Redirect {
				err = fmt.Errorf("verdict %d of %s, events %+v", res.Verdict, prog, res.Events)
			}
			return err
		}
		for i, k := range traffics {
			for n := range k.flows {
				at := firstOf(i) + n
				if err := run(host.FromNetdev, w.dev, w.frame(k, at, "S")); err != nil {
					return err
				}
				if k.udp {
					continue
				}
				answer := w.Pod1.Flow(numbered(firstClient+uint32(at>>portBits)), backPort, firstPort+uint16(at&(1<<portBits-1)))
				if err := run(pod.FromPod, w.Pod1.Dev, answer.TCP("SA")); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// round measures every kind once, each warm.
func (w *town) round(out *programTimes, repeat int) error {
	var failed error
	one := func(p *ebpf.Program, kind, repeat int, want uint32) float64 {
		took, verdict, err := w.BenchProgram(p, w.dev, w.frames[kind], repeat)
		if err == nil && verdict != want {
			err = fmt.Errorf("%s: verdict %d instead of %d", traffics[kind].what, verdict, want)
		}
		failed = errors.Join(failed, err)
		return float64(took.Nanoseconds()) / float64(repeat)
	}
	for kind := range traffics {
		one(w.program[kind], kind, manyFlows, bpftest.Redirect)
		out.program[kind] = append(out.program[kind], one(w.program[kind], kind, repeat, bpftest.Redirect))
		out.empty[kind] = append(out.empty[kind], one(w.empty[kind], kind, repeat, bpftest.Pass))
	}
	return failed
}
