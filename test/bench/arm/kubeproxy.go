package arm

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// kube-proxy's shapes, by its documentation: iptables mode walks KUBE-SERVICES, then a service's and an endpoint's chain;
// nftables mode looks the service up in a verdict map. Both choose one of two endpoints at random and use DNAT with
// connection tracking. The service that is measured is the last of them.

const podRange = "10.201.0.0/16"

// KubeProxy are the arms of kube-proxy's shapes, with this many services and with one.
func KubeProxy(services int) []Arm {
	return []Arm{
		&iptables{label: label{"B1", fmt.Sprintf("kube-proxy's iptables shape, the last of %d services", services)}, services: services},
		&iptables{label: label{"B1s", "kube-proxy's iptables shape, one service"}, services: 1},
		&nftables{label: label{"B2", fmt.Sprintf("kube-proxy's nftables shape, %d services", services)}, services: services},
	}
}

// service is a virtual address with ports.
type service struct {
	name  string
	addr  netip.Addr
	ports []uint16
	// endpoints; those of the services that are not measured do not exist
	ep1, ep2 string
}

// servicesOf makes n services; the last is the measured one.
func servicesOf(n int) []service {
	out := make([]service, n)
	addr := netip.MustParseAddr("10.96.0.1")
	for i := range out {
		out[i] = service{
			name: fmt.Sprintf("s%d", i), addr: addr, ports: []uint16{80},
			ep1: fmt.Sprintf("10.201.%d.%d", 16+i/200, 10+i%200), ep2: fmt.Sprintf("10.201.%d.%d", 128+i/200, 10+i%200),
		}
		addr = addr.Next()
	}
	last := &out[n-1]
	last.ports, last.ep1, last.ep2 = Ports, srvAddr, srvAddr2
	return out
}

type iptables struct {
	label
	lan
	services int
}

func (a *iptables) Setup(context.Context) (Ends, error) {
	all := servicesOf(a.services)
	cli, node, srv := a.threeSpaces(strings.ToLower(a.name))
	a.feed(node, iptablesRules(all), "iptables-restore")
	return a.ends(cli, srv, all[len(all)-1].addr.String())
}

func iptablesRules(all []service) string {
	var chains, rules strings.Builder
	for _, s := range all {
		for _, p := range s.ports {
			id := fmt.Sprintf("%s-%d", strings.ToUpper(s.name), p)
			svc, sep1, sep2 := "KUBE-SVC-"+id, "KUBE-SEP-"+id+"-A", "KUBE-SEP-"+id+"-B"
			fmt.Fprintf(&chains, ":%s - [0:0]\n:%s - [0:0]\n:%s - [0:0]\n", svc, sep1, sep2)
			fmt.Fprintf(&rules, "-A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"default/%s cluster IP\" -m tcp --dport %d -j %s\n", s.addr, s.name, p, svc)
			fmt.Fprintf(&rules, "-A %s ! -s %s -d %s/32 -p tcp -m comment --comment \"default/%s cluster IP\" -m tcp --dport %d -j KUBE-MARK-MASQ\n", svc, podRange, s.addr, s.name, p)
			fmt.Fprintf(&rules, "-A %s -m comment --comment \"default/%s\" -m statistic --mode random --probability 0.5 -j %s\n", svc, s.name, sep1)
			fmt.Fprintf(&rules, "-A %s -m comment --comment \"default/%s\" -j %s\n", svc, s.name, sep2)
			for chain, ep := range map[string]string{sep1: s.ep1, sep2: s.ep2} {
				fmt.Fprintf(&rules, "-A %s -s %s/32 -m comment --comment \"default/%s\" -j KUBE-MARK-MASQ\n", chain, ep, s.name)
				fmt.Fprintf(&rules, "-A %s -p tcp -m comment --comment \"default/%s\" -m tcp -j DNAT --to-destination %s:%d\n", chain, s.name, ep, p)
			}
		}
	}
	return `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-SERVICES - [0:0]
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
` + chains.String() + `-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
` + rules.String() + "COMMIT\n"
}

type nftables struct {
	label
	lan
	services int
}

func (a *nftables) Setup(context.Context) (Ends, error) {
	all := servicesOf(a.services)
	cli, node, srv := a.threeSpaces("b2")
	a.feed(node, nftablesRules(all), "nft", "-f", "-")
	return a.ends(cli, srv, all[len(all)-1].addr.String())
}

func nftablesRules(all []service) string {
	var elements, chains strings.Builder
	for _, s := range all {
		for _, p := range s.ports {
			id := fmt.Sprintf("%s-%d", s.name, p)
			fmt.Fprintf(&elements, "\t\t\t%s . tcp . %d : goto service-%s,\n", s.addr, p, id)
			for i, ep := range []string{s.ep1, s.ep2} {
				fmt.Fprintf(&chains, "\tchain endpoint-%s-%d {\n\t\tip saddr %s jump mark-for-masquerade\n\t\tmeta l4proto tcp dnat to %s:%d\n\t}\n", id, i, ep, ep, p)
			}
			fmt.Fprintf(&chains, "\tchain service-%s {\n\t\tip daddr %s tcp dport %d ip saddr != %s jump mark-for-masquerade\n"+
				"\t\tnumgen random mod 2 vmap { 0 : goto endpoint-%s-0, 1 : goto endpoint-%s-1 }\n\t}\n", id, s.addr, p, podRange, id, id)
		}
	}
	return `table ip kube-proxy {
	chain mark-for-masquerade {
		mark set mark or 0x4000
	}
` + chains.String() + `	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = {
` + elements.String() + `		}
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain masquerading {
		mark and 0x4000 == 0 return
		mark set mark xor 0x4000
		masquerade fully-random
	}
	chain filter-forward {
		type filter hook forward priority -110; policy accept;
		ct state invalid drop
	}
	chain nat-prerouting {
		type nat hook prerouting priority -100; policy accept;
		jump services
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority 100; policy accept;
		jump masquerading
	}
}
`
}
