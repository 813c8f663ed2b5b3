// Package netns gives tests network namespaces: fresh ones with unique names, joined by device pairs and bridges, gone
// when the test ends, also when it fails. What a test run that was killed left behind goes with the next one.
//
// Tests that need it call Require first; without root they skip and say so. All of it may be used from any goroutine,
// except what fails the test, which as ever belongs into the test's own.
package netns

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	ns "github.com/hypha-net/hypha/internal/netns"
)

// NS is a network namespace of a test. Its methods that return nothing fail the test on errors; those of the embedded
// one return them.
type NS struct {
	*ns.NS
	t testing.TB
}

// runTimeout bounds a command of Run.
const runTimeout = 30 * time.Second

// Require skips the test without root.
func Require(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
}

// New makes a namespace with loopback up. At the end of the test, what still runs in it is killed and it is deleted.
func New(t testing.TB, name string) *NS {
	t.Helper()
	Require(t)
	if err := ns.Sweep(); err != nil {
		t.Fatal(err)
	}
	n, err := ns.Temp(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(); err != nil {
			t.Error(err)
		}
	})
	return &NS{NS: n, t: t}
}

// Pair makes two namespaces joined by a device pair, eth0 at both ends, with 192.0.2.1/24 and fd00:2::1/64 at the
// first, .2 and ::2 at the second.
func Pair(t testing.TB) (a, b *NS) {
	t.Helper()
	a, b = New(t, "a"), New(t, "b")
	Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "192.0.2.1/24", "fd00:2::1/64")
	b.Addr("eth0", "192.0.2.2/24", "fd00:2::2/64")
	return a, b
}

// Bridged makes count namespaces on one bridge, which is br0 of the namespace sw: the i-th (from 1) has eth0 with
// 192.0.2.i/24 and fd00:2::i/64 (hexadecimal).
func Bridged(t testing.TB, count int) (sw *NS, members []*NS) {
	t.Helper()
	sw = New(t, "sw")
	ports := make([]string, count)
	for i := range count {
		m := New(t, fmt.Sprintf("m%d", i+1))
		ports[i] = fmt.Sprintf("p%d", i+1)
		Veth(t, sw, ports[i], m, "eth0")
		m.Addr("eth0", fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("fd00:2::%x/64", i+1))
		members = append(members, m)
	}
	sw.must(sw.Bridge("br0", ports...))
	return sw, members
}

// Veth makes a device pair, both ends up.
func Veth(t testing.TB, a *NS, aName string, b *NS, bName string) {
	t.Helper()
	a.must(ns.Veth(a.NS, aName, b.NS, bName))
}

// Addr gives a device addresses.
func (n *NS) Addr(dev string, addrs ...string) {
	n.t.Helper()
	n.must(n.AddAddr(dev, addrs...))
}

// Route sends dst ("default" too) through a gateway.
func (n *NS) Route(dst, via string) {
	n.t.Helper()
	n.must(n.AddRoute(dst, via))
}

// Set writes a sysctl of the namespace.
func (n *NS) Set(key, value string) {
	n.t.Helper()
	n.must(n.Sysctl(key, value))
}

// In runs fn inside.
func (n *NS) In(fn func() error) {
	n.t.Helper()
	n.must(n.Do(fn))
}

// Run runs a command inside and returns its output. It must end well within 30 s.
func (n *NS) Run(args ...string) string {
	n.t.Helper()
	out, err := n.Try(args...)
	n.must(err)
	return out
}

// Try is Run that returns the error.
func (n *NS) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	return n.Output(cmd)
}

// Background starts a command inside that ends with the test; what it printed is logged when the test failed.
func (n *NS) Background(args ...string) *exec.Cmd {
	n.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	n.must(n.Start(cmd))
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
		if n.t.Failed() && out.Len() > 0 {
			n.t.Logf("%s in %s printed:\n%s", strings.Join(args, " "), n.Name(), out.String())
		}
	})
	return cmd
}

func (n *NS) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}
