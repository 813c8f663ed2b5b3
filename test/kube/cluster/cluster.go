// Package cluster makes a real Kubernetes cluster on one machine, removes it without a trace, and says how it is. Each node is a
// machine made of namespaces (package machine), and so is the control plane:
//
//	                      hypha-<name>-world: bridge, .254
//	                       |           |           |
//	the machine itself, .253   control, .1   node1, .11   node2, .12   ...
//
// Nodes run containerd and kubelet, the control plane etcd, the API server, controllers and the scheduler. There is neither kube-proxy
// nor a CNI plugin, so nodes are not ready until one is installed.
//
// Everything lies in one directory, which goes with the cluster: cluster.json, kubeconfig, pki/, and the root of each machine,
// <machine>/, with the logs of its programs in var/log.
package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
)

// Config of a cluster.
type Config struct {
	Name      string
	Dir       string // its directory; default /var/lib/hypha-kube/<name>
	Nodes     int
	DualStack bool
	Member    bool   // whether the control plane is a node as well, on which pods run that tolerate it
	Programs  string // directory of the programs of Kubernetes
	Images    string // directory of archives that every node's containerd is given
	Out       io.Writer
}

// Cluster works on the cluster of one name. There may or may not be one.
type Cluster struct {
	Config
	net byte // third octet of its IPv4 network
}

// home is where clusters lie by default.
const home = "/var/lib/hypha-kube"

const maxNodes = 100

// nameForm leaves room for "hypha-" in the name of a device, which has 15 characters.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,8}$`)

// New checks the configuration.
func New(c Config) (*Cluster, error) {
	if !nameForm.MatchString(c.Name) {
		return nil, fmt.Errorf("%q is no name for a cluster: want up to 9 lower-case letters and digits, a letter first", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, maxNodes)
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(home, c.Name)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the cluster's directory: %w", err)
	}
	c.Dir = dir
	if c.Out == nil {
		c.Out = io.Discard
	}
	return &Cluster{Config: c, net: octet(c.Name)}, nil
}

// octet gives each name a network; that of the usual one is known.
func octet(name string) byte {
	if name == "kube" {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return byte(1 + h.Sum32()%255)
}

// Addresses of the cluster's own network end in these; the nth node's in firstNode+n.
const (
	controlHost = 1
	firstNode   = 11
	machineHost = 253
	routerHost  = 254
)

// Ranges of pods and services.
const (
	pods4     = "10.244.0.0/16"
	pods6     = "fd00:10:244::/56"
	services4 = "10.96.0.0/16"
	services6 = "fd00:10:96::/112"
	apiVIP4   = "10.96.0.1"
	apiVIP6   = "fd00:10:96::1"
	dnsVIP4   = "10.96.0.10"
	apiPort   = "6443"
)

// addrs are the addresses of a host of the cluster's network, IPv4 first.
func (c *Cluster) addrs(host byte) []netip.Addr {
	out := []netip.Addr{netip.AddrFrom4([4]byte{172, 30, c.net, host})}
	if c.DualStack {
		out = append(out, netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x30, 7: c.net, 15: host}))
	}
	return out
}

// interfaces are addrs with the lengths of their networks.
func (c *Cluster) interfaces(host byte) []string {
	var out []string
	for _, a := range c.addrs(host) {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		out = append(out, netip.PrefixFrom(a, bits).String())
	}
	return out
}

// apiURL is where the API server is for everybody but itself.
func (c *Cluster) apiURL() string {
	return "https://" + c.addrs(controlHost)[0].String() + ":" + apiPort
}

// prefix begins the names of all that the kernel knows of the cluster.
func (c *Cluster) prefix() string { return "hypha-" + c.Name }

func (c *Cluster) nsName(name string) string { return c.prefix() + "-" + name }

func (c *Cluster) open(name string) (*netns.NS, error) { return netns.Open(c.nsName(name)) }

// Names of machines, and of the namespace with their bridge.
const (
	control = "control"
	world   = "world"
)

// node is a machine with a kubelet.
type node struct {
	name string
	host byte // end of its addresses
}

// nodes are those of the cluster, the control plane first if it is one.
func (c *Cluster) nodes() []node {
	var out []node
	if c.Member {
		out = append(out, node{name: control, host: controlHost})
	}
	for i := range c.Nodes {
		out = append(out, node{name: fmt.Sprintf("node%d", i+1), host: byte(firstNode + i)})
	}
	return out
}

// workers are the nodes whose machines are nothing else.
func (c *Cluster) workers() []node {
	return slices.DeleteFunc(c.nodes(), func(n node) bool { return n.name == control })
}

// machines are the names of all.
func (c *Cluster) machines() []string {
	out := []string{control}
	for _, n := range c.workers() {
		out = append(out, n.name)
	}
	return out
}

// Files of the cluster.
func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Kubeconfig is the file by which the machine itself reaches the cluster as its administrator.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

func (c *Cluster) pidFile(machine string) string { return c.path(machine + ".pid") }

func (c *Cluster) say(format string, args ...any) { _, _ = fmt.Fprintf(c.Out, format+"\n", args...) }

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: makes namespaces, mounts and control groups")
	}
	return nil
}

// lock keeps other processes from working on the cluster of this directory, which has to be there.
func (c *Cluster) lock() (unlock func(), err error) {
	f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cluster: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another process works on the cluster in %s", c.Dir)
	}
	return func() { _ = f.Close() }, nil
}
