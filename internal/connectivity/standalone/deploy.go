package standalone

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/connectivity"
	"github.com/hypha-net/hypha/internal/demo"
	"github.com/hypha-net/hypha/internal/lab"
)

// pods that the tests need, by the number of their node.
var pods = []struct {
	name   string
	node   int
	labels []string
	echo   bool
}{
	{"client", 0, []string{"name=client", "kind=client"}, false},
	{"client2", 0, []string{"name=client2", "kind=client", "other=client"}, false},
	{"client3", 1, []string{"name=client3", "kind=client"}, false},
	{"echo-same-node", 0, []string{"name=echo-same-node", "kind=echo", "other=echo"}, true},
	{"echo-other-node", 1, []string{"name=echo-other-node", "kind=echo", "first=echo"}, true},
}

// services have these numbers and addresses, which the demo's own have not.
const (
	firstService  = 64001
	serviceNet    = "10.96.64."
	firstNodePort = 31081
	securePort    = 443 // of the other server outside
)

// Deploy implements connectivity.Place.
func (p *Place) Deploy(ctx context.Context, log *connectivity.Log) (*connectivity.Site, error) {
	there, err := p.demo.Pods(ctx)
	if err != nil {
		return nil, err
	}
	p.deployed = true
	s := &connectivity.Site{Namespace: p.options.Namespace, Port: port, PortName: portName, Missing: map[connectivity.Need]string{
		connectivity.KubePolicy:     "NetworkPolicy is Kubernetes' own, and this is the demo",
		connectivity.ServiceAccount: "the demo's pods have no service accounts",
		connectivity.HostPort:       "the demo's pods have no host ports",
	}}
	if err := p.leftover(ctx); err != nil {
		return nil, err
	}
	for _, n := range p.nodes() {
		s.Nodes = append(s.Nodes, connectivity.Node{Name: n.Name, Addrs: n.Addrs})
		s.Hosts = append(s.Hosts, &connectivity.Peer{Name: n.Name, Node: n.Name, Addrs: n.Addrs, Handle: n.Name})
		s.V6 = len(n.Addrs) > 1
	}
	for _, want := range pods {
		name := p.options.Namespace + "-" + want.name
		i := slices.IndexFunc(there, func(q demo.PodInfo) bool { return q.Name == name })
		if want.node >= len(s.Nodes) {
			continue
		}
		if i >= 0 && (p.options.ForceDeploy || there[i].State != "ready" || !there[i].Serving) {
			if err := p.demo.DeletePod(ctx, name); err != nil {
				return nil, err
			}
			i = -1
		}
		if i < 0 {
			log.Line("✨ ", "[%s] Deploying %s on %s...", p.Name(), want.name, s.Nodes[want.node].Name)
			var ports []string
			if want.echo {
				ports = append(ports, fmt.Sprintf("%s:%d/tcp", portName, port))
			}
			if err := p.demo.AddPod(ctx, name, p.options.Namespace, s.Nodes[want.node].Name, want.labels, ports...); err != nil {
				return nil, err
			}
		}
	}
	if there, err = p.demo.Pods(ctx); err != nil {
		return nil, err
	}
	for _, want := range pods {
		name := p.options.Namespace + "-" + want.name
		i := slices.IndexFunc(there, func(q demo.PodInfo) bool { return q.Name == name })
		if i < 0 {
			continue // of a node that is not used
		}
		peer := &connectivity.Peer{Name: p.options.Namespace + "/" + want.name, Node: there[i].Node, Addrs: there[i].Addresses, Labels: map[string]string{}, Handle: name}
		for _, l := range want.labels {
			key, value, _ := strings.Cut(l, "=")
			peer.Labels[key] = value
		}
		if want.echo {
			s.Echos = append(s.Echos, peer)
		} else {
			s.Clients = append(s.Clients, peer)
		}
	}
	return s, errors.Join(p.services(ctx, s), p.outside(s))
}

// nodes are those that are used.
func (p *Place) nodes() []demo.Node {
	if p.options.SingleNode {
		return p.demo.Nodes()[:1]
	}
	return p.demo.Nodes()
}

