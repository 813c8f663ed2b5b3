package endpoint_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/endpoint/fake"
	"github.com/hypha-net/hypha/internal/endpoint/pending"
	"github.com/hypha-net/hypha/internal/model"
)

// Any sequence of calls, restarts, crashes and deletes while down ends where a map of names to labels says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNode(t)
		defer n.halt()
		want := map[string]string{}
		names := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		values := rapid.SampledFrom([]string{"1", "2", "3"})
		id := func(name string) uint16 {
			rows, err := n.List("pod-name:" + name)
			if err != nil || len(rows) != 1 {
				rt.Fatalf("%s: %v, %v", name, rows, err)
			}
			return rows[0].ID
		}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				name, v := names.Draw(rt, "name"), values.Draw(rt, "value")
				if _, there := want[name]; there {
					return
				}
				if _, err := n.Add(t.Context(), spec(name, "v="+v)); err != nil {
					rt.Fatal(err)
				}
				want[name] = v
			},
			"update": func(rt *rapid.T) {
				name, v := names.Draw(rt, "name"), values.Draw(rt, "value")
				if _, there := want[name]; !there {
					return
				}
				if _, err := n.Update(t.Context(), id(name), endpoint.Change{AddLabels: []string{"v=" + v}}); err != nil {
					rt.Fatal(err)
				}
				want[name] = v
			},
			"delete": func(rt *rapid.T) {
				name := names.Draw(rt, "name")
				found, err := n.Delete(t.Context(), endpoint.Key{ContainerID: "c-" + name, IfName: "eth0"})
				if _, there := want[name]; err != nil || found != there {
					rt.Fatalf("delete %s: %v, %v, want %v", name, found, err, there)
				}
				delete(want, name)
			},
			"restart": func(*rapid.T) { n.restart() },
			"delete while down": func(rt *rapid.T) {
				name := names.Draw(rt, "name")
				n.halt()
				if err := pending.Write(n.cfg.Paths.PendingDel(), pending.Delete{ContainerID: "c-" + name, IfName: "eth0"}); err != nil {
					rt.Fatal(err)
				}
				n.world.Restart()
				n.start()
				delete(want, name)
			},
			"crash in add": func(rt *rapid.T) {
				name, at, count := names.Draw(rt, "name"), rapid.IntRange(1, 10).Draw(rt, "step"), 0
				if _, there := want[name]; there {
					return
				}
				n.settle(len(want)) // so that only the ADD takes steps
				n.world.Before(func(string) error {
					if count++; count == at {
						return fake.ErrCrash
					}
					return nil
				})
				if _, err := n.Add(t.Context(), spec(name, "v=1")); err == nil {
					rt.Fatal("ADD survived a crash")
				}
				n.restart()
			},
			"": func(rt *rapid.T) {
				n.settle(len(want))
				for name, v := range want {
					rows, _ := n.List("pod-name:" + name)
					if len(rows) != 1 || value(rows[0]) != v {
						rt.Fatalf("%s: %+v, want %s", name, rows, v)
					}
				}
			},
		})
	})
}

func value(e model.Endpoint) string {
	v, _ := e.Labels.Get(model.SourceK8s, "v")
	return v
}
