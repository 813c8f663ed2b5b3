package connectivity

import (
	"fmt"
	"net/netip"
)

// Scenario is who tries to reach whom.
type Scenario struct {
	Name    string
	Needs   []Need
	actions func(s *Site) []*Action
}

// who picks peers.
type who func(*Peer) bool

func anyone(*Peer) bool { return true }

func labelled(key, value string) who { return func(p *Peer) bool { return p.Is(key, value) } }

// PodToPod is HTTP from clients to echo servers.
func PodToPod(from, to who) Scenario {
	return Scenario{Name: "pod-to-pod", actions: func(s *Site) []*Action { return s.curl(s.Clients, from, s.Echos, to) }}
}

// HostToPod is HTTP from each node to each echo server.
func HostToPod() Scenario {
	return Scenario{Name: "host-to-pod", actions: func(s *Site) []*Action { return s.curl(s.Hosts, anyone, s.Echos, anyone) }}
}

// FromCIDRToPod is HTTP from outside to each echo server, by its own address.
func FromCIDRToPod() Scenario {
	return Scenario{Name: "from-cidr-to-pod", Needs: []Need{FromOutside}, actions: func(s *Site) (out []*Action) {
		for _, o := range s.Outside {
			// Only the node beside which the machine is sends on what is for its workloads.
			same := func(p *Peer) bool { return o.Node == "" || p.Node == o.Node }
			out = append(out, s.curl([]*Peer{o}, anyone, s.Echos, same)...)
		}
		return out
	}}
}

func (s *Site) curl(froms []*Peer, from who, tos []*Peer, to who) (out []*Action) {
	for _, f := range froms {
		for _, t := range tos {
			for _, v6 := range s.families() {
				addr := t.Addr(v6)
				if !from(f) || !to(t) || !addr.IsValid() || !f.Addr(v6).IsValid() {
					continue
				}
				out = append(out, &Action{Name: fmt.Sprintf("curl-%s-%d", family(v6), len(out)), From: f, To: t, Addr: addr, Port: s.Port,
					Target: url("http", addr.String(), s.Port)})
			}
		}
	}
	return out
}

// ClientToClient is a ping from each client to each other.
func ClientToClient() Scenario {
	return Scenario{Name: "client-to-client", actions: func(s *Site) (out []*Action) {
		for _, f := range s.Clients {
			for _, t := range s.Clients {
				for _, v6 := range s.families() {
					if f != t && t.Addr(v6).IsValid() {
						out = append(out, ping(f, t, t.Addr(v6), fmt.Sprintf("ping-%s-%d", family(v6), len(out))))
					}
				}
			}
		}
		return out
	}}
}

// PodToHost is a ping from each client to each address of each node.
func PodToHost() Scenario {
	return Scenario{Name: "pod-to-host", actions: func(s *Site) (out []*Action) {
		for _, f := range s.Clients {
			for _, n := range s.Nodes {
				for _, addr := range n.Addrs {
					if f.Addr(addr.Is6()).IsValid() {
						out = append(out, ping(f, &Peer{Name: n.Name, Node: n.Name}, addr, fmt.Sprintf("ping-%s-internal-ip", family(addr.Is6()))))
					}
				}
			}
		}
		return out
	}}
}

func ping(from, to *Peer, addr netip.Addr, name string) *Action {
	return &Action{Name: name, From: from, To: to, Addr: addr, Target: url("icmp", addr.String(), 0)}
}

// PodToService is HTTP from each client to each service.
func PodToService() Scenario {
	return Scenario{Name: "pod-to-service", actions: func(s *Site) (out []*Action) {
		for _, f := range s.Clients {
			for _, svc := range s.Services {
				out = append(out, &Action{Name: fmt.Sprintf("curl-%d", len(out)), From: f, To: svc.Echo, Addr: svc.Echo.Addr(false), Port: s.Port,
					Target: url("http", svc.Host, svc.Port)})
			}
		}
		return out
	}}
}

