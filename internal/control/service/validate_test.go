package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

func facts() *Facts {
	return NewFacts(PortRange{30000, 32767}, []model.Node{
		{Name: "n1", Addrs: addrs("192.0.2.1", "2001:db8::1"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/120")}},
		{Name: "n2", Addrs: addrs("192.0.2.2"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
	})
}

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func backend(t testing.TB, s string) model.Backend {
	t.Helper()
	ap, proto, err := model.ParseAddress(s, model.ProtoTCP)
	if err != nil {
		t.Fatal(err)
	}
	return model.Backend{Addr: ap.Addr(), Port: ap.Port(), Proto: proto}
}

// web is a service that nothing is wrong with.
func web(t testing.TB, frontend string, backends ...string) model.Service {
	t.Helper()
	fe, err := model.ParseFrontend(frontend, model.ProtoTCP)
	if err != nil {
		t.Fatal(err)
	}
	s := model.Service{ID: 1, Name: "web", Namespace: "shop", Frontend: fe}
	for _, b := range backends {
		s.Backends = append(s.Backends, backend(t, b))
	}
	return s
}

func TestValidate(t *testing.T) {
	const v4, v6 = "10.96.0.1:80", "[fd00:96::1]:80"
	type change func(*model.Service)
	for name, tc := range map[string]struct {
		frontend string
		backends string
		change   change
		want     string // "": accepted
	}{
		"fine":                {v4, "10.0.0.5:8080 10.1.2.3:8080", nil, ""},
		"nobody":              {v4, "", nil, ""},
		"IPv6":                {v6, "[fd00::5]:8080", nil, ""},
		"UDP":                 {v4 + "/UDP", "10.0.0.5:53/udp", nil, ""},
		"node as backend":     {v4, "192.0.2.1:8080", nil, ""},
		"same port":           {v4, "10.0.0.5:80 10.0.0.5:81", nil, ""},
		"node port":           {"0.0.0.0:30080", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceNodePort }, ""},
		"node port IPv6":      {"[::]:32767", "[fd00::5]:80", func(s *model.Service) { s.Type = model.ServiceNodePort }, ""},
		"host port":           {"0.0.0.0:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, ""},
		"host port, one IP":   {"192.0.2.1:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, ""},
		"host port, by name":  {"192.0.2.1:80", "10.9.0.5:80", func(s *model.Service) { s.Type, s.Backends[0].Node = model.ServiceHostPort, "n1" }, ""},
		"host port, loop":     {"127.0.0.1:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, ""},
		"host port, others'":  {"192.0.2.2:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, "the address of node n2, and backend 10.0.0.5:80/TCP is not there"},
		"host port, nobody":   {"192.0.2.9:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, "no node's address"},
		"host port, link":     {"169.254.169.254:80", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, "metadata"},
		"host port, IP taken": {"192.0.2.1:30001", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, "which is for NodePort"},
		"ranges":              {v4, "10.0.0.5:80", func(s *model.Service) { s.Ranges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, ""},
		"affinity":            {v4, "10.0.0.5:80", func(s *model.Service) { s.Affinity = 3 * time.Hour }, ""},
		"node address":        {"192.0.2.2:80", "10.0.0.5:80", nil, "the address of node n2"},
		"node address, IPv6":  {"[2001:db8::1]:80", "[fd00::5]:80", nil, "the address of node n1"},
		"pod address":         {"10.0.0.9:80", "10.0.0.5:80", nil, "10.0.0.0/24, the pods of node n1"},
		"other node's pod":    {"10.1.255.9:80", "10.0.0.5:80", nil, "10.1.0.0/16, the pods of node n2"},
		"pod address IPv6":    {"[fd00::9]:80", "[fd00::5]:80", nil, "fd00::/120, the pods of node n1"},
		"unspecified":         {"0.0.0.0:80", "10.0.0.5:80", nil, "the unspecified address stands for the nodes' own"},
		"low node port":       {"0.0.0.0:29999", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceNodePort }, "port 29999 is not in node-port-range (30000-32767)"},
		"high node port":      {"0.0.0.0:32768", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceNodePort }, "not in node-port-range"},
		"node port at VIP":    {"10.96.0.1:30000", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceNodePort }, "write 0.0.0.0 or [::]"},
		"host port, taken":    {"0.0.0.0:30001", "10.0.0.5:80", func(s *model.Service) { s.Type = model.ServiceHostPort }, "which is for NodePort"},
		"port 0":              {"10.96.0.1:0", "10.0.0.5:80", nil, "port 0 is no port"},
		"backend port 0":      {v4, "10.0.0.5:0", nil, "backend 10.0.0.5:0/TCP: port 0 is no port"},
		"families":            {v4, "[fd00::5]:80", nil, "another IP version"},
		"families, IPv6":      {v6, "10.0.0.5:80", nil, "another IP version"},
		"protocols":           {v4, "10.0.0.5:80/UDP", nil, "the frontend's protocol is TCP"},
		"protocol":            {v4, "", func(s *model.Service) { s.Frontend.Proto = 1 }, "protocol 1: want TCP, UDP or SCTP"},
		"twice":               {v4, "10.0.0.5:80 10.0.0.5:80", nil, "given twice"},
		"itself":              {v4, "10.96.0.1:81", nil, "the frontend's own address"},
		"mapped":              {v4, "", func(s *model.Service) { s.Frontend.Addr = netip.MustParseAddr("::ffff:10.96.0.1") }, "form of its own IP version"},
		"state":               {v4, "10.0.0.5:80", func(s *model.Service) { s.Backends[0].State = 9 }, "state 9"},
		"range of others":     {v4, "", func(s *model.Service) { s.Ranges = []netip.Prefix{netip.MustParsePrefix("fd00::/8")} }, "other IP version"},
		"range with bits":     {v4, "", func(s *model.Service) { s.Ranges = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} }, "bits behind"},
		"deny nobody":         {v4, "", func(s *model.Service) { s.RangesDeny = true }, "there are none"},
		"long affinity":       {v4, "", func(s *model.Service) { s.Affinity = 25 * time.Hour }, "affinity 25h"},
		"odd affinity":        {v4, "", func(s *model.Service) { s.Affinity = time.Millisecond }, "whole seconds"},
		"health port":         {v4, "", func(s *model.Service) { s.HealthPort = 30001 }, "external traffic policy Local"},
		"name":                {v4, "", func(s *model.Service) { s.Name = "a\x1b[31m" }, "without spaces"},
		"type":                {v4, "", func(s *model.Service) { s.Type = 77 }, "service type 77"},
		"selection":           {v4, "", func(s *model.Service) { s.Select = 3 }, "selection 3"},
		"distribution":        {v4, "", func(s *model.Service) { s.Prefer = 4 }, "traffic distribution 4"},
		"hints":               {v4, "10.0.0.5:80", func(s *model.Service) { s.Backends[0].Hints = "a,b,c,d,e,f,g,h,i" }, "hints for 9 places"},
		"an empty hint":       {v4, "10.0.0.5:80", func(s *model.Service) { s.Backends[0].Hints = "a,,b" }, `hint "" is no name`},
		"no frontend":         {v4, "", func(s *model.Service) { s.Frontend = model.Frontend{} }, "no address"},
	} {
		t.Run(name, func(t *testing.T) {
			s := web(t, tc.frontend, strings.Fields(tc.backends)...)
			if tc.change != nil {
				tc.change(&s)
			}
			err := Validate(&s, facts())
			if got := fmt.Sprint(err); (err == nil) != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// vipTypes are the types whose frontend is an address of their own.
var vipTypes = []model.ServiceType{model.ServiceClusterIP, model.ServiceExternalIPs, model.ServiceLoadBalancer, model.ServiceLocalRedirect}

// TestCVE_2020_8554_FrontendOfOthers: who may write services must not take traffic meant for a node, a workload, the machine
// itself or everybody.
func TestCVE_2020_8554_FrontendOfOthers(t *testing.T) {
	c := score.Start(t, "CVE-2020-8554", "a service at an address that is somebody else's")
	r, f := c.Rand(), facts()
	foreign := []netip.Prefix{}
	for _, p := range []string{"127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8", "0.0.0.0/8", "::/128", "255.255.255.255/32",
		"192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "10.0.0.0/24", "10.1.0.0/16", "fd00::/120"} {
		foreign = append(foreign, netip.MustParsePrefix(p))
	}
	n := score.Size(20_000, 1_000_000)
	for range n {
		p := foreign[r.IntN(len(foreign))]
		s := model.Service{ID: 1, Type: vipTypes[r.IntN(len(vipTypes))],
			Frontend: model.Frontend{Addr: within(p, r.Uint64(), r.Uint64()), Port: uint16(1 + r.IntN(65535)), Proto: model.ProtoTCP, Scope: model.Scope(r.IntN(2))}}
		if err := Validate(&s, f); err == nil || !strings.Contains(err.Error(), "frontend ") {
			t.Fatalf("seed %d: %s service at %s is not refused: %v", c.Seed, s.Type, s.Frontend, err)
		}
	}
	c.Count(n, "services")
	c.Say("all refused with the reason")
}

// TestCVE_2021_25737_BackendOfOthers: a backend on loopback or link-local would lead the cluster's traffic to services of the node
// that nobody else should reach.
func TestCVE_2021_25737_BackendOfOthers(t *testing.T) {
	c := score.Start(t, "CVE-2021-25737", "a service with a backend on loopback or link-local")
	r, f := c.Rand(), facts()
	foreign := []netip.Prefix{}
	for _, p := range []string{"127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8", "0.0.0.0/8", "::/128", "255.255.255.255/32"} {
		foreign = append(foreign, netip.MustParsePrefix(p))
	}
	n := score.Size(20_000, 1_000_000)
	for range n {
		p := foreign[r.IntN(len(foreign))]
		s := web(t, "10.96.0.1:80", "10.0.0.5:80", "10.0.0.6:80")
		if p.Addr().Is6() {
			s = web(t, "[fd00:96::1]:80", "[fd00::5]:80", "[fd00::6]:80")
		}
		s.Type = vipTypes[r.IntN(len(vipTypes))]
		s.Backends[r.IntN(2)].Addr = within(p, r.Uint64(), r.Uint64())
		if err := Validate(&s, f); err == nil || !strings.Contains(err.Error(), "backend ") {
			t.Fatalf("seed %d: backends %v are not refused: %v", c.Seed, s.Backends, err)
		}
	}
	c.Count(n, "services")
	c.Say("all refused with the reason")
}

// within is an address of a prefix.
func within(p netip.Prefix, hi, lo uint64) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		x := byte(lo >> (8 * (i % 8)))
		if i >= 8 {
			x = byte(hi >> (8 * (i % 8)))
		}
		for bit := range 8 {
			if 8*i+bit >= p.Bits() {
				b[i] |= x & (0x80 >> bit)
			}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
