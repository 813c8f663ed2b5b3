// Package arm holds the rivals of the benchmarks: ways to connect a client's network namespace with a server's. All are
// set up side by side, each in namespaces of its own, and measured in turn.
package arm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// Ports that the measured services have.
const (
	PortRR    = 7001
	PortCRR   = 7002
	PortIperf = 5201
)

// Ports are all of them.
var Ports = []uint16{PortRR, PortCRR, PortIperf}

// Ends are where a measurement runs.
type Ends struct {
	Client  *netns.NS
	Server  *netns.NS        // listens on all its addresses
	Target  netip.Addr       // what the client connects to: the server's address or a service's
	Cluster *cluster.Cluster // of Hypha's arms, else nil
}

// Arm is one way to connect two namespaces.
type Arm interface {
	Name() string  // short, for the table
	About() string // one line
	Setup(ctx context.Context) (Ends, error)
	Teardown() error // undoes Setup, as far as it came
}

// lan collects the namespaces of an arm. Its methods do nothing once one has failed; err has the first failure.
type lan struct {
	spaces []*netns.NS
	err    error
}

func (l *lan) space(name string) *netns.NS {
	if l.err != nil {
		return nil
	}
	n, err := netns.Temp(name)
	if err != nil {
		l.err = err
		return nil
	}
	l.spaces = append(l.spaces, n)
	return n
}

func (l *lan) do(fn func() error) {
	if l.err == nil {
		l.err = fn()
	}
}

func (l *lan) veth(a *netns.NS, aName string, b *netns.NS, bName string) {
	l.do(func() error { return netns.Veth(a, aName, b, bName) })
}

func (l *lan) addr(n *netns.NS, dev string, addrs ...string) {
	l.do(func() error { return n.AddAddr(dev, addrs...) })
}

func (l *lan) route(n *netns.NS, dst, via string) {
	l.do(func() error { return n.AddRoute(dst, via) })
}

func (l *lan) sysctl(n *netns.NS, key, value string) {
	l.do(func() error { return n.Sysctl(key, value) })
}

// feed runs a command with a text as its input.
func (l *lan) feed(n *netns.NS, text string, argv ...string) {
	l.do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(text)
		_, err := n.Output(cmd)
		return err
	})
}

// ends closes a Setup: the client gets enough ports for connections in a row.
func (l *lan) ends(client, server *netns.NS, target string) (Ends, error) {
	l.sysctl(client, "net.ipv4.ip_local_port_range", "10000 65000")
	if l.err != nil {
		return Ends{}, l.err
	}
	addr, err := netip.ParseAddr(target)
	if err != nil {
		return Ends{}, fmt.Errorf("target: %w", err)
	}
	return Ends{Client: client, Server: server, Target: addr}, nil
}

// Teardown deletes the namespaces with all that is in them.
func (l *lan) Teardown() error {
	var errs error
	for _, n := range l.spaces {
		errs = errors.Join(errs, n.Remove())
	}
	l.spaces = nil
	return errs
}

// label gives an arm its texts.
type label struct{ name, about string }

func (l label) Name() string  { return l.name }
func (l label) About() string { return l.about }
