// Package cluster makes real clusters out of network namespaces, for the end-to-end tests and the benchmarks: one or two
// nodes with an agent each on a switch, a namespace outside, and pods attached by the CNI plugin.
//
//	node1 (172.29.0.1, fd29::1) --+-- world: switch .254/::fe, outside 203.0.113.10, 2001:db8::10
//	node2 (172.29.0.2, fd29::2) --+
//
// Everything is named after the process that made it: Close removes it, and what a killed process left goes with the next
// New.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// Addresses outside the cluster.
const (
	Outside4 = "203.0.113.10"
	Outside6 = "2001:db8::10"
	world4   = "172.29.0.254"
	world6   = "fd29::fe"
)

// Config of a cluster.
type Config struct {
	Bin     lab.Binaries
	Nodes   int // 1 or 2
	IPv4    bool
	IPv6    bool
	Native  bool           // routes between the nodes instead of the overlay
	Options map[string]any // of all agents, over the usual ones
	// Kubeconfig names the API server that keeps the cluster's state, in a file that has to be there by the end of Prepare; "": etcd does.
	Kubeconfig string
	Prepare    func(*Cluster) error // runs when the network is there and before any agent starts; nil: nothing
}

// Cluster is a running cluster. Its methods may be called from several goroutines.
type Cluster struct {
	cfg   Config
	Dir   string // state directory of all agents
	World *netns.NS
	Nodes []*Node

	mu   sync.Mutex
	pods map[string]*Pod
}

// Node is a member of the cluster.
type Node struct {
	Name  string
	NS    *netns.NS
	IP4   netip.Addr
	IP6   netip.Addr
	Paths paths.Paths

	agent   lab.Agent
	mu      sync.Mutex
	process *lab.Process
	reader  agentv1connect.ReaderClient // of this process
	admin   agentv1connect.AdminClient
}

