package kvstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// ipPair is the row of an address as the field writes it, with the node that published it.
type ipPair struct {
	IP           netip.Addr       `json:"IP"`
	Mask         net.IPMask       `json:"Mask"`
	HostIP       netip.Addr       `json:"HostIP"`
	ID           model.IdentityID `json:"ID"`
	Key          uint8            `json:"Key"`
	Metadata     string           `json:"Metadata"`
	K8sNamespace string           `json:"K8sNamespace,omitempty"`
	K8sPodName   string           `json:"K8sPodName,omitempty"`
	NamedPorts   []ipPort         `json:"NamedPorts,omitempty"`
	Node         string           `json:"Node,omitempty"`
}

type ipPort struct {
	Name     string `json:"Name"`
	Port     uint16 `json:"Port"`
	Protocol string `json:"Protocol"`
}

var protoNames = map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}

// IPs is who lives where.
type IPs struct {
	s *Store
	f *follower[netip.Prefix, model.IPEntry]

	mu       sync.Mutex
	mine     map[string]int64 // keys this node has in the store, with their revisions
	declared bool             // Replace has said what is ours
}

func newIPs(s *Store) *IPs {
	p := &IPs{s: s, mine: map[string]int64{}}
	p.f = &follower[netip.Prefix, model.IPEntry]{
		s: s, prefix: ipRoot + s.cfg.ClusterName + "/", cache: "ips.json",
		tab:    table.New[netip.Prefix, model.IPEntry]("kvstore-ips", table.Prefix),
		rowOf:  func(v model.IPEntry) netip.Prefix { return v.Prefix },
		cached: func(v model.IPEntry) model.IPEntry { v.Source = model.IPSourceRestored; return v },
		parse:  p.parse,
		after:  p.after,
	}
	p.f.load()
	return p
}

func (p *IPs) run(ctx context.Context) { p.f.run(ctx) }

// Table holds the addresses that other nodes published, with the address of their node in Tunnel. This node's own are
// not in it: what lives here, the agent knows itself.
func (p *IPs) Table() *table.Table[netip.Prefix, model.IPEntry] { return p.f.tab }

// Publish declares that these addresses are workloads of this node. Tunnel must be this node's own underlay address. What
// IPRow refuses is refused.
func (p *IPs) Publish(rows ...model.IPEntry) error {
	kvs := make([]KV, len(rows))
	for i, e := range rows {
		kv, err := IPRow(p.s.cfg.ClusterName, p.s.cfg.NodeName, e)
		if err != nil {
			return fmt.Errorf("publish %w", err)
		}
		kvs[i] = kv
	}
	for _, kv := range kvs {
		p.s.leases.put(kv.Key, string(kv.Value))
	}
	return nil
}

// Withdraw declares that these addresses are no longer workloads of this node.
func (p *IPs) Withdraw(prefixes ...netip.Prefix) {
	for _, x := range prefixes {
		p.s.leases.drop(p.key(x))
	}
}

// Replace declares that exactly these addresses are workloads of this node: after a restart, once the endpoints are
// restored. Others that this node published, in this run or an earlier one, are withdrawn.
func (p *IPs) Replace(rows []model.IPEntry) error {
	if err := p.Publish(rows...); err != nil {
		return err
	}
	keep := make(map[string]bool, len(rows))
	for _, e := range rows {
		keep[p.key(e.Prefix)] = true
	}
	p.s.leases.dropOthers(p.f.prefix, keep)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declared = true
	p.dropLeft()
	return nil
}

// dropLeft withdraws what an earlier run left. Until Replace has been called nothing is: a restarting agent has first to
// find out what it has.
func (p *IPs) dropLeft() {
	if !p.declared {
		return
	}
	for key, rev := range p.mine {
		p.s.leases.dropOld(key, rev)
	}
}

func (p *IPs) key(x netip.Prefix) string { return p.f.prefix + ipSuffix(x) }

// publishable says whether an identity may come from another node for a workload: those the cluster hands out, and the
// two that workloads have without labels. Never host, world or the like: that would be a way around policy.
func publishable(id model.IdentityID) bool {
	return !id.Local() && (id >= model.IdentityUserMin || id == model.IdentityHealth || id == model.IdentityInit)
}

func (p *IPs) parse(key string, value []byte) (netip.Prefix, model.IPEntry, bool, error) {
	var e model.IPEntry
	prefix, ok := parseIPSuffix(key)
	if !ok || ipSuffix(prefix) != key {
		return prefix, e, false, fmt.Errorf("address %q: not an address or prefix in its usual form", key)
	}
	var v ipPair
	if err := json.Unmarshal(value, &v); err != nil {
		return prefix, e, false, fmt.Errorf("address %s: %w", key, err)
	}
	if v.Node == p.s.cfg.NodeName {
		return prefix, e, false, nil
	}
	switch {
	case !publishable(v.ID):
		return prefix, e, false, fmt.Errorf("address %s: identity %d is not for other nodes", key, v.ID)
	case !v.HostIP.IsValid():
		return prefix, e, false, fmt.Errorf("address %s: no address of its node", key)
	}
	e = model.IPEntry{Prefix: prefix, Identity: v.ID, Tunnel: v.HostIP.Unmap(), Source: model.IPSourceKVStore, NoMasq: true,
		Name: v.K8sPodName, Namespace: v.K8sNamespace}
	for _, np := range v.NamedPorts {
		for proto, name := range protoNames {
			if strings.EqualFold(name, np.Protocol) {
				e.NamedPorts = append(e.NamedPorts, model.NamedPort{Name: np.Name, Port: np.Port, Proto: proto})
			}
		}
	}
	return prefix, e, true, nil
}

func (p *IPs) after(batch []Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range batch {
		var v struct{ Node string }
		if e.Kind == EventPut && json.Unmarshal(e.Value, &v) == nil && v.Node == p.s.cfg.NodeName {
			p.mine[e.Key] = e.Revision
		} else if e.Kind != EventSynced {
			delete(p.mine, e.Key)
		}
	}
	p.dropLeft()
}
