package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Identity is a label set that packets may come with, and what is known of the workloads that have it.
type Identity struct {
	model.Identity
	NamedPorts []model.NamedPort // of its workloads, cluster-wide
}

// identity is an Identity with what selectors ask of it worked out.
type identity struct {
	peer   model.Peer
	labels model.Labels
	ports  []model.NamedPort // sorted, each once
	prefix netip.Prefix      // of the addresses it stands for: of outside ones, and of those of an insider in an area

	node, host, cluster, world4, world6 bool

	inside bool // prefix is where an insider lives: it is meant by blocks,
	byCIDR bool // and by other CIDRs too, being a node of which the settings say so

	cell *cell
}

// newIdentity works out what a label set is. cidr allows a "cidr:" label to count: not for workloads, whose labels say
// nothing about addresses.
func newIdentity(cfg Config, id model.IdentityID, ls model.Labels, ports []model.NamedPort, cidr bool) *identity {
	out := &identity{peer: model.Peer{Identity: id}, labels: ls, ports: slices.Clone(ports)}
	slices.SortFunc(out.ports, comparePort)
	out.ports = slices.Compact(out.ports)
	var reserved, outside, cidrOnly bool
	cidrOnly = true
	clusterName, hasCluster := "", false
	for _, l := range ls {
		switch l.Source {
		case model.SourceReserved:
			reserved = true
			switch l.Key {
			case "remote-node":
				out.node, out.cluster = true, true
			case "host":
				out.host, out.cluster = true, true
			case "init", "ingress", "health", "unmanaged", "kube-apiserver":
				out.cluster = true
			case "world":
				outside = true
				out.world4, out.world6 = out.world4 || cfg.IPv4, out.world6 || cfg.IPv6
			case "world-ipv4":
				outside, out.world4 = true, true
			case "world-ipv6":
				outside, out.world6 = true, true
			}
		case model.SourceNode:
			out.node = true
		case model.SourceCIDR:
			if p, ok := prefixOf(l); cidr && ok {
				out.prefix = p
			}
		case model.SourceCIDRGroup, model.SourceFQDN:
		default:
			cidrOnly = false
			if l.Key == model.KeyCluster && l.Source == model.SourceK8s {
				clusterName, hasCluster = l.Value, true
			}
		}
	}
	isNode := out.node || out.host
	if isNode {
		out.prefix = netip.Prefix{} // where a node lives is known by itself
	}
	if out.prefix.IsValid() && outside {
		out.world4, out.world6 = out.prefix.Addr().Is4(), out.prefix.Addr().Is6()
	}
	if !reserved && !cidrOnly && !isNode && (!hasCluster || clusterName == cfg.Cluster) {
		out.cluster = true
	}
	return out
}

// insider says whether it stands for workloads or nodes, and not for what is outside.
func (id *identity) insider() bool { return !id.prefix.IsValid() && !id.world4 && !id.world6 }

// at is an insider as a peer where it lives.
func (id *identity) at(cfg Config, area model.AreaID, prefix netip.Prefix) *identity {
	out := *id
	out.peer.Area, out.prefix, out.inside, out.cell = area, prefix, true, nil
	out.byCIDR = cfg.CIDRMatchNodes && (id.node || id.host)
	return &out
}

func hasReserved(ls model.Labels, key string) bool {
	_, ok := ls.Get(model.SourceReserved, key)
	return ok
}

func comparePort(a, b model.NamedPort) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if a.Proto != b.Proto {
		return int(a.Proto) - int(b.Proto)
	}
	return int(a.Port) - int(b.Port)
}

// CIDRLabel is the label of the identity of a prefix. Label keys have no colons, so IPv6 is written with "-", and a
// leading or trailing "-" gets a 0 beside it: cidr:fd00--0/8.
func CIDRLabel(p netip.Prefix) model.Label {
	a := strings.ReplaceAll(p.Addr().String(), ":", "-")
	if strings.HasPrefix(a, "-") {
		a = "0" + a
	}
	if strings.HasSuffix(a, "-") {
		a += "0"
	}
	return model.Label{Source: model.SourceCIDR, Key: a + p.String()[strings.LastIndexByte(p.String(), '/'):]}
}

func prefixOf(l model.Label) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(strings.ReplaceAll(l.Key, "-", ":"))
	return p, err == nil && !p.Addr().Is4In6()
}

// cidrLabels are the labels of the identity of a prefix outside.
func cidrLabels(cfg Config, p netip.Prefix) model.Labels {
	world := "world"
	if cfg.IPv4 && cfg.IPv6 {
		if world = "world-ipv6"; p.Addr().Is4() {
			world = "world-ipv4"
		}
	}
	return model.NewLabels(CIDRLabel(p), model.Label{Source: model.SourceReserved, Key: world})
}
