package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/hypha-net/hypha/internal/testutil/score"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// TestCase02AddWhileDown: without the agent, ADD fails within 5 s, says so, and leaves nothing.
func TestCase02AddWhileDown(t *testing.T) {
	s := score.Start(t, "2", "CNI ADD while the agent is down")
	tries := score.Size(1, 20)
	c := start(t, overlay, 1, nil)
	if err := c.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	p, err := c.Prepare(cluster.PodSpec{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var worst time.Duration
	for range tries {
		begin := time.Now()
		err = c.Attach(t.Context(), p)
		worst = max(worst, time.Since(begin))
		var said *types.Error
		if !errors.As(err, &said) || !strings.Contains(err.Error(), "agent") {
			t.Errorf("ADD: %v", err)
		}
		if links, err := p.NS.Links(); err != nil || p.NS.HasLink("eth0") {
			t.Errorf("devices in the pod: %v %v", links, err)
		}
	}
	if worst > 5*time.Second {
		t.Errorf("ADD took %s", worst)
	}
	s.Count(tries, "ADDs")
	s.Say("each failed with the reason, after at most %s; no device was left", worst.Round(time.Millisecond))
	if err := c.Nodes[0].Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(t.Context(), p); err != nil {
		t.Errorf("ADD after the start: %v", err)
	}
}

// TestCase03DelWhileDown: without the agent, DEL succeeds, and is finished within 5 s of its start.
func TestCase03DelWhileDown(t *testing.T) {
	s := score.Start(t, "3", "CNI DEL while the agent is down, each twice")
	pods := score.Size(20, 100)
	s.Count(pods, "pods")
	c := start(t, overlay, 1, nil)
	n := c.Nodes[0]
	clean, err := n.NS.Links()
	if err != nil {
		t.Fatal(err)
	}
	var all []*cluster.Pod
	for i := range pods {
		p, err := c.Add(t.Context(), cluster.PodSpec{Name: fmt.Sprintf("p%d", i), Idle: true})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for range 2 { // runtimes repeat it
			if err := c.Detach(t.Context(), p); err != nil {
				t.Fatalf("DEL: %v", err)
			}
		}
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ready := time.Now()
	eventually(t, 5*time.Second, "nothing is left of the pods", func() error {
		eps, err := n.Endpoints(t.Context())
		if err != nil || len(eps) > 0 {
			return fmt.Errorf("%d endpoints, %w", len(eps), err)
		}
		links, err := n.NS.Links()
		if err != nil || len(links) != len(clean) {
			return fmt.Errorf("devices %v, want %v: %w", links, clean, err)
		}
		out, err := c.Hypha(t.Context(), n, "bpf", "endpoint", "list", "-o", "json")
		if err != nil || strings.Contains(out, "10.10.") {
			return fmt.Errorf("endpoint map: %s: %w", out, err)
		}
		return nil
	})
	s.Say("all succeeded; no residue %s after the agent was ready", time.Since(ready).Round(time.Millisecond))
}
