package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
)

// What the clusters are made of. Applications a0..a499 have many pods each; the workloads of the node are of the first
// hundred, and it is those that policies select.
const (
	applications = 500
	workloads    = 100
	policies     = 250
	identities   = 3000
	services     = 1000
)

func appLabel(i int) string { return fmt.Sprintf("app=a%d", i%applications) }

// identityOf is the i-th identity of the cluster, as the agents of its other nodes number it.
func identityOf(i int) model.Identity {
	return model.Identity{ID: model.IdentityID(20000 + i), Labels: model.NewLabels(
		model.Label{Source: model.SourceK8s, Key: "app", Value: fmt.Sprintf("a%d", i%applications)},
		model.Label{Source: model.SourceK8s, Key: "pod", Value: fmt.Sprintf("p%d", i)},
		model.Label{Source: model.SourceK8s, Key: "io.kubernetes.pod.namespace", Value: fmt.Sprintf("n%d", i%20)},
	)}
}

func nodeName(i int) string { return fmt.Sprintf("far%04d", i) }

// farNode is the i-th other node: an address of each version on the underlay, and a range of each for its pods.
func farNode(i int) model.Node {
	hi, lo := byte(i/250), byte(1+i%250)
	v4 := netip.AddrFrom4([4]byte{172, 28, hi, lo})
	pods4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + hi, lo, 0}), 24)
	pods6 := netip.MustParsePrefix(fmt.Sprintf("fd40::%x:0/112", i+1))
	return model.Node{Name: nodeName(i), Cluster: clusterName, Addrs: []netip.Addr{v4, netip.MustParseAddr(fmt.Sprintf("fd28::%x", i+1))},
		PodCIDRs: []netip.Prefix{pods4, pods6}, Routers: []netip.Addr{pods4.Addr().Next(), pods6.Addr().Next()}}
}

const clusterName = "e2e" // of package cluster

// podEntry is the i-th pod of the cluster, spread over so many nodes.
func podEntry(i, nodes int) (node string, e model.IPEntry) {
	n := farNode(i % nodes)
	a := n.PodCIDRs[0].Addr().As4()
	a[3] = byte(10 + i/nodes)
	return n.Name, model.IPEntry{Prefix: netip.PrefixFrom(netip.AddrFrom4(a), 32), Identity: identityOf(i).ID, Tunnel: n.Addrs[0],
		Name: fmt.Sprintf("p%d", i), Namespace: fmt.Sprintf("n%d", i%20)}
}

// identityRows are the keys of identities from..to-1, each used on one node.
func identityRows(from, to, nodes int) (out []kvstore.KV, err error) {
	for i := from; i < to; i++ {
		kvs, err := kvstore.IdentityRows(nodeName(i%nodes), identityOf(i))
		if err != nil {
			return nil, err
		}
		out = append(out, kvs...)
	}
	return out, nil
}

type object = map[string]any

func selector(label string, value string) object { return object{"matchLabels": object{label: value}} }

// rule is the i-th policy: an application of the node may be reached by one of the cluster, on a port; each twentieth by
// a whole tier of them besides.
func rule(i int) object {
	from := []object{selector("app", fmt.Sprintf("a%d", (i*7)%applications))}
	if i%20 == 0 {
		from = append(from, selector("k8s:io.kubernetes.pod.namespace", fmt.Sprintf("n%d", i%3)))
	}
	return object{"labels": []object{{"key": "name", "value": fmt.Sprintf("rule%d", i)}}, "endpointSelector": selector("app", fmt.Sprintf("a%d", i%workloads)),
		"ingress": []object{{"fromEndpoints": from, "toPorts": ports("TCP", 1+i%60000)}}}
}

func ports(proto string, port int) []object {
	return []object{{"ports": []object{{"port": fmt.Sprint(port), "protocol": proto}}}}
}

func document(rules ...object) string {
	b, err := json.Marshal(rules)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return string(b)
}

// manyRules is a document of the first n policies.
func manyRules(n int) string {
	all := make([]object, n)
	for i := range all {
		all[i] = rule(i)
	}
	return document(all...)
}
