package demo

import (
	"net/netip"
	"path/filepath"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// A Node of the demo, for those who work with one that is up.
type Node struct {
	Name  string
	Addrs []netip.Addr
	Paths paths.Paths // of its agent
}

// Nodes are the demo's, up or not.
func (d *Demo) Nodes() []Node {
	var out []Node
	for _, n := range nodes {
		m := Node{Name: n.name, Addrs: []netip.Addr{netip.MustParseAddr(n.ip4)}, Paths: paths.For(d.dir, n.name)}
		if hasIPv6() {
			m.Addrs = append(m.Addrs, netip.MustParseAddr(n.ip6))
		}
		out = append(out, m)
	}
	return out
}

// Outside is the world of a demo: a namespace beyond the nodes.
type Outside struct {
	NS    *netns.NS
	Name  string       // as Exec calls it
	Addrs []netip.Addr // its own, on its loopback device
	Link  []netip.Addr // by which nodes reach it
}

// World is the outside of a demo that is up.
func (d *Demo) World() (Outside, error) {
	o := Outside{Name: worldName, Addrs: []netip.Addr{netip.MustParseAddr(outside4)}, Link: []netip.Addr{netip.MustParseAddr(worldIP4)}}
	if hasIPv6() {
		o.Addrs, o.Link = append(o.Addrs, netip.MustParseAddr(outside6)), append(o.Link, netip.MustParseAddr(worldIP6))
	}
	var err error
	o.NS, err = d.open(worldName)
	return o, err
}

// Log is the file for the output of what runs in the demo under a name.
func (d *Demo) Log(name string) string { return d.logFile(name) }

// Dir is where the demo keeps everything.
func (d *Demo) Dir() string { return d.dir }

// DirOf is the directory of the demo whose agent has a socket; "": it is no demo's.
func DirOf(socket string) string {
	dir := filepath.Dir(filepath.Dir(socket))
	d, err := New(Config{Dir: dir})
	if err != nil {
		return ""
	}
	if _, err := d.load(); err != nil {
		return ""
	}
	return dir
}
