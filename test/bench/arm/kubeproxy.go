package arm

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/netns"
)

// A shape is one of the ways in which kube-proxy writes services down, by its documentation: iptables mode walks KUBE-SERVICES,
// then a service's and an endpoint's chain; nftables mode looks the service up in a verdict map. Both choose one of two endpoints
// at random and use DNAT with connection tracking.
type shape struct {
	load  []string                             // command that takes rules from nothing
	rules func(all []Service) string           // for load
	add   []string                             // command that takes more
	delta func(all []Service, from int) string // for add: those from a place on, where the ones before it are in force
	most  int                                  // services to such a command in a series of them; 0: all are loaded anew instead
}

const podRange = "10.201.0.0/16"

// Proxied is an arm of kube-proxy's shapes: a node between client and server, with the rules.
type Proxied struct {
	label
	lan
	shape
	services []Service
	node     *netns.NS
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

// KubeProxyBare are the arms of kube-proxy's shapes, without services at first.
func KubeProxyBare() []*Proxied {
	return []*Proxied{
		{label: label{"B1", "kube-proxy's iptables shape"}, shape: iptables},
		{label: label{"B2", "kube-proxy's nftables shape"}, shape: nftables},
	}
}

// Setup makes the topology and brings the services into force. The target is the last of them, or the server.
func (a *Proxied) Setup(context.Context) (Ends, error) {
	cli, node, srv := a.threeSpaces(strings.ToLower(a.name))
	a.node = node
	a.feed(node, a.rules(nil), a.load...)
	all := a.services
	a.services = nil
	a.do(func() error { return a.Grow(all) })
	target := srvAddr
	if len(all) > 0 {
		target = all[len(all)-1].Addr.String()
	}
	return a.ends(cli, srv, target)
}

// Node is where the rules are, between the devices cli and srv.
func (a *Proxied) Node() *netns.NS { return a.node }

// Grow brings more services into force.
func (a *Proxied) Grow(more []Service) error {
	if a.most == 0 {
		a.services = append(a.services, more...)
		return a.run(a.load, a.rules(a.services))
	}
	for part := range slices.Chunk(more, a.most) {
		if err := a.Adding(part...)(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Proxied) run(argv []string, text string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(text)
	_, err := a.node.Output(cmd)
	return err
}

// Adding prepares more services; what it returns brings them into force by one command.
func (a *Proxied) Adding(more ...Service) (event func() error) {
	text := a.delta(slices.Concat(a.services, more), len(a.services))
	return func() error {
		if err := a.run(a.add, text); err != nil {
			return err
		}
		a.services = append(a.services, more...)
		return nil
	}
}
