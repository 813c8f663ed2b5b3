package prefilter

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// Hit is an address of a node that a prefix denies.
type Hit struct {
	Prefix netip.Prefix
	Addr   netip.Addr
	Node   string
}

// String is what is wrong with it.
func (h Hit) String() string {
	return fmt.Sprintf("%s covers %s (node %s)", h.Prefix, h.Addr, h.Node)
}

// Hits are the addresses, with the names of their nodes, that sorted prefixes cover; by address, each with the widest prefix. The
// work is that of some searches for each address, however many prefixes there are.
func Hits(ps []netip.Prefix, nodes map[netip.Addr]string) (out []Hit) {
	var lengths [2][129]bool // by IP version: IPv4, IPv6
	for _, p := range ps {
		lengths[version(p.Addr())][p.Bits()] = true
	}
	for _, a := range slices.SortedFunc(maps.Keys(nodes), netip.Addr.Compare) {
		for bits := range a.BitLen() + 1 {
			if !lengths[version(a)][bits] {
				continue
			}
			p, err := a.Prefix(bits)
			if err != nil {
				continue // a zone: no source on a wire has one
			}
			if _, found := slices.BinarySearchFunc(ps, p, model.CompareCIDRs); found {
				out = append(out, Hit{Prefix: p, Addr: a, Node: nodes[a]})
				break
			}
		}
	}
	return out
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Spare says why these prefixes, sorted, must not be denied, nil if they may: who denies a node cuts it off from the cluster.
func Spare(ps []netip.Prefix, nodes map[netip.Addr]string) error {
	var texts []string
	for _, h := range Hits(ps, nodes) {
		texts = append(texts, h.String())
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(some(texts) + ": the nodes of the cluster would not hear of each other any more")
}
