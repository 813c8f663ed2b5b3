package parse

import (
	"cmp"
	"fmt"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
)

func (d *decoder) checkPorts(path string, rules []v2.PortRule) {
	if rules != nil && len(rules) == 0 {
		d.fail(path+".toPorts", "empty; leave it out to mean every port, or name one")
	}
	if len(rules) > maxPorts {
		d.fail(path+".toPorts", "%d members, at most %d are possible", len(rules), maxPorts)
	}
	for i, r := range rules {
		at := fmt.Sprintf("%s.toPorts[%d].ports", path, i)
		if len(r.Ports) == 0 {
			d.fail(at, "no port; leave toPorts out to mean every port, or name one")
		}
		if len(r.Ports) > maxPorts {
			d.fail(at, "%d ports, at most %d are possible", len(r.Ports), maxPorts)
			continue
		}
		for j, p := range r.Ports {
			d.checkPort(fmt.Sprintf("%s[%d]", at, j), p)
		}
	}
}

func (d *decoder) checkPort(path string, p v2.PortProtocol) {
	if _, ok := p.Protocols(); !ok {
		d.fail(path+".protocol", "unknown protocol %q; want TCP, UDP, SCTP or ANY (ICMP: see icmps)", p.Protocol)
	}
	if p.EndPort < 0 || p.EndPort > 65535 {
		d.fail(path+".endPort", "%d: want 1..65535", p.EndPort)
		return
	}
	lo, named, err := p.Number()
	switch {
	case err != nil:
		d.fail(path+".port", "%v", err)
	case p.EndPort == 0:
	case named:
		d.fail(path+".endPort", "a named port (%q) has no range; want a number in port", p.Port)
	case lo == 0:
		d.fail(path+".endPort", "port 0 is every port already; want a range from 1 up")
	case p.EndPort < int32(lo):
		d.fail(path+".endPort", "%d is below port %d", p.EndPort, lo)
	}
}

func (d *decoder) checkICMPs(path string, rules []v2.ICMPRule) {
	if rules != nil && len(rules) == 0 {
		d.fail(path+".icmps", "empty; leave it out to mean every protocol, or name a type")
	}
	if len(rules) > maxPorts {
		d.fail(path+".icmps", "%d members, at most %d are possible", len(rules), maxPorts)
	}
	for i, r := range rules {
		at := fmt.Sprintf("%s.icmps[%d].fields", path, i)
		if len(r.Fields) == 0 || len(r.Fields) > maxPorts {
			d.fail(at, "%d fields; want 1..%d", len(r.Fields), maxPorts)
			continue
		}
		for j, f := range r.Fields {
			field := fmt.Sprintf("%s[%d]", at, j)
			if f.Family != "" && f.Family != v2.FamilyIPv4 && f.Family != v2.FamilyIPv6 {
				d.fail(field+".family", "unknown family %q; want IPv4 or IPv6", f.Family)
				continue
			}
			if f.Type == nil {
				d.fail(field+".type", "missing")
				continue
			}
			if _, ok := f.Type.Resolve(f.Family); !ok {
				d.fail(field+".type", "unknown ICMP type %q of %s; a number is always possible", f.Type.Name,
					cmp.Or(f.Family, v2.FamilyIPv4))
			}
		}
	}
}
