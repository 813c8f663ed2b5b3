package pod_test

import (
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/packet"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// TestCase16Flood: ten times as many new connections as the table holds do not push out those that are in use: their replies,
// which no policy allows by itself, still pass. What policy forbids does not pass meanwhile.
func TestCase16Flood(t *testing.T) {
	sc := score.Start(t, "16", "connection table flooded tenfold")
	const active = 1000
	size := score.Size(16384, 131072)
	cfg := bpftest.Defaults()
	cfg.Flags &^= maps.ConfigEvents | maps.ConfigTrace
	w := bpftest.NewWorld(t, bpftest.Config{Config: cfg, MapSize: uint32(size)})
	w.PutPolicy(1, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60}) // only replies reach Pod1
	flow := func(i int) packet.Flow { return w.Pod1.Flow(w.Pod2.V4, uint16(20000+i), 80) }
	back := func(i int) packet.Flow { return w.Pod2.Flow(w.Pod1.V4, 80, uint16(20000+i)) }

	var live, passed, tried, flooded int
	err := w.Runner(func(r *bpftest.Runner) error {
		run := func(p bpftest.Pod, frame []byte) (uint32, error) {
			res, err := r.Run(pod.FromPod, bpftest.Packet{Frame: frame, IfIndex: p.Dev})
			return res.Verdict, err
		}
		for i := range active {
			for _, flags := range []string{"S", "A"} {
				if _, err := run(w.Pod1, flow(i).TCP(flags)); err != nil {
					return err
				}
			}
			if _, err := run(w.Pod2, back(i).TCP("SA")); err != nil {
				return err
			}
		}
		// Every connection in use sends once while the flood brings in a tenth of the table.
		every := size / 10 / active
		for ; flooded < 10*size; flooded++ {
			f := w.Pod2.Flow(bpftest.FarPod[0], uint16(flooded%60000+1), uint16(flooded/60000+1000))
			if _, err := run(w.Pod2, f.UDP('x')); err != nil {
				return err
			}
			if flooded%max(every, 1) != 0 {
				continue
			}
			i := flooded / max(every, 1) % active
			if _, err := run(w.Pod1, flow(i).TCP("A")); err != nil {
				return err
			}
			verdict, err := run(w.Pod2, w.Pod2.Flow(w.Pod1.V4, uint16(30000+i), 443).TCP("S"))
			if err != nil {
				return err
			}
			if tried++; verdict != bpftest.Drop {
				passed++
			}
		}
		for i := range active {
			verdict, err := run(w.Pod2, back(i).TCP("A"))
			if err != nil {
				return err
			}
			if verdict == bpftest.Redirect {
				live++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sc.Count(flooded, "new connections")
	sc.Say("%d of %d connections in use live; %d of %d forbidden packets passed; table of %d", live, active, passed, tried, size)
	if live*1000 < active*999 || passed != 0 {
		t.Errorf("%d of %d connections live, %d of %d forbidden packets passed", live, active, passed, tried)
	}
}
