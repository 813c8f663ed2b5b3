package arm

import (
	"fmt"
	"strings"
)

// Ten thousand services in one command take the kernel (6.18) half a minute, and it grows with their square.
var nftables = shape{
	load:  []string{"nft", "-f", "-"},
	add:   []string{"nft", "-f", "-"},
	rules: func(all []Service) string { return nftablesBase + nftablesDelta(all, 0) },
	delta: nftablesDelta,
	most:  1000,
}

// nftablesService writes an element of the verdict map and the chains of one service.
func nftablesService(s Service, elements, chains *strings.Builder) {
	for _, p := range s.Ports {
		id := fmt.Sprintf("%s-%d", s.Name, p)
		fmt.Fprintf(elements, "\t\t\t%s . tcp . %d : goto service-%s,\n", s.Addr, p, id)
		for i, ep := range s.Endpoints {
			fmt.Fprintf(chains, "\tchain endpoint-%s-%d {\n\t\tip saddr %s jump mark-for-masquerade\n\t\tmeta l4proto tcp dnat to %s:%d\n\t}\n", id, i, ep, ep, p)
		}
		fmt.Fprintf(chains, "\tchain service-%s {\n\t\tip daddr %s tcp dport %d ip saddr != %s jump mark-for-masquerade\n"+
			"\t\tnumgen random mod 2 vmap { 0 : goto endpoint-%s-0, 1 : goto endpoint-%s-1 }\n\t}\n", id, s.Addr, p, podRange, id, id)
	}
}

const nftablesBase = `table ip kube-proxy
delete table ip kube-proxy
table ip kube-proxy {
	chain mark-for-masquerade {
		mark set mark or 0x4000
	}
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
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

func nftablesDelta(all []Service, from int) string {
	var elements, chains strings.Builder
	for _, s := range all[from:] {
		nftablesService(s, &elements, &chains)
	}
	if elements.Len() == 0 {
		return ""
	}
	return "table ip kube-proxy {\n" + chains.String() + "}\nadd element ip kube-proxy service-ips {\n" + elements.String() + "}\n"
}