// services puts each echo server behind an address and a node port, and waits until all nodes serve them.
func (p *Place) services(ctx context.Context, s *connectivity.Site) error {
	for i, e := range s.Echos {
		svc := connectivity.Service{Name: e.Labels["name"], Host: fmt.Sprint(serviceNet, i+1), Port: port, NodePort: firstNodePort + i, Echo: e}
		backend := []*agentv1.Backend{{Ip: e.Addr(false).String(), Port: port, Protocol: "TCP", Node: e.Node}}
		for j, f := range []struct {
			kind, ip string
			port     int
		}{{"ClusterIP", svc.Host, svc.Port}, {"NodePort", "0.0.0.0", svc.NodePort}} {
			want := &agentv1.Service{Id: uint32(firstService + 2*i + j), Namespace: s.Namespace, Name: svc.Name, Type: f.kind,
				Frontend: &agentv1.Frontend{Ip: f.ip, Port: uint32(f.port), Protocol: "TCP"}, Backends: backend}
			if _, err := p.admin().UpdateService(ctx, connect.NewRequest(&agentv1.UpdateServiceRequest{Service: want})); err != nil {
				return fmt.Errorf("make service %s: %s", svc.Name, client.Message(err))
			}
			if err := p.served(ctx, want); err != nil {
				return err
			}
		}
		s.Services = append(s.Services, svc)
	}
	return nil
}

func (p *Place) served(ctx context.Context, want *agentv1.Service) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, n := range p.demo.Nodes() {
		for {
			got, err := client.Reader(n.Paths.AgentSocket()).GetService(ctx, connect.NewRequest(&agentv1.GetServiceRequest{Id: want.GetId()}))
			if err == nil {
				if b := got.Msg.GetService().GetBackends(); len(b) == 1 && b[0].GetIp() == want.GetBackends()[0].GetIp() {
					break
				}
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for service %s on %s: %w", want.GetName(), n.Name, context.Cause(ctx))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// outside gives the demo's world another address and another server, and a way to each echo server.
func (p *Place) outside(s *connectivity.Site) error {
	ext, given, err := p.options.External()
	if err != nil {
		return err
	}
	world, err := p.demo.World()
	if err != nil {
		return err
	}
	if !given {
		ext.Name = world.Addrs[0].String()
		for _, a := range world.Addrs {
			b := connectivity.Block{CIDR: netip.PrefixFrom(a, 24).Masked(), IP: a, Other: a.Next()}
			if a.Is6() {
				b.CIDR = netip.PrefixFrom(a, 64).Masked()
				ext.V6 = b
			} else {
				ext.V4 = b
			}
			p.addrs = append(p.addrs, prefixOf(b.Other))
		}
		if err := world.NS.AddAddr("lo", p.addrs...); err != nil {
			return err
		}
		srv, err := lab.StartWorkload(lab.Workload{Hypha: p.hypha, NS: world.NS, Name: world.Name, Node: "the outside", Log: p.demo.Log(world.Name + "-secure"), HTTP: securePort}, 5*time.Second)
		if err != nil {
			return err
		}
		p.server = srv.ID
	}
	for _, e := range s.Echos {
		for _, a := range e.Addrs {
			i := slices.IndexFunc(s.Nodes, func(n connectivity.Node) bool { return n.Name == e.Node })
			via := slices.IndexFunc(s.Nodes[i].Addrs, func(b netip.Addr) bool { return b.Is6() == a.Is6() })
			if via < 0 {
				continue
			}
			p.routes = append(p.routes, prefixOf(a))
			if err := world.NS.AddRoute(prefixOf(a), s.Nodes[i].Addrs[via].String()); err != nil {
				return err
			}
		}
	}
	s.External = ext
	s.Outside = []*connectivity.Peer{{Name: world.Name, Addrs: world.Link, Handle: world.Name}}
	return nil
}

// Close implements connectivity.Place.
func (p *Place) Close(ctx context.Context) error {
	if !p.deployed {
		return nil
	}
	errs := []error{p.Remove(ctx), p.server.Stop(time.Second)}
	if world, err := p.demo.World(); err == nil {
		errs = append(errs, world.NS.DeleteAddr("lo", p.addrs...))
		for _, r := range p.routes {
			errs = append(errs, world.NS.DeleteRoute(r))
		}
	}
	for i := range pods {
		if _, err := p.admin().DeleteService(ctx, connect.NewRequest(&agentv1.DeleteServiceRequest{Id: uint32(firstService + i)})); err != nil &&
			connect.CodeOf(err) != connect.CodeNotFound {
			errs = append(errs, errors.New(client.Message(err)))
		}
	}
	there, err := p.demo.Pods(ctx)
	errs = append(errs, err)
	for _, q := range there {
		if q.Namespace == p.options.Namespace && strings.HasPrefix(q.Name, p.options.Namespace+"-") {
			errs = append(errs, p.demo.DeletePod(ctx, q.Name))
		}
	}
	return errors.Join(errs...)
}
