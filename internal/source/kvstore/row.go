package kvstore

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/hypha-net/hypha/internal/model"
)

// NodeRow is the key that says what a node is.
func NodeRow(n model.Node) (KV, error) {
	key := nodeRoot + n.Cluster + "/" + n.Name
	value, err := json.Marshal(n)
	if err != nil {
		return KV{}, fmt.Errorf("describe node %s: %w", n.Name, err)
	}
	if _, _, _, err := parseNode(n.Name, value); err != nil {
		return KV{}, fmt.Errorf("describe node: %w", err)
	}
	return KV{Key: key, Value: value}, nil
}

// PodCIDRRow is the key that gives a node a pod range.
func PodCIDRRow(node string, p netip.Prefix) KV {
	return KV{Key: podCIDRRoot + p.String(), Value: []byte(node)}
}

// IdentityRows are the keys that give labels a number in the cluster, as one node that uses it writes them.
func IdentityRows(node string, id model.Identity) ([]KV, error) {
	labels, num := id.Labels.Key(), []byte(strconv.FormatUint(uint64(id.ID), 10))
	if err := checkLabels(id.Labels, labels); err != nil {
		return nil, err
	}
	return []KV{
		{Key: identityIndex + labels, Value: num},
		{Key: masterKey(id.ID), Value: []byte(labels)},
		{Key: useKey(node, labels), Value: num},
	}, nil
}

func useKey(node, labels string) string { return identityValue + labels + "/" + node }

// IPRow is the key that says which workload of a node lives at an address; e.Tunnel is the node's own address on the
// underlay. Reserved and node-local identities mean nothing, or too much, elsewhere and are refused; but health (4) and
// init (5).
func IPRow(cluster, node string, e model.IPEntry) (KV, error) {
	switch {
	case !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6():
		return KV{}, fmt.Errorf("%s: not an address or prefix", e.Prefix)
	case !e.Tunnel.IsValid():
		return KV{}, fmt.Errorf("%s: no address of its node", e.Prefix)
	case !publishable(e.Identity):
		return KV{}, fmt.Errorf("%s: identity %d is not for other nodes", e.Prefix, e.Identity)
	}
	v := ipPair{IP: e.Prefix.Addr(), HostIP: e.Tunnel, ID: e.Identity, K8sNamespace: e.Namespace, K8sPodName: e.Name, Node: node}
	if !e.Prefix.IsSingleIP() {
		v.Mask = net.CIDRMask(e.Prefix.Bits(), e.Prefix.Addr().BitLen())
	}
	for _, np := range e.NamedPorts {
		name, ok := protoNames[np.Proto]
		if !ok {
			return KV{}, fmt.Errorf("%s: named port %s: protocol %d has no ports", e.Prefix, np.Name, np.Proto)
		}
		v.NamedPorts = append(v.NamedPorts, ipPort{Name: np.Name, Port: np.Port, Protocol: name})
	}
	data, err := json.Marshal(v)
	return KV{Key: ipRoot + cluster + "/" + ipSuffix(e.Prefix), Value: data}, err
}
