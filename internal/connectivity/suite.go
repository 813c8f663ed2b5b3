package connectivity

// Labels that policies and expectations are about.
var (
	client  = labelled("name", "client")
	client2 = labelled("name", "client2")
	other   = labelled("other", "client")
	isEcho  = labelled("kind", "echo")
	toSame  = labelled("name", "echo-same-node")
)

func all(r Result) func(*Site, *Action) Result { return func(*Site, *Action) Result { return r } }

// unless is a result for all actions but those that fn picks.
func unless(r Result, fn func(*Action) bool) func(*Site, *Action) Result {
	return func(_ *Site, a *Action) Result {
		if fn(a) {
			return OK
		}
		return r
	}
}

func notFrom(from who) func(*Action) bool  { return func(a *Action) bool { return !from(a.From) } }
func onlyFrom(from who) func(*Action) bool { return func(a *Action) bool { return from(a.From) } }
func outside(a *Action) bool               { return a.To == nil }

// cidr is what comes of the two addresses outside.
func cidr(ip, other Result) func(*Site, *Action) Result {
	return func(s *Site, a *Action) Result {
		if a.Addr == s.External.block(a.Addr.Is6()).Other {
			return other
		}
		return ip
	}
}

// Suite are all tests, in the order that they are run in.
func Suite() []*Test {
	tests := basic()
	for _, t := range basic() {
		if t.Clusterwide {
			t.Name += "-ccnp"
			tests = append(tests, t)
		}
	}
	for _, t := range tests {
		t.Clusterwide = len(t.Name) > 5 && t.Name[len(t.Name)-5:] == "-ccnp"
	}
	return append(tests, unsupported()...)
}

// ranges is a test twice, the second time with ranges of ports.
func ranges(t Test) []*Test {
	ranged := t
	ranged.Name, ranged.Ranged, ranged.Clusterwide = t.Name+"-port-range", true, false
	return []*Test{&t, &ranged}
}

