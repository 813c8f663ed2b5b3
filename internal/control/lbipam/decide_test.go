package lbipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func cidr(ss ...string) (out []Block) {
	for _, s := range ss {
		out = append(out, Block{CIDR: s})
	}
	return out
}

func red(s *Service) bool { return s.Labels["color"] == "red" }

var http, https, dns = []Port{{"TCP", 80}}, []Port{{"TCP", 443}}, []Port{{"UDP", 80}}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name     string
		pools    []Pool
		services []Service
		want     []string // a line for each service, in order: addresses and reason
	}{
		{"lowest free, older first", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/30")}},
			[]Service{{Name: "b", Created: 2, IPv4: true}, {Name: "a", Created: 1, IPv4: true}},
			[]string{"192.0.2.1 satisfied", "192.0.2.0 satisfied"}},
		{"first and last are not given", []Pool{{Name: "p", Trim: true, Blocks: cidr("192.0.2.0/30")}},
			[]Service{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}, {Name: "c", IPv4: true}},
			[]string{"192.0.2.1 satisfied", "192.0.2.2 satisfied", " out_of_ips"}},
		{"a pair has no first and last", []Pool{{Name: "p", Trim: true, Blocks: cidr("192.0.2.6/31", "192.0.2.9/32")}},
			[]Service{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}, {Name: "c", IPv4: true}},
			[]string{"192.0.2.6 satisfied", "192.0.2.7 satisfied", "192.0.2.9 satisfied"}},
		{"from start to stop", []Pool{{Name: "p", Trim: true, Blocks: []Block{{Start: "192.0.2.4", Stop: "192.0.2.5"}, {Start: "192.0.2.1"}}}},
			[]Service{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}, {Name: "c", IPv4: true}, {Name: "d", IPv4: true}},
			[]string{"192.0.2.1 satisfied", "192.0.2.4 satisfied", "192.0.2.5 satisfied", " out_of_ips"}},
		{"the end of all addresses", []Pool{{Name: "p", Blocks: cidr("255.255.255.255/32")}},
			[]Service{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}}, []string{"255.255.255.255 satisfied", " out_of_ips"}},
		{"no pool", nil, []Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.1")}}, []string{" no_pool"}},
		{"no pool of this version", []Pool{{Name: "p", Blocks: cidr("2001:db8::/64")}}, []Service{{Name: "a", IPv4: true}}, []string{" no_pool"}},
		{"both versions", []Pool{{Name: "p", Blocks: cidr("2001:db8::/64", "192.0.2.0/24")}}, []Service{{Name: "a", IPv4: true, IPv6: true, All: true}},
			[]string{"192.0.2.0 2001:db8:: satisfied"}},
		{"one of two is enough", []Pool{{Name: "p", Blocks: cidr("2001:db8::/64")}}, []Service{{Name: "a", IPv4: true, IPv6: true}},
			[]string{"2001:db8:: satisfied"}},
		{"one of two is not enough", []Pool{{Name: "p", Blocks: cidr("2001:db8::/64")}}, []Service{{Name: "a", IPv4: true, IPv6: true, All: true}},
			[]string{"2001:db8:: no_pool"}},
		{"selected", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24"), Selects: red}},
			[]Service{{Name: "a", IPv4: true}, {Name: "b", IPv4: true, Labels: map[string]string{"color": "red"}}}, []string{" no_pool", "192.0.2.0 satisfied"}},
		{"selected no more", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24"), Selects: red}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.9")}}, []string{" no_pool"}},
		{"kept", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", Created: 1, IPv4: true}, {Name: "b", Created: 2, IPv4: true, Has: addrs("192.0.2.0")}},
			[]string{"192.0.2.1 satisfied", "192.0.2.0 satisfied"}},
		{"kept of a disabled pool, nothing new", []Pool{{Name: "p", Disabled: true, Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.7")}, {Name: "b", IPv4: true}}, []string{"192.0.2.7 satisfied", " no_pool"}},
		{"kept, the first of a block", []Pool{{Name: "p", Trim: true, Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.0")}}, []string{"192.0.2.0 satisfied"}},
		{"the younger pool of two that overlap", []Pool{{Name: "y", Created: 2, Blocks: cidr("192.0.2.0/24", "198.51.100.0/24")}, {Name: "o", Created: 1, Blocks: cidr("192.0.2.0/31")}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("198.51.100.5")}, {Name: "b", IPv4: true}, {Name: "c", IPv4: true}, {Name: "d", IPv4: true}},
			[]string{"198.51.100.5 satisfied", "192.0.2.0 satisfied", "192.0.2.1 satisfied", " out_of_ips"}},
		{"a block that is not understood", []Pool{{Name: "p", Blocks: []Block{{CIDR: "192.0.2.0/24"}, {Start: "x"}}}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.5")}, {Name: "b", IPv4: true}}, []string{"192.0.2.5 satisfied", " no_pool"}},
		{"requested", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", Created: 1, IPv4: true}, {Name: "b", Created: 2, IPv4: true, Requested: addrs("192.0.2.0", "192.0.2.9")}},
			[]string{"192.0.2.1 satisfied", "192.0.2.0 192.0.2.9 satisfied"}},
		{"requested instead of what it has", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.1"), Requested: addrs("192.0.2.9")}}, []string{"192.0.2.9 satisfied"}},
		{"requested, others have it", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Requested: addrs("192.0.2.9", "192.0.2.8")}, {Name: "b", IPv4: true, Has: addrs("192.0.2.9")}},
			[]string{"192.0.2.8 already_allocated", "192.0.2.9 satisfied"}},
		{"requested of nowhere", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}}, []Service{{Name: "a", IPv4: true, Requested: addrs("203.0.113.1")}}, []string{" no_pool"}},
		{"requested of others' pool", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24"), Selects: red}},
			[]Service{{Name: "a", IPv4: true, Requested: addrs("192.0.2.1")}}, []string{" pool_selector_mismatch"}},
		{"requested of another version", []Pool{{Name: "p", Blocks: cidr("2001:db8::/64")}},
			[]Service{{Name: "a", IPv4: true, Requested: addrs("2001:db8::1")}}, []string{" invalid_request"}},
		{"request not understood", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Invalid: "no address"}, {Name: "b", IPv4: true, Invalid: "no address", Has: addrs("192.0.2.5")}},
			[]string{" invalid_request", "192.0.2.5 invalid_request"}},
		{"shared", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, SharingKey: "k", Ports: http}, {Name: "b", IPv4: true, SharingKey: "k", Ports: https}, {Name: "c", IPv4: true, SharingKey: "k", Ports: dns},
				{Name: "d", IPv4: true, SharingKey: "k", Ports: http}, {Name: "e", IPv4: true, SharingKey: "j", Ports: dns}, {Name: "f", IPv4: true, Ports: dns}},
			[]string{"192.0.2.0 satisfied", "192.0.2.0 satisfied", "192.0.2.0 satisfied", "192.0.2.1 satisfied", "192.0.2.2 satisfied", "192.0.2.3 satisfied"}},
		{"shared by request", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, SharingKey: "k", Ports: http, Requested: addrs("192.0.2.7")}, {Name: "b", IPv4: true, SharingKey: "k", Ports: https, Requested: addrs("192.0.2.7")}},
			[]string{"192.0.2.7 satisfied", "192.0.2.7 satisfied"}},
		{"shared no more: a port is both's", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, SharingKey: "k", Ports: http, Has: addrs("192.0.2.7")}, {Name: "b", IPv4: true, SharingKey: "k", Ports: http, Has: addrs("192.0.2.7")}},
			[]string{"192.0.2.7 satisfied", "192.0.2.0 satisfied"}},
		{"shared over namespaces when both say so", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Namespace: "m", Name: "a", IPv4: true, SharingKey: "k", SharingWith: []string{"n"}, Ports: http}, {Namespace: "n", Name: "b", IPv4: true, SharingKey: "k", SharingWith: []string{"*"}, Ports: https},
				{Namespace: "o", Name: "c", IPv4: true, SharingKey: "k", SharingWith: []string{"*"}, Ports: dns}},
			[]string{"192.0.2.0 satisfied", "192.0.2.0 satisfied", "192.0.2.1 satisfied"}},
		{"shared locally with the same workloads only", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, SharingKey: "k", Local: true, Selector: "x", Ports: http}, {Name: "b", IPv4: true, SharingKey: "k", Local: true, Selector: "x", Ports: https},
				{Name: "c", IPv4: true, SharingKey: "k", Local: true, Selector: "y", Ports: dns}},
			[]string{"192.0.2.0 satisfied", "192.0.2.0 satisfied", "192.0.2.1 satisfied"}},
		{"two claim one address: the older has it", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", Created: 2, IPv4: true, Has: addrs("192.0.2.4")}, {Name: "b", Created: 1, IPv4: true, Has: addrs("192.0.2.4")}},
			[]string{"192.0.2.0 satisfied", "192.0.2.4 satisfied"}},
		{"one of each version is kept", []Pool{{Name: "p", Blocks: cidr("192.0.2.0/24")}},
			[]Service{{Name: "a", IPv4: true, Has: addrs("192.0.2.4", "192.0.2.5")}}, []string{"192.0.2.4 satisfied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers, _ := Decide(c.pools, c.services)
			for i := range c.services {
				a := answers[c.services[i].Key()]
				var got []string
				for _, ip := range a.IPs {
					got = append(got, ip.String())
				}
				line := strings.Join(got, " ") + " " + a.Reason
				if line != c.want[i] {
					t.Errorf("%s: %s (%s), want %s", c.services[i].Key(), line, a.Message, c.want[i])
				}
				if a.Satisfied() != (a.Message == "") {
					t.Errorf("%s: %s says %q", c.services[i].Key(), a.Reason, a.Message)
				}
			}
		})
	}
}

