package arm

import (
	"fmt"
	"strings"
)

// kube-proxy leaves the chains of services that have not changed alone, but writes KUBE-SERVICES anew for each change. Thousands of
// services at a time take iptables-restore (1.8.9, nf_tables) minutes where it must not flush.
var iptables = shape{
	load:  []string{"iptables-restore"},
	add:   []string{"iptables-restore", "--noflush", "--counters"},
	rules: iptablesRules,
	delta: iptablesDelta,
}

// iptablesService writes the rules of one service: who asks for it, and its own chains, unless own is nil.
func iptablesService(s Service, chains, asked, own *strings.Builder) {
	for _, p := range s.Ports {
		id := fmt.Sprintf("%s-%d", strings.ToUpper(s.Name), p)
		svc := "KUBE-SVC-" + id
		seps := [2]string{"KUBE-SEP-" + id + "-A", "KUBE-SEP-" + id + "-B"}
		fmt.Fprintf(asked, "-A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"default/%s cluster IP\" -m tcp --dport %d -j %s\n", s.Addr, s.Name, p, svc)
		if own == nil {
			continue
		}
		fmt.Fprintf(chains, ":%s - [0:0]\n:%s - [0:0]\n:%s - [0:0]\n", svc, seps[0], seps[1])
		fmt.Fprintf(own, "-A %s ! -s %s -d %s/32 -p tcp -m comment --comment \"default/%s cluster IP\" -m tcp --dport %d -j KUBE-MARK-MASQ\n", svc, podRange, s.Addr, s.Name, p)
		fmt.Fprintf(own, "-A %s -m comment --comment \"default/%s\" -m statistic --mode random --probability 0.5 -j %s\n", svc, s.Name, seps[0])
		fmt.Fprintf(own, "-A %s -m comment --comment \"default/%s\" -j %s\n", svc, s.Name, seps[1])
		for i, ep := range s.Endpoints {
			fmt.Fprintf(own, "-A %s -s %s/32 -m comment --comment \"default/%s\" -j KUBE-MARK-MASQ\n", seps[i], ep, s.Name)
			fmt.Fprintf(own, "-A %s -p tcp -m comment --comment \"default/%s\" -m tcp -j DNAT --to-destination %s:%d\n", seps[i], s.Name, ep, p)
		}
	}
}

func iptablesRules(all []Service) string {
	var chains, asked, own strings.Builder
	for _, s := range all {
		iptablesService(s, &chains, &asked, &own)
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
` + iptablesMasq + asked.String() + own.String() + "COMMIT\n"
}

const iptablesMasq = `-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
`

func iptablesDelta(all []Service, from int) string {
	var chains, asked, own strings.Builder
	for _, s := range all[:from] {
		iptablesService(s, nil, &asked, nil)
	}
	for _, s := range all[from:] {
		iptablesService(s, &chains, &asked, &own)
	}
	return "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n" +
		chains.String() + iptablesMasq + asked.String() + own.String() + "COMMIT\n"
}
