package cli

import (
	"net/netip"
	"strconv"
	"strings"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// peerFlags are the ways that `policy trace` has to name one end.
type peerFlags struct {
	labels   []string
	identity string
	endpoint string
	pod      string
	ip       string
	any      string // --from, --to or an argument
}

// named says whether a flag names the end.
func (p *peerFlags) named() bool {
	return len(p.labels) > 0 || p.identity != "" || p.endpoint != "" || p.pod != "" || p.ip != "" || p.any != ""
}

// peer reads the one way that was used, or an address besides labels or an identity; side is "source" or "destination".
func (p *peerFlags) peer(side, example string) (*agentv1.Peer, error) {
	var found []*agentv1.Peer
	if ls := split(p.labels); len(ls) > 0 {
		found = append(found, &agentv1.Peer{Labels: ls})
	}
	if p.identity != "" {
		id, err := identityID(p.identity)
		if err != nil {
			return nil, err
		}
		found = append(found, &agentv1.Peer{Identity: uint32(id)})
	}
	if p.endpoint != "" {
		n, err := strconv.ParseUint(p.endpoint, 10, 16)
		if err != nil || n == 0 {
			return nil, usagef("%q is no endpoint number: `hypha endpoint list` shows them", p.endpoint)
		}
		found = append(found, &agentv1.Peer{Endpoint: uint32(n)})
	}
	if p.pod != "" {
		found = append(found, &agentv1.Peer{Pod: strings.Replace(p.pod, ":", "/", 1)}) // upstream writes namespace:pod
	}
	if p.ip != "" {
		if _, err := netip.ParseAddr(p.ip); err != nil {
			return nil, usagef("%q is no IP address", p.ip)
		}
		if len(found) == 1 && (len(found[0].GetLabels()) > 0 || found[0].GetIdentity() != 0) {
			found[0].Ip = p.ip
		} else {
			found = append(found, &agentv1.Peer{Ip: p.ip})
		}
	}
	if p.any != "" {
		peer, err := guessPeer(p.any)
		if err != nil {
			return nil, err
		}
		found = append(found, peer)
	}
	switch len(found) {
	case 0:
		return nil, &usageError{what: "policy trace needs a " + side, hint: example}
	case 1:
		return found[0], nil
	}
	return nil, usagef("the %s is named in more than one way", side)
}

// guessPeer reads an end as people write it: an address, labels (id=app1, k8s:app=x, reserved:world), identity:N,
// endpoint:N, else a workload [namespace/]name.
func guessPeer(s string) (*agentv1.Peer, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return &agentv1.Peer{Ip: a.String()}, nil
	}
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "identity":
		return (&peerFlags{identity: rest}).peer("identity", "identity:1234")
	case "endpoint":
		return (&peerFlags{endpoint: rest}).peer("endpoint", "endpoint:1234")
	case "pod", "pod-name":
		if rest == "" {
			return nil, usagef("%q names no workload", s)
		}
		return &agentv1.Peer{Pod: rest}, nil
	case "ip", "ipv4", "ipv6":
		a, err := netip.ParseAddr(rest)
		if err != nil {
			return nil, usagef("%q is no IP address", rest)
		}
		return &agentv1.Peer{Ip: a.String()}, nil
	}
	if strings.ContainsAny(s, "=:") {
		return &agentv1.Peer{Labels: split([]string{s})}, nil
	}
	return &agentv1.Peer{Pod: s}, nil
}

// port is what to ask for: a number or a name, and a protocol.
type port struct {
	number uint32
	name   string
	proto  string // canonical
}

var protocols = map[string]string{"tcp": "TCP", "udp": "UDP", "sctp": "SCTP", "icmp": "ICMP", "icmpv4": "ICMP", "icmpv6": "ICMPv6", "any": ""}

// parsePort reads "80", "80/tcp", "tcp/80", "http", "8/icmp" (the type) or "icmp"; proto is used where none is written.
func parsePort(s, proto string) (port, error) {
	first, second, both := strings.Cut(s, "/")
	if p, ok := protocols[strings.ToLower(first)]; ok {
		first, second = second, first
		if !both && p != "ICMP" && p != "ICMPv6" {
			return port{}, usagef("port %q has no number: want for example 80/%s", s, strings.ToUpper(s))
		}
		if !both {
			first = map[string]string{"ICMP": "8", "ICMPv6": "128"}[p] // echo
		}
		both = true
	}
	if both {
		if proto = second; proto == "" {
			return port{}, usagef("%q is no port: want for example 80/tcp", s)
		}
	}
	p := port{}
	var ok bool
	if p.proto, ok = protocols[strings.ToLower(or(proto, "tcp"))]; !ok {
		return port{}, usagef("unknown protocol %q: want tcp, udp, sctp, icmp or icmpv6", proto)
	}
	if p.proto == "" {
		return port{}, usagef("a trace needs one protocol, not %q: want tcp, udp, sctp, icmp or icmpv6", proto)
	}
	n, err := strconv.ParseUint(first, 10, 32)
	switch limit := uint64(65535); {
	case err == nil:
		if strings.HasPrefix(p.proto, "ICMP") {
			limit = 255
		}
		if n > limit {
			return port{}, usagef("port %s is greater than %d", first, limit)
		}
		p.number = uint32(n)
	case first == "" || strings.ContainsAny(first[:1], "-+0123456789") || strings.HasPrefix(p.proto, "ICMP"):
		return port{}, usagef("%q is no port: want for example 80, 53/udp, http or 8/icmp", s)
	default:
		p.name = first
	}
	return p, nil
}

// String is "80/TCP".
func (p port) String() string {
	switch {
	case p.name != "":
		return p.name + "/" + p.proto
	case strings.HasPrefix(p.proto, "ICMP"):
		return p.proto + " type " + number(p.number)
	}
	return number(p.number) + "/" + p.proto
}