func TestPools(t *testing.T) {
	pools := []Pool{
		{Name: "two", Created: 1, Blocks: append(cidr("192.0.2.0/24", "192.0.2.128/25"), Block{Start: "198.51.100.1", Stop: "198.51.100.3"})},
		{Name: "huge", Created: 2, Trim: true, Blocks: cidr("2001:db8::/64")},
		{Name: "late", Created: 3, Blocks: cidr("198.51.100.3/32", "203.0.113.0/30")},
		{Name: "all", Created: 4, Blocks: cidr("::/0", "8.0.0.0/8")},
		{Name: "bad", Created: 5, Blocks: []Block{{Start: "10.0.0.9", Stop: "10.0.0.1"}, {CIDR: "::ffff:10.0.0.0/104"}, {CIDR: "10.2.0.0/30"}}},
	}
	_, states := Decide(pools, []Service{{Name: "a", IPv4: true, IPv6: true}, {Name: "b", IPv4: true, Has: addrs("203.0.113.2")}})
	for name, want := range map[string]string{
		"two":  "resolved 259 1 258",
		"huge": "resolved 18446744073709551614 1 18446744073709551613",
		"late": "cidr_overlap 5 1 4",
		"all":  "cidr_overlap 340282366920938463463374607431784988672 1 340282366920938463463374607431784988671",
		"bad":  "invalid_block 4 0 4",
	} {
		s := states[name]
		if got := fmt.Sprintf("%s %s %s %s", s.Reason, s.Total, s.Used, s.Available); got != want {
			t.Errorf("%s: %s (%s), want %s", name, got, s.Message, want)
		}
	}
	if m := states["late"].Message; !strings.Contains(m, "198.51.100.3 overlaps 198.51.100.1-198.51.100.3 of the older pool two") {
		t.Error(m)
	}
}

// A cluster of ten thousand services is decided in well under the time in which they come.
func TestMany(t *testing.T) {
	services := make([]Service, 10000)
	for i := range services {
		services[i] = Service{Name: fmt.Sprint(i), Created: int64(i), IPv4: true}
	}
	answers, _ := Decide([]Pool{{Name: "p", Blocks: cidr("10.0.0.0/16")}}, services)
	seen := map[netip.Addr]bool{}
	for _, a := range answers {
		if len(a.IPs) != 1 || seen[a.IPs[0]] {
			t.Fatalf("%+v", a)
		}
		seen[a.IPs[0]] = true
	}
	if !slices.Contains(answers["/9999"].IPs, netip.MustParseAddr("10.0.39.15")) {
		t.Error(answers["/9999"])
	}
}
