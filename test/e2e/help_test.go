package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
	tns "github.com/hypha-net/hypha/internal/testutil/netns"
	"github.com/hypha-net/hypha/internal/workload"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// A mode is a way to run a cluster.
type mode struct {
	name   string
	native bool
	v4, v6 bool
}

var (
	overlay = mode{name: "overlay", v4: true, v6: true}
	native  = mode{name: "native", native: true, v4: true, v6: true}
	modes   = []mode{overlay, native, {name: "overlay-ipv4", v4: true}, {name: "overlay-ipv6", v6: true}}
)

// families of a mode, for loops: false is IPv4.
func (m mode) families() []bool {
	var out []bool
	if m.v4 {
		out = append(out, false)
	}
	if m.v6 {
		out = append(out, true)
	}
	return out
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// start makes a cluster that ends with the test and then leaves no trace. A failed test shows the ends of the agents' logs.
func start(t *testing.T, m mode, nodes int, options map[string]any) *cluster.Cluster {
	t.Helper()
	return startPrepared(t, m, nodes, options, nil)
}

// startPrepared is start with something to be done before the agents start.
func startPrepared(t *testing.T, m mode, nodes int, options map[string]any, prepare func(*cluster.Cluster) error) *cluster.Cluster {
	t.Helper()
	return startConfig(t, cluster.Config{Nodes: nodes, IPv4: m.v4, IPv6: m.v6, Native: m.native, Options: options, Prepare: prepare})
}

// require skips the test where no cluster can be.
func require(t *testing.T) {
	t.Helper()
	tns.Require(t)
	if testing.Short() {
		t.Skip("end-to-end tests take long: not with -short")
	}
}

func startConfig(t *testing.T, cfg cluster.Config) *cluster.Cluster {
	t.Helper()
	require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cfg.Bin = bin
	c, err := cluster.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("the end of the log of %s:\n%s", n.Name, n.Log(40))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left := residue(c); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
	})
	return c
}

// residue is what is left of a closed cluster.
func residue(c *cluster.Cluster) (left []string) {
	names, err := netns.List(netns.TempPrefix)
	if err != nil {
		return []string{err.Error()}
	}
	self, err := process.Of(os.Getpid())
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range names {
		if id, ok := netns.TempOwner(name); ok && id == self {
			left = append(left, "namespace "+name)
		}
	}
	for _, n := range c.Nodes {
		if _, err := os.Stat(n.Paths.BPF); err == nil {
			left = append(left, "pins "+n.Paths.BPF)
		}
		if pid := n.PID(); pid != 0 {
			left = append(left, fmt.Sprintf("agent %d", pid))
		}
	}
	if _, err := os.Stat(c.Dir); err == nil {
		left = append(left, c.Dir)
	}
	return left
}

// add makes a pod with its servers.
func add(t *testing.T, c *cluster.Cluster, name string, node int, labels ...string) *cluster.Pod {
	t.Helper()
	if len(labels) == 0 {
		labels = nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := c.Add(ctx, cluster.PodSpec{Name: name, Node: node, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// importPolicy puts a document in force.
func importPolicy(t *testing.T, c *cluster.Cluster, doc string) {
	t.Helper()
	if _, err := c.Import(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
}

const (
	yes = 10 * time.Second       // for what should work
	no  = 700 * time.Millisecond // for what should be dropped
)

// fetch does one HTTP request from a namespace.
func fetch(ns *netns.NS, to netip.Addr, port uint16, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return workload.Client{Dial: ns.DialContext}.Get(ctx, "http://"+netip.AddrPortFrom(to, port).String()+"/")
}

// echo asks an echo service from a namespace.
func echo(ns *netns.NS, network string, to netip.Addr, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := workload.Client{Dial: ns.DialContext}.Echo(ctx, network, netip.AddrPortFrom(to, workload.EchoPort).String())
	return err
}

// ping sends one echo request.
func ping(ns *netns.NS, to netip.Addr, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+2*time.Second)
	defer cancel()
	_, err := ns.Output(exec.CommandContext(ctx, "ping", "-n", "-c", "1", "-W", fmt.Sprint(timeout.Seconds()), to.String()))
	return err
}

// dropped says whether err is the silence of a drop, not a refusal or another error.
func dropped(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// eventually tries until it works or the time is over.
func eventually(t *testing.T, timeout time.Duration, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, timeout, err)
}

// contextWith is a context that ends by itself.
func contextWith(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// spread says where durations lie: median, 99th percentile and maximum.
func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "never"
	}
	at := func(p int) time.Duration { return percentile(ds, p).Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %s, p99 %s, max %s", at(50), at(99), at(100))
}

func percentile(ds []time.Duration, p int) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[(p*(len(ds)-1)+50)/100]
}