// New makes a cluster whose agents are ready and know each other. On error nothing is left.
func New(ctx context.Context, cfg Config) (c *Cluster, err error) {
	if cfg.Nodes < 1 || cfg.Nodes > 2 || !cfg.IPv4 && !cfg.IPv6 {
		return nil, errors.New("make cluster: want one or two nodes and an IP version")
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	if _, err := lab.MountBPF(); err != nil {
		return nil, err
	}
	name, err := netns.TempName("c")
	if err != nil {
		return nil, err
	}
	c = &Cluster{cfg: cfg, Dir: filepath.Join(os.TempDir(), name), pods: map[string]*Pod{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		return c, fmt.Errorf("make cluster: %w", err)
	}
	if err := c.wire(); err != nil {
		return c, err
	}
	if cfg.Prepare != nil {
		if err := cfg.Prepare(c); err != nil {
			return c, err
		}
	}
	for _, n := range c.Nodes {
		if err := n.Start(ctx, 1); err != nil {
			return c, err
		}
	}
	for _, n := range c.Nodes {
		if err := n.WaitReady(ctx, len(c.Nodes)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// wire makes the namespaces and the network between them.
func (c *Cluster) wire() (err error) {
	if c.World, err = netns.Temp("world"); err != nil {
		return err
	}
	if err := c.World.Bridge("underlay"); err != nil {
		return err
	}
	// Both families always: a cluster without one must not mind that the network has it.
	if err := errors.Join(c.World.AddAddr("underlay", world4+"/24", world6+"/64"), c.World.AddAddr("lo", Outside4+"/32", Outside6+"/128")); err != nil {
		return err
	}
	if err := errors.Join(c.World.Sysctl("net.ipv4.ip_forward", "1"), c.World.Sysctl("net.ipv6.conf.all.forwarding", "1")); err != nil {
		return err
	}
	for i := range c.cfg.Nodes {
		n := &Node{
			Name: fmt.Sprintf("node%d", i+1),
			IP4:  netip.AddrFrom4([4]byte{172, 29, 0, byte(i + 1)}),
			IP6:  netip.MustParseAddr(fmt.Sprintf("fd29::%x", i+1)),
		}
		n.Paths = paths.For(c.Dir, n.Name)
		if n.NS, err = netns.Temp(n.Name); err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
		if err := netns.Veth(c.World, n.Name, n.NS, "eth0"); err != nil {
			return err
		}
		err := errors.Join(c.World.SetMaster(n.Name, "underlay"),
			n.NS.AddAddr("eth0", n.IP4.String()+"/24", n.IP6.String()+"/64"))
		if err == nil {
			err = errors.Join(n.NS.AddRoute("default", world4), n.NS.AddRoute("default", world6))
		}
		if err != nil {
			return err
		}
		n.agent = c.agentOf(i, n)
	}
	return nil
}

func (c *Cluster) agentOf(i int, n *Node) lab.Agent {
	opts := map[string]any{
		"cluster-name": "e2e", "devices": []string{"eth0"}, "enable-ipv4": c.cfg.IPv4, "enable-ipv6": c.cfg.IPv6,
		"ipv4-pool": "10.10.0.0/16", "ipv6-pool": "fd10::/104", "routing-mode": "tunnel", "debug": true,
	}
	var ips []string
	if c.cfg.IPv4 {
		ips = append(ips, n.IP4.String())
	}
	if c.cfg.IPv6 {
		ips = append(ips, n.IP6.String())
	}
	opts["node-ip"] = ips
	if c.cfg.Native {
		opts["routing-mode"], opts["auto-direct-node-routes"] = "native", true
	}
	if c.cfg.Kubeconfig != "" {
		opts["k8s-kubeconfig-path"] = c.cfg.Kubeconfig
		maps.Copy(opts, c.cfg.Options)
		return c.agent(n, opts)
	}
	url := "https://" + netip.AddrPortFrom(c.Nodes[0].IP4, 2379).String()
	if i == 0 {
		opts["etcd-listen"] = []string{url}
	} else {
		pki := c.Nodes[0].Paths.PKI()
		opts["etcd-endpoints"] = []string{url}
		opts["etcd-ca-file"] = filepath.Join(pki, "ca.crt")
		opts["etcd-cert-file"] = filepath.Join(pki, "client.crt")
		opts["etcd-key-file"] = filepath.Join(pki, "client.key")
	}
	maps.Copy(opts, c.cfg.Options)
	return c.agent(n, opts)
}

func (c *Cluster) agent(n *Node, opts map[string]any) lab.Agent {
	return lab.Agent{
		Binary: c.cfg.Bin.Agent, NS: n.NS, StateDir: c.Dir, Node: n.Name, Options: opts,
		Config: filepath.Join(c.Dir, n.Name+".yaml"), Log: filepath.Join(c.Dir, n.Name+".log"),
	}
}

// Close ends everything and removes it.
func (c *Cluster) Close() error {
	var errs error
	for _, n := range c.Nodes {
		errs = errors.Join(errs, n.Kill())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, p := range c.pods {
		errs = errors.Join(errs, p.NS.Remove())
		delete(c.pods, name)
	}
	for _, n := range c.Nodes {
		errs = errors.Join(errs, n.NS.Remove(), lab.RemovePins(n.Paths), lab.RemoveCgroup(n.Paths), unmount(n.Paths))
	}
	if c.World != nil {
		errs = errors.Join(errs, c.World.Remove())
	}
	return errors.Join(errs, os.RemoveAll(c.Dir))
}

// Sweep removes what processes that run no more have left: namespaces, pins, control groups and directories.
func Sweep() error {
	if err := netns.Sweep(); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), netns.TempPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for old clusters: %w", err)
	}
	for _, dir := range dirs {
		id, ok := netns.TempOwner(filepath.Base(dir))
		if !ok || id.Alive() {
			continue
		}
		for _, node := range []string{"node1", "node2"} {
			p := paths.For(dir, node)
			if err := errors.Join(lab.RemovePins(p), lab.RemoveCgroup(p), unmount(p)); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old cluster: %w", err)
		}
	}
	return nil
}
