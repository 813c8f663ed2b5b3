package endpoint_test

import (
	"maps"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/endpoint/fake"
	"github.com/hypha-net/hypha/internal/model"
)

// What somebody takes away from a running workload comes back by itself, with its addresses and its MAC, and the fake node
// watches that at no step it can be reached without policy.
func TestDamageIsMended(t *testing.T) {
	n := newNode(t)
	n.halt()
	n.cfg.Verify = 5 * time.Millisecond
	n.start()
	made, err := n.Add(t.Context(), spec("a", "app=a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(*fake.World){
		"device": func(w *fake.World) { clear(w.Devices) },
		"device down": func(w *fake.World) {
			for k, d := range w.Devices {
				d.Up = false
				w.Devices[k] = d
			}
		},
		"programs": func(w *fake.World) { clear(w.Pins) },
		"rows":     func(w *fake.World) { clear(w.Rows) },
		"everything": func(w *fake.World) {
			clear(w.Devices)
			clear(w.Pins)
			clear(w.Rows)
		},
	} {
		n.world.Damage(damage)
		whole := func() (ok bool) {
			row, found := n.Table().Get(made.ID)
			n.world.Damage(func(w *fake.World) {
				d := w.Devices[row.HostIfName]
				ok = found && row.State == model.EndpointReady && d.Up && d.HostIfIndex == row.HostIfIndex && d.MAC == made.MAC &&
					maps.Equal(w.Pins, map[uint16]int{row.ID: d.HostIfIndex})
				for _, a := range made.Addrs() {
					ok = ok && w.Rows[a].IfIndex == d.HostIfIndex && w.Rows[a].ID == made.ID && w.Rows[a].Set != 0
				}
			})
			return ok
		}
		for end := time.Now().Add(10 * time.Second); !whole(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				row, _ := n.Table().Get(made.ID)
				t.Fatalf("%s: not mended: %+v, node %+v", name, row, n.world)
			}
		}
	}
	if _, err := n.Delete(t.Context(), endpoint.Key{ContainerID: "c-a", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if len(n.world.Devices)+len(n.world.Rows)+len(n.world.Pins) != 0 {
		t.Errorf("left behind: %+v", n.world)
	}
}
