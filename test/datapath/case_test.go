package datapath_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hypha-net/hypha/bpf/host"
	"github.com/hypha-net/hypha/bpf/overlay"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

const episodeSize = 500

// try runs n packets of a program, in episodes.
func try(t *testing.T, w *town, r *rand.Rand, prog string, n int, m mode) tally {
	t.Helper()
	b := &bench{t: t, town: w, tally: tally{packets: map[string]int{}, refused: map[uint8]int{}}}
	w.e.Prog(prog)
	for _, p := range []string{pod.FromPod, overlay.FromOverlay, host.FromNetdev} {
		w.e.Prog(p)
	}
	err := w.e.Runner(func(run *bpftest.Runner) error {
		b.run = run
		for b.tally.packets[prog] < n && b.tally.slow < 20 {
			if err := b.episode(r, prog, min(episodeSize, n), m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if b.tally.packets[prog] < n && err == nil {
		t.Errorf("%d of %d packets; %d episodes took too long", b.tally.packets[prog], n, b.tally.slow)
	}
	return b.tally
}

func (y tally) String() string {
	sum := 0
	for _, n := range y.refused {
		sum += n
	}
	return fmt.Sprintf("%d passed against the model; %d went on, %d refused for %d reasons, %d too short to run", y.against, y.passed, sum, len(y.refused), y.short)
}

// TestCase38Programs: each program on random packets does what the model says: verdict, reason, rule, bytes.
func TestCase38Programs(t *testing.T) {
	for _, prog := range []string{pod.FromPod, pod.ToPod, overlay.FromOverlay, overlay.ToOverlay, host.FromNetdev} {
		t.Run(prog, func(t *testing.T) {
			c := score.Start(t, "38", "fuzz "+prog+" by BPF_PROG_RUN against a user-space model")
			y := try(t, newTown(t), c.Rand(), prog, score.Size(10_000, 1_000_000), mode{odd: 25, spoilt: 15, spoof: 10})
			c.Count(y.packets[prog], "packets")
			c.Say("%v", y)
		})
	}
}

// TestCase31Malformed: fragments, extension headers and options, ICMP errors, echo ids used again and wrong lengths: nothing
// passes that the model refuses, and no program fails.
func TestCase31Malformed(t *testing.T) {
	c := score.Start(t, "31", "fragments, extension headers, ICMP errors and id reuse, bad lengths")
	w, r := newTown(t), c.Rand()
	all := tally{refused: map[uint8]int{}}
	count := 0
	for _, prog := range []string{pod.FromPod, pod.ToPod, overlay.FromOverlay, overlay.ToOverlay, host.FromNetdev} {
		y := try(t, w, r, prog, score.Size(4_000, 200_000), mode{odd: 80, spoilt: 40, spoof: 3})
		for _, n := range y.packets {
			count += n
		}
		all.add(y)
	}
	c.Count(count, "packets")
	c.Say("%v", all)
}

func (y *tally) add(o tally) {
	y.passed += o.passed
	y.short += o.short
	y.against += o.against
	for why, n := range o.refused {
		y.refused[why] += n
	}
}
