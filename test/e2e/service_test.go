package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestServicesEverywhere: a service made on one node is on both, under the same number, and outlives the agents; what is in the
// services file of a node is too, for as long as it is there; what must not be served is refused with the reason.
func TestServicesEverywhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services.yaml") // of both nodes
	c := start(t, overlay, 2, map[string]any{"services-file": file})
	hypha := func(n *cluster.Node, args ...string) string {
		t.Helper()
		out, err := c.Hypha(t.Context(), n, args...)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := c.Hypha(t.Context(), c.Nodes[0], args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v %s; want %q", args, err, out, want)
		}
	}
	both := func(what string, args []string, want ...string) {
		t.Helper()
		eventually(t, yes, what, func() error {
			for _, n := range c.Nodes {
				out, err := c.Hypha(t.Context(), n, args...)
				for _, w := range want {
					if not, is := strings.CutPrefix(w, "!"); is == strings.Contains(out, not) || err != nil && !strings.HasPrefix(what, "degraded") {
						return fmt.Errorf("%s: want %s, %s:\n%s", n.Name, w, fmt.Sprint(err), out)
					}
				}
			}
			return nil
		})
	}
	list, status := []string{"service", "list"}, []string{"status"}
	both("degraded without its file", status, "services file "+file+": no such file", "0 frontends, 0 backends, 1 error")
	if err := os.WriteFile(file, []byte("- {name: dns, namespace: kube-system, frontend: '10.96.0.10:53/UDP', backends: ['10.10.0.9:53']}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	both("the file's service", list, "1    10.96.0.10:53/UDP   ClusterIP      1 => 10.10.0.9:53/UDP (active)")

	if out := hypha(c.Nodes[1], "service", "update", "--id", "7", "--frontend", "10.96.0.1:80", "--backends", "10.10.0.5:80,10.10.1.5:80", "--name", "shop/web"); out !=
		"Creating new service with id '7'\nAdded service with 2 backends\n" {
		t.Errorf("%q", out)
	}
	if out := hypha(c.Nodes[1], list...); !strings.Contains(out, "10.96.0.1:80/TCP") {
		t.Errorf("not there for who made it:\n%s", out)
	}
	both("the other node's service", list, "7    10.96.0.1:80/TCP    ClusterIP      1 => 10.10.0.5:80/TCP (active)")
	both("the status", status, "2 frontends, 3 backends", "!error")
	refused("is taken by service 7 (10.96.0.1:80/TCP, shop/web)", "service", "update", "--id", "8", "--frontend", "10.96.0.1:80")
	refused("it is the address of node "+c.Nodes[1].Name, "service", "update", "--id", "8", "--frontend", c.Nodes[1].IP4.String()+":80")
	refused("the pods of node ", "service", "update", "--id", "8", "--frontend", "10.10.0.77:80")
	refused("a loopback address", "service", "update", "--id", "8", "--frontend", "10.96.0.2:80", "--backends", "127.0.0.1:80")
	refused("from the services file of node", "service", "delete", "1")

	for _, n := range c.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte("- {frontend: "), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if err := n.Start(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	both("degraded with a damaged file", status, "2 frontends, 3 backends, 1 error", "the services of the last good file stay")
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	both("an empty file", list, "!10.96.0.10", "7    10.96.0.1:80/TCP")
	if out := hypha(c.Nodes[0], "service", "delete", "7"); out != "Service 7 deleted successfully\n" {
		t.Errorf("%q", out)
	}
	both("nothing left", status, "0 frontends, 0 backends")
}
