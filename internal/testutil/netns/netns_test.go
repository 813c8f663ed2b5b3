package netns

import (
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"

	ns "github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
)

func TestPairAndBridged(t *testing.T) {
	a, b := Pair(t)
	dial := func(n *NS, addr string) error {
		return n.Do(func() error {
			c, err := net.DialTimeout("tcp", addr, 2*time.Second)
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	var l net.Listener
	b.In(func() (err error) { l, err = net.Listen("tcp", ":7"); return err })
	defer func() { _ = l.Close() }()
	for _, addr := range []string{"192.0.2.2:7", "[fd00:2::2]:7"} {
		if err := dial(a, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	_, m := Bridged(t, 3)
	var l2 net.Listener
	m[2].In(func() (err error) { l2, err = net.Listen("tcp", ":7"); return err })
	defer func() { _ = l2.Close() }()
	for _, n := range m[:2] {
		if err := errors.Join(dial(n, "192.0.2.3:7"), dial(n, "[fd00:2::3]:7")); err != nil {
			t.Error(err)
		}
	}
	if out := a.Run("echo", "x"); out != "x\n" {
		t.Errorf("Run: %q", out)
	}
}

// TestCleanup lets an inner test end with a process running inside: nothing may be left.
func TestCleanup(t *testing.T) {
	Require(t)
	var name string
	var pid process.ID
	t.Run("inner", func(t *testing.T) {
		n := New(t, "x")
		name = n.Name()
		cmd := exec.Command("sleep", "60") // not by Background: nobody stops it
		if err := n.Start(cmd); err != nil {
			t.Fatal(err)
		}
		var err error
		if pid, err = process.Of(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	})
	if ns.Exists(name) || pid.Alive() {
		t.Fatalf("left behind: namespace %v, process %v", ns.Exists(name), pid.Alive())
	}
}
