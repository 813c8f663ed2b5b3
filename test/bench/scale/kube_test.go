package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// A small cluster goes through all that the benchmark does with a large one.
func TestKube(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("makes network namespaces: needs root, and is not short")
	}
	bin, remove, err := cluster.Build(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	o := options{idle: time.Second, churn: 2 * time.Second, bins: []build{{"now", bin}},
		kube: fleet{nodes: 10, pods: 100, identities: 40, policies: 200, local: 4, changes: 5}}
	all, err := measureKube(t.Context(), t, o)
	if err != nil {
		t.Fatal(err)
	}
	r := all[0]
	for what, v := range map[string][]time.Duration{"a policy that allows": r.allow, "a policy that is deleted": r.deny} {
		if len(v) != o.kube.changes {
			t.Errorf("%s: %d times, want %d", what, len(v), o.kube.changes)
		}
	}
	if r.again.watches == 0 || r.again.told == 0 || r.heap == 0 || r.churn.pods == 0 || r.delay.n == 0 {
		t.Errorf("something was not measured: %+v", r)
	}
	for name, n := range r.rows {
		if n == 0 || n > r.room[name] {
			t.Errorf("%s has %d rows, with room for %d", name, n, r.room[name])
		}
	}
	t.Logf("\n%s", kubeTable(o, all))
}