// basic are the tests of one namespace. Those that are Clusterwide are run another time with policies of the whole cluster.
func basic() []*Test {
	var out []*Test
	add := func(t Test) { out = append(out, &t) }
	addRanges := func(t Test) { out = append(out, ranges(t)...) }
	open := []string{"allow-all-egress", "allow-all-ingress"}
	with := func(names ...string) []string { return append(append([]string(nil), open...), names...) }

	add(Test{Name: "no-policies", Scenarios: []Scenario{PodToPod(anyone, anyone), ClientToClient(), PodToService(), PodToHostPort(), PodToWorld(), PodToHost(),
		HostToPod(), PodToCIDR(anyone)}})
	add(Test{Name: "no-policies-from-outside", Scenarios: []Scenario{FromCIDRToPod()}})
	add(Test{Name: "no-policies-extra", Scenarios: []Scenario{PodToNodePort(true), PodToNodePort(false)}})
	add(Test{Name: "allow-all-except-world", Clusterwide: true, Policies: []string{"allow-all-except-world"},
		Scenarios: []Scenario{PodToPod(anyone, anyone), ClientToClient(), PodToService(), PodToHost(), PodToCIDR(anyone)}, Want: unless(EgressDefaultDeny, func(a *Action) bool { return !outside(a) })})
	fromClient2 := unless(IngressDefaultDeny, func(a *Action) bool { return other(a.From) || !client(a.To) })
	add(Test{Name: "client-ingress", Clusterwide: true, Policies: []string{"client-ingress-from-client2"}, Scenarios: []Scenario{ClientToClient()}, Want: fromClient2})
	add(Test{Name: "client-ingress-knp", Policies: []string{"client-ingress-from-client2-knp"}, Scenarios: []Scenario{ClientToClient()}, Want: fromClient2})
	add(Test{Name: "all-ingress-deny", Clusterwide: true, Policies: []string{"deny-all-ingress"}, Scenarios: []Scenario{PodToPod(anyone, anyone), PodToCIDR(anyone)},
		Want: unless(IngressDefaultDeny, outside)})
	add(Test{Name: "all-ingress-deny-from-outside", Policies: []string{"deny-all-ingress"}, Scenarios: []Scenario{FromCIDRToPod()}, Want: all(IngressDefaultDeny)})
	add(Test{Name: "all-ingress-deny-knp", Policies: []string{"deny-all-ingress-knp"}, Scenarios: []Scenario{PodToPod(anyone, anyone), PodToCIDR(anyone)},
		Want: unless(IngressDefaultDeny, outside)})
	add(Test{Name: "all-egress-deny", Clusterwide: true, Policies: []string{"deny-all-egress"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}, Want: all(EgressDefaultDeny)})
	add(Test{Name: "all-egress-deny-knp", Policies: []string{"deny-all-egress-knp"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}, Want: all(EgressDefaultDeny)})
	add(Test{Name: "all-entities-deny", Policies: []string{"deny-all-entities"}, Scenarios: []Scenario{PodToPod(anyone, anyone), PodToCIDR(anyone)}, Want: all(EgressDeny)})
	add(Test{Name: "cluster-entity", Clusterwide: true, Policies: []string{"allow-cluster-entity"}, Scenarios: []Scenario{PodToPod(anyone, toSame)}})
	add(Test{Name: "host-entity-egress", Clusterwide: true, Policies: []string{"allow-host-entity-egress"}, Scenarios: []Scenario{PodToHost()}})
	add(Test{Name: "host-entity-ingress", Clusterwide: true, Policies: []string{"allow-host-entity-ingress"}, Scenarios: []Scenario{HostToPod()}})
	fromOther := unless(IngressDefaultDeny, onlyFrom(other))
	add(Test{Name: "echo-ingress", Clusterwide: true, Policies: []string{"echo-ingress-from-other-client"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}, Want: fromOther})
	add(Test{Name: "echo-ingress-from-outside", Policies: []string{"echo-ingress-from-other-client"}, Scenarios: []Scenario{FromCIDRToPod()}, Want: all(IngressDefaultDeny)})
	add(Test{Name: "echo-ingress-knp", Policies: []string{"echo-ingress-from-other-client-knp"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}, Want: fromOther})
	add(Test{Name: "client-ingress-icmp", Clusterwide: true, Policies: []string{"client-ingress-icmp"}, Scenarios: []Scenario{ClientToClient()}, Want: fromOther})
	add(Test{Name: "client-egress", Clusterwide: true, Policies: []string{"client-egress-to-echo"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}})
	add(Test{Name: "client-egress-knp", Policies: []string{"client-egress-to-echo-knp"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}})
	addRanges(Test{Name: "client-egress-expression", Clusterwide: true, Policies: []string{"client-egress-to-echo-expression"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}})
	addRanges(Test{Name: "client-egress-expression-knp", Policies: []string{"client-egress-to-echo-expression-knp"}, Scenarios: []Scenario{PodToPod(anyone, anyone)}})
	addRanges(Test{Name: "client-with-service-account-egress-to-echo", Clusterwide: true, Needs: []Need{ServiceAccount},
		Policies:  []string{"client-with-service-account-egress-to-echo"},
		Scenarios: []Scenario{PodToPod(anyone, anyone), PodToCIDR(client)}, Want: unless(EgressDefaultDeny, func(a *Action) bool { return !outside(a) })})
	addRanges(Test{Name: "client-egress-to-echo-service-account", Clusterwide: true, Needs: []Need{ServiceAccount}, Policies: []string{"client-egress-to-echo-service-account"},
		Scenarios: []Scenario{PodToPod(anyone, anyone)}, Want: unless(EgressDefaultDeny, func(a *Action) bool { return toSame(a.To) })})
	addRanges(Test{Name: "to-entities-world", Clusterwide: true, Policies: []string{"client-egress-to-entities-world"}, Scenarios: []Scenario{PodToWorld()},
		Want: unless(EgressDefaultDeny, func(a *Action) bool { return a.Port == 80 })})
	add(Test{Name: "to-cidr-external", Clusterwide: true, Policies: []string{"client-egress-to-cidr-external"}, Scenarios: []Scenario{PodToCIDR(anyone)},
		Want: cidr(OK, EgressDefaultDeny)})
	add(Test{Name: "to-cidr-external-knp", Policies: []string{"client-egress-to-cidr-external-knp"}, Scenarios: []Scenario{PodToCIDR(anyone)}, Want: cidr(OK, EgressDefaultDeny)})
	add(Test{Name: "from-cidr-host-netns", Policies: []string{"echo-ingress-from-cidr"}, Scenarios: []Scenario{FromCIDRToPod()}})
	add(Test{Name: "echo-ingress-from-other-client-deny", Clusterwide: true, Policies: with("echo-ingress-from-other-client-deny"),
		Scenarios: []Scenario{PodToPod(client, anyone), PodToPod(client2, anyone), ClientToClient()},
		Want:      unless(IngressDeny, func(a *Action) bool { return !other(a.From) || !isEcho(a.To) })})
	add(Test{Name: "client-ingress-from-other-client-icmp-deny", Clusterwide: true, Policies: with("client-ingress-icmp-deny"),
		Scenarios: []Scenario{PodToPod(anyone, anyone), ClientToClient()}, Want: unless(IngressDeny, func(a *Action) bool { return !other(a.From) || isEcho(a.To) })})
	addRanges(Test{Name: "client-egress-to-echo-deny", Clusterwide: true, Policies: with("client-egress-to-echo-deny"),
		Scenarios: []Scenario{ClientToClient(), PodToPod(client, anyone), PodToPod(client2, anyone)},
		Want:      unless(EgressDeny, func(a *Action) bool { return !client(a.From) || !isEcho(a.To) })})
	add(Test{Name: "client-ingress-to-echo-named-port-deny", Clusterwide: true, Needs: []Need{NamedPort}, Policies: with("client-ingress-to-echo-named-port-deny"),
		Scenarios: []Scenario{PodToPod(client, anyone), PodToPod(client2, anyone)}, Want: unless(IngressDeny, notFrom(client))})
	addRanges(Test{Name: "client-egress-to-echo-expression-deny", Clusterwide: true, Policies: with("client-egress-to-echo-expression-deny"),
		Scenarios: []Scenario{PodToPod(client, anyone), PodToPod(client2, anyone)}, Want: unless(EgressDeny, notFrom(client))})
	addRanges(Test{Name: "client-with-service-account-egress-to-echo-deny", Clusterwide: true, Needs: []Need{ServiceAccount},
		Policies:  with("client-with-service-account-egress-to-echo-deny"),
		Scenarios: []Scenario{PodToPod(client, anyone), PodToPod(client2, anyone)}, Want: unless(EgressDeny, notFrom(client))})
	addRanges(Test{Name: "client-egress-to-echo-service-account-deny", Clusterwide: true, Needs: []Need{ServiceAccount},
		Policies:  with("client-egress-to-echo-service-account-deny"),
		Scenarios: []Scenario{PodToPod(client, anyone), PodToPod(client2, anyone)},
		Want:      unless(EgressDeny, func(a *Action) bool { return !client(a.From) || !toSame(a.To) })})
	add(Test{Name: "client-egress-to-cidr-deny", Clusterwide: true, Policies: []string{"allow-all-egress", "client-egress-to-cidr-deny"},
		Scenarios: []Scenario{PodToCIDR(anyone)}, Want: cidr(OK, EgressDeny)})
	add(Test{Name: "client-egress-to-cidrgroup", Policies: []string{"external", "client-egress-to-cidrgroup"}, Scenarios: []Scenario{PodToCIDR(anyone)}})
	add(Test{Name: "client-egress-to-cidrgroup-deny", Policies: []string{"external", "allow-all-egress", "client-egress-to-cidrgroup-deny"},
		Scenarios: []Scenario{PodToCIDR(anyone)}, Want: cidr(OK, EgressDeny)})
	add(Test{Name: "client-egress-to-cidrgroup-deny-by-label", Policies: []string{"external", "allow-all-egress", "client-egress-to-cidrgroup-deny-by-label"},
		Scenarios: []Scenario{PodToCIDR(anyone)}, Want: cidr(OK, EgressDeny)})
	add(Test{Name: "client-egress-to-cidr-deny-default", Clusterwide: true, Policies: []string{"client-egress-to-cidr-deny"}, Scenarios: []Scenario{PodToCIDR(anyone)},
		Want: cidr(EgressDefaultDeny, EgressDeny)})
	add(Test{Name: "north-south-loadbalancing", Scenarios: []Scenario{OutsideToNodePort()}})
	return out
}

