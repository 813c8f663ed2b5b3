package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// Hypha are Hypha's arms on one node, with the binaries of a directory.
func Hypha(bin string) []Arm {
	return []Arm{
		&hypha{label: label{"C0", "Hypha, policy on, events off"}, bin: bin, nodes: 1, options: eventsOff()},
		&hypha{label: label{"C", "Hypha, policy and events on"}, bin: bin, nodes: 1},
	}
}

// HyphaServices are Hypha's arms with services, of which there are none at first: translated where a process connects (C) and
// packet by packet (Cp), with events off too (C0, Cp0).
func HyphaServices(bin string) []Arm {
	packets := func(off map[string]any) map[string]any {
		all := map[string]any{"bpf-lb-sock-hostns-only": true}
		maps.Copy(all, off)
		return all
	}
	return []Arm{
		&hypha{label: label{"C0", "Hypha at the socket, policy on, events off"}, bin: bin, nodes: 1, options: eventsOff()},
		&hypha{label: label{"C", "Hypha at the socket, policy and events on"}, bin: bin, nodes: 1},
		&hypha{label: label{"Cp0", "Hypha packet by packet in tc, policy on, events off"}, bin: bin, nodes: 1, options: packets(eventsOff())},
		&hypha{label: label{"Cp", "Hypha packet by packet in tc, policy and events on"}, bin: bin, nodes: 1, options: packets(nil)},
	}
}

// HyphaCross are Hypha's arms across two nodes.
func HyphaCross(bin string) []Arm {
	never := eventsOff()
	never["enable-policy"] = "never"
	return []Arm{
		&hypha{label: label{"XN", "Hypha's overlay without policy and events"}, bin: bin, nodes: 2, options: never},
		&hypha{label: label{"XC0", "Hypha's overlay, policy on, events off"}, bin: bin, nodes: 2, options: eventsOff()},
		&hypha{label: label{"XC", "Hypha's overlay, policy and events on"}, bin: bin, nodes: 2},
		&hypha{label: label{"XCn", "Hypha with native routing, policy and events on"}, bin: bin, nodes: 2, native: true},
	}
}

func eventsOff() map[string]any {
	return map[string]any{"bpf-events-enabled": false, "bpf-events-trace-enabled": false}
}

// hypha is a cluster with a client's and a server's pod, on the same node or on two.
type hypha struct {
	label
	bin     string
	nodes   int
	native  bool
	options map[string]any
	cluster *cluster.Cluster
}

func (a *hypha) Setup(ctx context.Context) (Ends, error) {
	bin, err := lab.FindBinaries(a.bin)
	if err != nil {
		return Ends{}, err
	}
	opts := map[string]any{"debug": false}
	maps.Copy(opts, a.options)
	a.cluster, err = cluster.New(ctx, cluster.Config{Bin: bin, Nodes: a.nodes, IPv4: true, IPv6: true, Native: a.native, Options: opts})
	if err != nil {
		return Ends{}, err
	}
	cli, err := a.cluster.Add(ctx, cluster.PodSpec{Name: "cli", Node: 0, Idle: true})
	if err != nil {
		return Ends{}, err
	}
	srv, err := a.cluster.Add(ctx, cluster.PodSpec{Name: "srv", Node: a.nodes - 1, Idle: true})
	if err != nil {
		return Ends{}, err
	}
	doc, err := benchPolicy()
	if err != nil {
		return Ends{}, err
	}
	if _, err := a.cluster.Import(ctx, doc); err != nil {
		return Ends{}, err
	}
	if err := cli.NS.Sysctl("net.ipv4.ip_local_port_range", "10000 65000"); err != nil {
		return Ends{}, err
	}
	return Ends{Client: cli.NS, Server: srv.NS, Target: srv.Addr(false), Cluster: a.cluster}, nil
}

func (a *hypha) Teardown() error {
	if a.cluster == nil {
		return nil
	}
	return a.cluster.Close()
}

// benchPolicy lets only the client reach the server, on the ports that are measured and on some more before them, and makes
// the client default-deny for egress too, so that both directions are judged.
func benchPolicy() (string, error) {
	type obj = map[string]any
	var ports []obj
	for p := range 10 {
		ports = append(ports, obj{"port": fmt.Sprint(3000 + p), "protocol": "TCP"})
	}
	for _, p := range Ports {
		ports = append(ports, obj{"port": fmt.Sprint(p), "protocol": "TCP"})
	}
	id := func(s string) obj { return obj{"matchLabels": obj{"id": s}} }
	b, err := json.Marshal([]obj{
		{"labels": []obj{{"key": "name", "value": "srv"}}, "endpointSelector": id("srv"), "ingress": []obj{{"fromEndpoints": []obj{id("cli")}, "toPorts": []obj{{"ports": ports}}}}},
		{"labels": []obj{{"key": "name", "value": "cli"}}, "endpointSelector": id("cli"), "egress": []obj{{"toEndpoints": []obj{id("srv")}, "toPorts": []obj{{"ports": ports}}}}},
	})
	if err != nil {
		return "", fmt.Errorf("make policy: %w", err)
	}
	return string(b), nil
}
