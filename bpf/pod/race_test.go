package pod_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// A verdict that rests on rows of before a policy change is never on record as one of after it, however long the packet
// was on its way through the program.
func TestEpochBeforeRows(t *testing.T) {
	cfg := bpftest.Defaults()
	cfg.Flags &^= maps.ConfigEvents | maps.ConfigTrace
	w := bpftest.NewWorld(t, bpftest.Config{Config: cfg})
	const denied = 9
	w.PutPolicy(denied, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 60})
	w.PutPolicy(denied, maps.ClassAny, maps.PolicyEgress, maps.PolicyValue{DefaultRule: 61})
	allowed, revoked := w.Pod1, w.Pod1
	revoked.Set = denied
	frame := w.Pod1.Flow(w.Pod2.V4, 40000, 80).TCP("A")
	expect(t, w, "first", w.Pod1, frame, bpftest.Redirect, 0)

	var done atomic.Bool
	finished := make(chan error, 1)
	go func() {
		for !done.Load() {
			if _, err := w.Bench(pod.FromPod, w.Pod1.Dev, frame, 1000); err != nil {
				finished <- err
				return
			}
		}
		finished <- nil
	}()
	defer func() {
		done.Store(true)
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}()
	pause := func() {
		for start := time.Now(); time.Since(start) < 30*time.Microsecond; {
		}
	}
	rounds, epoch := 0, uint32(0)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); rounds++ {
		w.PutEndpoint(revoked, w.Pod1.V4)
		epoch++
		w.PutState(maps.State{Epoch: epoch})
		pause()
		for _, v := range w.Connections() {
			if v.Epoch == epoch {
				t.Fatalf("round %d: what epoch %d denies is on record as allowed by it", rounds, epoch)
			}
		}
		w.PutEndpoint(allowed, w.Pod1.V4)
		epoch++
		w.PutState(maps.State{Epoch: epoch})
		pause()
	}
	t.Logf("%d changes", rounds)
}