// unsupported are the tests of what is not there yet, each with the reason.
func unsupported() []*Test {
	var out []*Test
	for _, u := range []struct {
		why   string
		names []string
	}{
		{"health probes between nodes are not supported yet", []string{"health"}},
		{"metrics are not compared yet", []string{"no-unexpected-packet-drops", "allow-all-with-metrics-check"}},
		{"encryption is not supported yet", []string{"pod-to-pod-encryption", "pod-to-pod-with-l7-policy-encryption", "node-to-node-encryption", "strict-mode-encryption"}},
		{"egress gateways are not supported yet", []string{"egress-gateway", "egress-gateway-excluded-cidrs", "egress-gateway-with-l7-policy", "egress-gateway-multigateway"}},
		{"policyCIDRMatchMode: nodes is not supported yet", []string{"pod-to-node-cidrpolicy"}},
		{"L7 policy is not supported yet", []string{"north-south-loadbalancing-with-l7-policy", "echo-ingress-l7", "echo-ingress-l7-named-port", "client-egress-l7-method",
			"client-egress-l7", "client-egress-l7-named-port", "client-egress-tls-sni", "client-egress-l7-set-header", "client-egress-l7-tls-deny-without-headers",
			"client-egress-l7-tls-headers"}},
		{"mutual authentication is not supported yet", []string{"echo-ingress-auth-always-fail", "echo-ingress-mutual-auth-spiffe"}},
		{"Ingress is not supported yet", []string{"pod-to-ingress-service", "pod-to-ingress-service-deny-all", "pod-to-ingress-service-deny-ingress-identity",
			"pod-to-ingress-service-deny-backend-service", "pod-to-ingress-service-allow-ingress-identity", "outside-to-ingress-service",
			"outside-to-ingress-service-deny-world-identity", "outside-to-ingress-service-deny-cidr", "outside-to-ingress-service-deny-all-ingress"}},
		{"DNS and FQDN policy is not supported yet", []string{"dns-only", "to-fqdns"}},
		{"local redirect policy is not supported yet", []string{"local-redirect-policy", "local-redirect-policy-with-node-dns"}},
		{"BGP is not supported yet", []string{"bgp-control-plane-v1", "bgp-control-plane-v2"}},
		{"multicast is not supported yet", []string{"multicast"}},
		{"cluster mesh is not supported yet", []string{"cluster-entity-multi-cluster", "clustermesh-endpointslice-sync"}},
		{"policy of nodes (host firewall) is not supported yet", []string{"host-firewall-ingress", "host-firewall-egress"}},
	} {
		for _, name := range u.names {
			out = append(out, &Test{Name: name, Skip: u.why})
		}
	}
	return out
}
