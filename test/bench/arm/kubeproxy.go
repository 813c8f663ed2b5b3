package arm

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
)

// A shape is one of the ways in which kube-proxy writes services down, by its documentation: iptables mode walks KUBE-SERVICES,
// then a service's and an endpoint's chain; nftables mode looks the service up in a verdict map. Both choose one of two endpoints
// at random and use DNAT with connection tracking.
type shape struct {
	load  []string                   // command that takes all services
	add   []string                   // command that takes one more
	rules func(all []Service) string // for load: all, from nothing
	delta func(all []Service) string // for add: the last of them, where the others are in force
}

const podRange = "10.201.0.0/16"

// Proxied is an arm of kube-proxy's shapes: a node between client and server, with the rules.
type Proxied struct {
	label
	lan
	shape
	services []Service
	node     *netns.NS
	Loaded   time.Duration // what bringing all services into force took
}

// KubeProxy are the arms of kube-proxy's shapes, with this many services and with one. The service that is measured is the last.
func KubeProxy(services int) []Arm {
	of := func(s shape, name, about string, n int) Arm {
		all := make([]Service, n)
		for i := range all {
			all[i] = NewService(i)
		}
		last := &all[n-1]
		last.Ports, last.Endpoints = Ports, Endpoints
		return &Proxied{label: label{name, about}, shape: s, services: all}
	}
	return []Arm{
		of(iptables, "B1", fmt.Sprintf("kube-proxy's iptables shape, the last of %d services", services), services),
		of(iptables, "B1s", "kube-proxy's iptables shape, one service", 1),
		of(nftables, "B2", fmt.Sprintf("kube-proxy's nftables shape, %d services", services), services),
	}
}

// KubeProxyWith are the arms of kube-proxy's shapes with these services.
func KubeProxyWith(services []Service) []*Proxied {
	return []*Proxied{
		{label: label{"B1", "kube-proxy's iptables shape"}, shape: iptables, services: services},
		{label: label{"B2", "kube-proxy's nftables shape"}, shape: nftables, services: services},
	}
}

// Setup makes the topology and brings all services into force.
func (a *Proxied) Setup(context.Context) (Ends, error) {
	cli, node, srv := a.threeSpaces(strings.ToLower(a.name))
	a.node = node
	text := a.rules(a.services)
	began := time.Now()
	a.feed(node, text, a.load...)
	a.Loaded = time.Since(began)
	return a.ends(cli, srv, a.services[len(a.services)-1].Addr.String())
}

// Adding prepares one more service; what it returns brings it into force.
func (a *Proxied) Adding(s Service) (event func() error) {
	a.services = append(a.services, s)
	text := a.delta(a.services)
	return func() error {
		cmd := exec.Command(a.add[0], a.add[1:]...)
		cmd.Stdin = strings.NewReader(text)
		_, err := a.node.Output(cmd)
		return err
	}
}