// PodToHostPort is HTTP from each client to the host port of each echo server.
func PodToHostPort() Scenario {
	return Scenario{Name: "pod-to-hostport", Needs: []Need{HostPort}, actions: func(s *Site) (out []*Action) {
		for _, f := range s.Clients {
			for _, t := range s.Echos {
				out = append(out, &Action{Name: fmt.Sprintf("curl-%d", len(out)), From: f, To: t, Addr: t.Addr(false), Port: s.Port,
					Target: url("http", s.node(t.Node, false), s.HostPort)})
			}
		}
		return out
	}}
}

func (s *Site) node(name string, v6 bool) string {
	for _, n := range s.Nodes {
		if n.Name == name {
			return pick(n.Addrs, v6).String()
		}
	}
	return ""
}

// PodToNodePort is HTTP from each client to the node port of each service, at its own node or at the others.
func PodToNodePort(remote bool) Scenario {
	sc := Scenario{Name: "pod-to-local-nodeport", Needs: []Need{NodePort}}
	if remote {
		sc.Name = "pod-to-remote-nodeport"
	}
	sc.actions = func(s *Site) []*Action {
		return s.nodePort(s.Clients, func(f *Peer, n Node) bool { return (f.Node != n.Name) == remote })
	}
	return sc
}

// OutsideToNodePort is HTTP from outside to the node port of each service, at each node that can be reached from there.
func OutsideToNodePort() Scenario {
	return Scenario{Name: "outside-to-nodeport", Needs: []Need{FromOutside, NodePort}, actions: func(s *Site) []*Action {
		return s.nodePort(s.Outside, func(f *Peer, n Node) bool { return f.Node == "" || f.Node == n.Name })
	}}
}

func (s *Site) nodePort(froms []*Peer, at func(*Peer, Node) bool) (out []*Action) {
	for _, f := range froms {
		for _, svc := range s.Services {
			for _, n := range s.Nodes {
				addr := pick(n.Addrs, false)
				if svc.NodePort == 0 || !addr.IsValid() || !at(f, n) {
					continue
				}
				a := &Action{Name: fmt.Sprintf("curl-%d", len(out)), From: f, To: svc.Echo, Addr: svc.Echo.Addr(false), Port: s.Port,
					Target: url("http", addr.String(), svc.NodePort)}
				if f.Led {
					a.Name, a.Target = fmt.Sprintf("syn-%d", len(out)), url("syn", addr.String(), svc.NodePort)
				}
				out = append(out, a)
			}
		}
	}
	return out
}

// PodToWorld is HTTP from each client to port 80 outside, and a connection to port 443.
func PodToWorld() Scenario {
	return Scenario{Name: "pod-to-world", Needs: []Need{World}, actions: func(s *Site) (out []*Action) {
		for i, f := range s.Clients {
			addr, _ := netip.ParseAddr(s.External.Name) // of a name not known
			out = append(out,
				&Action{Name: fmt.Sprintf("http-to-%s-%d", s.External.Name, i), From: f, Addr: addr, Port: 80, Target: url("http", s.External.Name, 80)},
				&Action{Name: fmt.Sprintf("https-to-%s-%d", s.External.Name, i), From: f, Addr: addr, Port: 443, Target: url("connect", s.External.Name, 443)})
		}
		return out
	}}
}

// PodToCIDR is HTTP from clients to two addresses outside.
func PodToCIDR(from who) Scenario {
	return Scenario{Name: "pod-to-cidr", Needs: []Need{World}, actions: func(s *Site) (out []*Action) {
		for i, f := range s.Clients {
			for _, v6 := range s.families() {
				b := s.External.block(v6)
				for _, addr := range []netip.Addr{b.IP, b.Other} {
					if from(f) && addr.IsValid() {
						out = append(out, &Action{Name: fmt.Sprintf("external-%s-%d", addr, i), From: f, Addr: addr, Port: 80, Target: url("http", addr.String(), 80)})
					}
				}
			}
		}
		return out
	}}
}
