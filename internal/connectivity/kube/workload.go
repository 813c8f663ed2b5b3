package kube

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/connectivity"
)

//go:embed workloads.yaml
var workloadText string

var workloadTemplate = template.Must(template.New("workloads").Parse(workloadText))

// workloads are the values of the template.
type workloads struct {
	Namespace   string
	Image       string
	PullSecrets string // JSON
	Port        int
	PortName    string
	HostPort    int
	Hosts       string // JSON: names of the nodes that are used, as their labels have them
	Pods        []podValues
	Outside     *outsideValues
}

type podValues struct {
	Name, Kind, Node string
	Labels           string // JSON
	Echo             bool
}

// outsideValues are addresses of a machine outside, which each node has of its own: they are for documentation, so nobody else has them.
type outsideValues struct {
	Node, Addrs string // with lengths, separated by ","
	First       netip.Addr
	External    connectivity.External
}

func newOutside(v6 bool) *outsideValues {
	block := func(cidr string) connectivity.Block {
		p := netip.MustParsePrefix(cidr)
		ip := p.Addr().Next()
		return connectivity.Block{CIDR: p, IP: ip, Other: ip.Next()}
	}
	o := &outsideValues{Node: "192.0.2.254/24", External: connectivity.External{V4: block("192.0.2.0/24")}}
	blocks := []connectivity.Block{o.External.V4}
	if v6 {
		o.Node += ",2001:db8:c0::fe/64"
		o.External.V6 = block("2001:db8:c0::/64")
		blocks = append(blocks, o.External.V6)
	}
	var addrs []string
	for _, pick := range []func(connectivity.Block) netip.Addr{
		func(b connectivity.Block) netip.Addr { return b.IP }, func(b connectivity.Block) netip.Addr { return b.Other },
	} {
		for _, b := range blocks {
			addrs = append(addrs, netip.PrefixFrom(pick(b), b.CIDR.Bits()).String())
		}
	}
	o.Addrs, o.First = strings.Join(addrs, ","), o.External.V4.IP
	o.External.Name = o.First.String()
	return o
}

// podsOn are the pods that tests need, for one or two nodes, by the names that their labels give them.
func podsOn(nodes []string) []podValues {
	var out []podValues
	add := func(name, kind string, node int, key, value string) {
		if node >= len(nodes) {
			return
		}
		labels := map[string]string{"name": name, "kind": kind}
		if key != "" {
			labels[key] = value
		}
		out = append(out, podValues{Name: name, Kind: kind, Node: nodes[node], Labels: text(labels), Echo: kind == "echo"})
	}
	add("client", "client", 0, "", "")
	add("client2", "client", 0, "other", "client")
	add("client3", "client", 1, "", "")
	add("echo-same-node", "echo", 0, "other", "echo")
	add("echo-other-node", "echo", 1, "first", "echo")
	return out
}

// text is a value as JSON, which is YAML too.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// objects are what is to be deployed, in order.
func (w workloads) objects() ([]*unstructured.Unstructured, error) {
	var b bytes.Buffer
	if err := workloadTemplate.Execute(&b, w); err != nil {
		return nil, fmt.Errorf("write workloads: %w", err)
	}
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq(b.String(), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			return nil, fmt.Errorf("read workloads: %w", err)
		}
		out = append(out, o)
	}
	return out, nil
}
