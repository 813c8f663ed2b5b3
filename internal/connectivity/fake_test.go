package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/workload"
)

// fakePlace is a cluster that keeps policy as it should, because it is told what should come of each action: that of the test whose
// policies are in force. Faults are put into it.
type fakePlace struct {
	site   *Site
	wants  map[string]Result // by sender and target
	silent bool              // nodes do not tell what they drop
	deaf   error             // nodes cannot be asked

	mu      sync.Mutex
	port    int
	drops   []*flowpb.Flow
	applied int
	events  []string
	onExec  func()
	fault   func(from *Peer, target string, r Result) (outcome string, drop *Result)
}

func (p *fakePlace) Name() string { return "fake" }

func (p *fakePlace) Deploy(context.Context, *Log) (*Site, error) { return p.site, nil }

func (p *fakePlace) note(event string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, event)
}

func (p *fakePlace) Exec(ctx context.Context, from *Peer, args ...string) ([]byte, error) {
	if p.onExec != nil {
		p.onExec()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	target := args[len(args)-1]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.port++
	want := p.wants[from.Name+" "+target]
	out, drop := workload.Reached, (*Result)(nil)
	if want.Dropped {
		out, drop = workload.TimedOut, &want
	}
	if p.fault != nil {
		if o, d := p.fault(from, target, want); o != "" {
			out, drop = o, d
		}
	}
	local := fmt.Sprintf("0.0.0.0:%d", p.port)
	if drop != nil && !p.silent {
		p.drops = append(p.drops, flowOf(from, target, uint32(p.port), *drop))
	}
	b, _ := json.Marshal(workload.Probe{Outcome: out, Local: local, Took: time.Millisecond, Error: out})
	if out != workload.Reached {
		return b, &ExitError{Code: 1}
	}
	return b, nil
}

// flowOf is how a node tells of a dropped packet.
func flowOf(from *Peer, target string, port uint32, r Result) *flowpb.Flow {
	scheme, rest, _ := strings.Cut(target, "://")
	f := &flowpb.Flow{Verdict: flowpb.Verdict_DROPPED, DropReasonDesc: r.Reason, TrafficDirection: flowpb.TrafficDirection_INGRESS, NodeName: "n1", Summary: "told"}
	if r.Egress {
		f.TrafficDirection = flowpb.TrafficDirection_EGRESS
	}
	to, err := netip.ParseAddrPort(rest)
	if err != nil {
		to = netip.AddrPortFrom(netip.MustParseAddr(strings.Trim(rest, "[]")), 0)
	}
	f.IP = &flowpb.IP{Source: from.Addr(to.Addr().Is6()).String(), Destination: to.Addr().String()}
	if scheme == "icmp" {
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 8}}}
	} else {
		f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: port, DestinationPort: uint32(to.Port())}}}
	}
	return f
}

func (p *fakePlace) Apply(_ context.Context, docs []Document) error {
	for _, d := range docs {
		p.note("apply " + d.Kind + " " + d.Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied += len(docs)
	return nil
}

func (p *fakePlace) Remove(context.Context) error {
	p.note("remove")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied = 0
	return nil
}

func (p *fakePlace) Drops(context.Context, time.Duration) ([]*flowpb.Flow, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drops, p.deaf
}

func (p *fakePlace) Close(context.Context) error {
	p.note("close")
	return nil
}

var errDeaf = errors.New("no socket")

// newFake is a place of two nodes in which the tests of a suite come out as they should.
func newFake(suite []*Test) *fakePlace {
	peer := func(name, node, ip string, labels ...string) *Peer {
		p := &Peer{Name: "cilium-test-1/" + name, Node: node, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0." + ip), netip.MustParseAddr("fd00::" + ip)},
			Labels: map[string]string{"name": name}}
		for _, l := range labels {
			key, value, _ := strings.Cut(l, "=")
			p.Labels[key] = value
		}
		return p
	}
	s := &Site{Namespace: "cilium-test-1", Port: 8080, PortName: "http-8080", HostPort: 4000, V6: true,
		Nodes:   []Node{{"n1", []netip.Addr{netip.MustParseAddr("172.16.0.1")}}, {"n2", []netip.Addr{netip.MustParseAddr("172.16.0.2")}}},
		Clients: []*Peer{peer("client", "n1", "1", "kind=client"), peer("client2", "n1", "2", "kind=client", "other=client"), peer("client3", "n2", "3", "kind=client")},
		Echos:   []*Peer{peer("echo-same-node", "n1", "4", "kind=echo", "other=echo"), peer("echo-other-node", "n2", "5", "kind=echo", "first=echo")},
		External: External{Name: "192.0.2.1",
			V4: Block{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
			V6: Block{netip.MustParsePrefix("2001:db8::/64"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}},
	}
	for i, e := range s.Echos {
		s.Services = append(s.Services, Service{Name: e.Labels["name"], Host: e.Addrs[0].String(), Port: 8080, NodePort: 31000 + i, Echo: e})
		s.Hosts = append(s.Hosts, &Peer{Name: s.Nodes[i].Name, Node: s.Nodes[i].Name, Addrs: append(s.Nodes[i].Addrs, netip.MustParseAddr("fd01::1"))})
	}
	s.Outside = []*Peer{{Name: "outside", Addrs: []netip.Addr{s.External.V4.IP, s.External.V6.IP}}}
	p := &fakePlace{site: s, wants: map[string]Result{}}
	for _, t := range suite {
		for _, sc := range t.Scenarios {
			for _, a := range sc.actions(s) {
				if t.Want != nil {
					p.wants[a.From.Name+" "+a.Target] = t.Want(s, a)
				}
			}
		}
	}
	return p
}
