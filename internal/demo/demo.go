// Package demo is `hypha demo`: a cluster of two nodes on one machine, with real agents, a shared embedded store and pods
// attached by the real CNI plugin, all in network namespaces. Nothing of it touches the machine's own network.
//
//	hypha-demo-node1 (172.29.0.1) --+                            app1, app2        pods, a namespace each
//	                                +-- hypha-demo-world (.254)
//	hypha-demo-node2 (172.29.0.2) --+   outside, 203.0.113.10    app2-remote, app3
//
// What it made is in its directory (paths.DemoDir) while it exists: every step is recorded before or when it is taken, so
// Up repairs and Down removes whatever a crash has left.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// Config of a demo.
type Config struct {
	Dir string // where it keeps everything; one demo per directory. Default paths.DemoDir
	Bin string // directory of the binaries, default: that of the running one
	Out io.Writer
}

// Demo works on the demo of one directory. Its methods are not to be called at the same time; other processes are
// kept out by a lock.
type Demo struct {
	dir    string
	prefix string // of the namespaces
	binDir string
	bin    lab.Binaries
	out    io.Writer

	mu    sync.Mutex // guards state
	state *state
}

// New looks at nothing yet: there may or may not be a demo.
func New(cfg Config) (*Demo, error) {
	if cfg.Dir == "" {
		cfg.Dir = paths.DemoDir
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the demo's directory: %w", err)
	}
	d := &Demo{dir: dir, prefix: "hypha-demo", binDir: cfg.Bin, out: cfg.Out}
	if dir != paths.DemoDir {
		sum := sha256.Sum256([]byte(dir))
		d.prefix = "hypha-lab-" + hex.EncodeToString(sum[:4])
	}
	if d.binDir == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find hypha's own binary: %w", err)
		}
		d.binDir = filepath.Dir(exe)
	}
	if d.out == nil {
		d.out = io.Discard
	}
	return d, nil
}

// A node of the demo, fixed.
type node struct {
	name string
	ip4  string
	ip6  string
}

const (
	worldName = "world"    // namespace outside the cluster, and the switch between the nodes
	worldNet  = "underlay" // its bridge
	worldIP4  = "172.29.0.254"
	worldIP6  = "fd29::fe"
	outside4  = "203.0.113.10" // what pods reach as "world" (RFC 5737, RFC 3849)
	outside6  = "2001:db8::10"
	etcdPort  = "2379"
)

var nodes = []node{{"node1", "172.29.0.1", "fd29::1"}, {"node2", "172.29.0.2", "fd29::2"}}

// story are the pods of the story that Up tells.
var story = []pod{
	{Name: "app1", Namespace: "default", Node: "node1", Labels: []string{"id=app1"}},
	{Name: "app2", Namespace: "default", Node: "node1", Labels: []string{"id=app2"}},
	{Name: "app2-remote", Namespace: "default", Node: "node2", Labels: []string{"id=app2"}},
	{Name: "app3", Namespace: "default", Node: "node2", Labels: []string{"id=app3"}},
}

func isNode(name string) bool {
	for _, n := range nodes {
		if n.name == name {
			return true
		}
	}
	return false
}

// nsName is the namespace of a node, pod or the world.
func (d *Demo) nsName(name string) string { return d.prefix + "-" + name }

func (d *Demo) open(name string) (*netns.NS, error) { return netns.Open(d.nsName(name)) }

// Files of the demo; the agents' own are below the directories with their names.
func (d *Demo) stateFile() string  { return filepath.Join(d.dir, "demo.json") }
func (d *Demo) hostsFile() string  { return filepath.Join(d.dir, "hosts") }
func (d *Demo) policyFile() string { return filepath.Join(d.dir, "l3-rule.json") }
func (d *Demo) logFile(name string) string {
	return filepath.Join(d.dir, "log", name+".log")
}

func (d *Demo) agent(n node) (lab.Agent, error) {
	ns, err := d.open(n.name)
	if err != nil {
		return lab.Agent{}, err
	}
	first := paths.For(d.dir, nodes[0].name)
	opts := map[string]any{
		"cluster-name":  "demo",
		"node-ip":       []string{n.ip4},
		"devices":       []string{"eth0"},
		"enable-ipv6":   hasIPv6(),
		"ipv4-pool":     "10.10.0.0/16",
		"ipv6-pool":     "fd10::/104",
		"routing-mode":  "tunnel",
		"log-format":    "text",
		"enable-policy": "default",
	}
	if hasIPv6() {
		opts["node-ip"] = []string{n.ip4, n.ip6}
	}
	if n.name == nodes[0].name {
		opts["etcd-listen"] = []string{"https://" + n.ip4 + ":" + etcdPort}
	} else {
		opts["etcd-endpoints"] = []string{"https://" + nodes[0].ip4 + ":" + etcdPort}
		opts["etcd-ca-file"] = filepath.Join(first.PKI(), "ca.crt")
		opts["etcd-cert-file"] = filepath.Join(first.PKI(), "client.crt")
		opts["etcd-key-file"] = filepath.Join(first.PKI(), "client.key")
	}
	return lab.Agent{
		Binary: d.bin.Agent, NS: ns, StateDir: d.dir, Node: n.name,
		Config: filepath.Join(d.dir, n.name+".yaml"), Log: d.logFile(n.name), Options: opts,
	}, nil
}

// hasIPv6 says whether the kernel has IPv6 (it can be switched off at boot).
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// each runs fn for all at the same time and returns the first error, the others' work being ended.
func each[T any](ctx context.Context, all []T, fn func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, x := range all {
		wg.Go(func() {
			if err := fn(ctx, x); err != nil {
				cancel(err) // the first one stays
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
