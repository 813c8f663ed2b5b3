package maps

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Column is one named value of a row, for people.
type Column struct{ Name, Value string }

// Dump calls fn with every row of the named map, columns in display order, until it says false.
func (m *Maps) Dump(name string, fn func([]Column) bool) error {
	if m.byName[name] == nil {
		return fmt.Errorf("no map %q", name)
	}
	var row []Column
	return m.dump(name, &row, func() bool { return fn(row) })
}

// dump walks a map, puts each row's columns into *row unless row is nil, and calls next.
func (m *Maps) dump(name string, row *[]Column, next func() bool) error {
	switch name {
	case Endpoints:
		return rows(m.endpoints, row, next, endpointColumns)
	case IPCacheExact:
		return rows(m.ipExact, row, next, func(k *layout.Addr, v *layout.IPCacheValue) []Column {
			return ipColumns(netip.AddrFrom16(k.B).Unmap().String(), v)
		})
	case IPCache:
		return rows(m.ipLPM, row, next, func(k *layout.IPCacheKey, v *layout.IPCacheValue) []Column {
			return ipColumns(k.Prefix().String(), v)
		})
	case IPCacheWas:
		return rows(m.ipWas, row, next, func(k *layout.Addr, v *uint32) []Column {
			return []Column{{"ADDRESS", netip.AddrFrom16(k.B).Unmap().String()}, {"IDENTITY", num(*v)}}
		})
	case Class:
		return rows(m.class, row, next, func(k, v *uint32) []Column {
			return []Column{{"IDENTITY", num(*k)}, {"CLASS", num(*v)}}
		})
	case ClassAt:
		return rows(m.classAt, row, next, func(k *layout.Peer, v *uint32) []Column {
			return []Column{{"IDENTITY", num(k.Identity)}, {"AREA", num(k.Area)}, {"CLASS", num(*v)}}
		})
	case Area:
		return rows(m.area, row, next, func(k *layout.AreaKey, v *layout.Area) []Column {
			return []Column{{"PREFIX", k.Prefix().String()}, {"AREA", num(v.Id)}, {"STRICT", strconv.FormatBool(v.Flags&layout.AreaStrict != 0)}}
		})
	case Policy:
		return rows(m.policy, row, next, policyColumns)
	case Overflow:
		return rows(m.overflow, row, next, overflowColumns)
	case CT:
		now := Now()
		return rows(m.ct, row, next, func(k *layout.CTKey, v *layout.CTValue) []Column { return ctColumns(k, v, now) })
	case NAT:
		now := Now()
		return rows(m.nat, row, next, func(k *layout.NATKey, v *layout.NATValue) []Column { return natColumns(k, v, now) })
	case Frag:
		return rows(m.frag, row, next, fragColumns)
	case Devices:
		return rows(m.devices, row, next, func(k *uint32, v *layout.Device) []Column {
			d := deviceFrom(v)
			return []Column{{"IFINDEX", num(*k)}, {"MASQUERADE-IPV4", addr(d.Masq4)}, {"MASQUERADE-IPV6", addr(d.Masq6)},
				{"MTU", num(d.MTU)}, {"L3", strconv.FormatBool(d.L3)}}
		})
	case LBAddress, LBFrontend, LBSlot, LBMaglev, LBMember, LBAffinity, LBReverse, LBSource:
		return m.dumpLB(name, row, next)
	case PrefilterExact:
		return m.dumpOne(row, next, func() (out [][]Column, _ error) {
			exact, err := m.deniedAddrs()
			for _, p := range exact {
				out = append(out, []Column{{"CIDR", p.String()}})
			}
			return out, err
		})
	case Prefilter:
		return rows(m.deniedLPM, row, next, func(k *layout.PrefilterKey, _ *uint8) []Column {
			return []Column{{"CIDR", k.Prefix().String()}}
		})
	case PrefilterState:
		return m.dumpOne(row, next, func() ([][]Column, error) {
			s, err := m.DeniedState()
			return [][]Column{{{"REVISION", num(s.Revision)}, {"PREFIXES", flags(flag{s.Prefix4, "ipv4"}, flag{s.Prefix6, "ipv6"})}}}, err
		})
	case PrefilterCount:
		return m.dumpOne(row, next, func() ([][]Column, error) {
			packets, bytes, err := m.PrefilterDrops()
			return [][]Column{{{"PACKETS", num(packets)}, {"BYTES", num(bytes)}}}, err
		})
	case XDPDevices:
		return m.dumpOne(row, next, func() (out [][]Column, _ error) {
			devices, err := m.XDPDevices()
			for _, d := range devices {
				out = append(out, []Column{{"IFINDEX", num(d)}})
			}
			return out, err
		})
	case XDPCount:
		return m.dumpOne(row, next, func() ([][]Column, error) {
			c, err := m.Accelerated()
			return [][]Column{
				{{"WHAT", "sent on"}, {"PACKETS", num(c.Sent)}, {"BYTES", num(c.SentBytes)}},
				{{"WHAT", "left to tc"}, {"PACKETS", num(c.Left)}, {"BYTES", num(c.LeftBytes)}},
			}, err
		})
	case State:
		return m.dumpOne(row, next, func() ([][]Column, error) {
			s, err := m.readState()
			return [][]Column{{{"EPOCH", num(s.Epoch)}, {"AUDIT", strconv.FormatBool(s.Flags&layout.StateAudit != 0)}}}, err
		})
	case Metrics:
		return m.dumpOne(row, next, m.metricRows)
	case EventCount:
		return m.dumpOne(row, next, m.eventRows)
	case Events:
		return m.dumpOne(row, next, func() (out [][]Column, _ error) {
			for cpu, r := range m.rings {
				out = append(out, []Column{{"CPU", num(cpu)}, {"BYTES", num(r.MaxEntries())}})
			}
			return out, nil
		})
	}
	return nil // working memory of the programs: nothing in it outlives a packet
}

func rows[K, V any](h *handle, row *[]Column, next func() bool, columns func(*K, *V) []Column) error {
	return each(h, func(k *K, v *V) bool {
		if row != nil {
			*row = columns(k, v)
		}
		return next()
	})
}

func (m *Maps) dumpOne(row *[]Column, next func() bool, read func() ([][]Column, error)) error {
	all, err := read()
	if err != nil {
		return err
	}
	for _, r := range all {
		if row != nil {
			*row = r
		}
		if !next() {
			return nil
		}
	}
	return nil
}

func endpointColumns(k *layout.Addr, v *layout.Endpoint) []Column {
	e := endpointFrom(v)
	return []Column{{"ADDRESS", addr(k.Netip())}, {"ENDPOINT", num(e.ID)}, {"IDENTITY", num(e.Identity)},
		{"POLICY-SET", num(e.Set)}, {"IFINDEX", num(e.IfIndex)}, {"MAC", mac(e.MAC)}, {"HOST-MAC", mac(e.HostMAC)},
		{"AUDIT", strconv.FormatBool(e.Audit)}}
}

func ipColumns(prefix string, v *layout.IPCacheValue) []Column {
	ip := ipFrom(v)
	return []Column{{"PREFIX", prefix}, {"IDENTITY", num(ip.Identity)}, {"TUNNEL", addr(ip.Tunnel)},
		{"FLAGS", flags(flag{ip.Node, "node"}, flag{ip.NoMasq, "no-masquerade"}, flag{ip.LocalCIDR, "local-cidr"},
			flag{ip.Overlay, "overlay"})}}
}

func policyColumns(k *layout.PolicyKey, v *layout.PolicyValue) []Column {
	entries := "in " + Overflow
	if v.Flags&layout.PolicyOverflow == 0 {
		var b []string
		for i := range min(int(v.Count), layout.PolicyListMax) {
			b = append(b, entryText(&v.Entry[i]))
		}
		entries = strings.Join(b, ", ")
	}
	return []Column{{"SET", num(k.Set)}, {"CLASS", num(k.Class)}, {"DIRECTION", keyFrom(k).Dir.String()},
		{"ENTRIES", entries}, {"DEFAULT", verdict(v.DefaultVerdict) + " rule " + num(v.DefaultRule)}}
}

func overflowColumns(k *layout.PolicyOverflowKey, v *layout.PolicyEntry) []Column {
	lk := listOf(k)
	kind := "lookup"
	if k.Dir&dirStored != 0 {
		kind = "stored"
	}
	return []Column{{"SET", num(k.Set)}, {"CLASS", num(k.Class)}, {"DIRECTION", keyFrom(&lk).Dir.String()}, {"KIND", kind},
		{"PROTOCOL", num(k.Proto)}, {"PORT", num(be16(k.Port)) + "/" + num(k.Prefixlen-layout.PolicyOverflowAnyPort)},
		{"ENTRY", entryText(v)}}
}

func entryText(e *layout.PolicyEntry) string {
	proto := "any"
	if e.Proto != 0 {
		proto = num(e.Proto) + ":" + num(e.PortLo)
		if e.PortHi != e.PortLo {
			proto += "-" + num(e.PortHi)
		}
	}
	s := proto + " " + verdict(e.Verdict)
	if e.ProxyPort != 0 {
		s += " to " + num(e.ProxyPort)
	}
	return s + " rule " + num(e.Rule)
}

func verdict(v uint8) string {
	s := "verdict " + num(v&layout.VerdictMask)
	switch v & layout.VerdictMask {
	case layout.VerdictDeny:
		s = "deny"
	case layout.VerdictAllow:
		s = "allow"
	case layout.VerdictRedirect:
		s = "redirect"
	case layout.VerdictAuth:
		s = "auth"
	}
	if v&layout.VerdictAudit != 0 {
		s += " (audit)"
	}
	return s
}

func ctColumns(k *layout.CTKey, v *layout.CTValue, now uint64) []Column {
	c := connectionFrom(k, v, now)
	return []Column{{"PROTOCOL", num(c.Proto)}, {"SOURCE", c.Src.String()}, {"DESTINATION", c.Dst.String()},
		{"EXPIRES", c.Expires.Round(time.Second).String()}, {"SOURCE-IDENTITY", num(c.SrcIdentity)},
		{"DESTINATION-IDENTITY", num(c.DstIdentity)}, {"EPOCH", num(c.Epoch)},
		{"RULES", num(c.Rules[0]) + " " + num(c.Rules[1])},
		{"FLAGS", flags(flag{c.SeenReply, "seen-reply"}, flag{c.Closing, "closing"}, flag{c.Audit, "audit"}, flag{c.NAT, "nat"})},
		{"PACKETS", num(c.Packets[0]) + " " + num(c.Packets[1])}, {"BYTES", num(c.Bytes[0]) + " " + num(c.Bytes[1])}}
}

func natColumns(k *layout.NATKey, v *layout.NATValue, now uint64) []Column {
	t := translationFrom(k, v, now)
	dir := "forward"
	if t.Reverse {
		dir = "reverse"
	}
	return []Column{{"PROTOCOL", num(t.Proto)}, {"DIRECTION", dir}, {"SOURCE", t.Src.String()},
		{"DESTINATION", t.Dst.String()}, {"NEW-SOURCE", t.ToSrc.String()}, {"NEW-DESTINATION", t.ToDst.String()},
		{"AGE", t.Age.Round(time.Second).String()}}
}

func fragColumns(k *layout.FragKey, v *layout.FragValue) []Column {
	return []Column{{"SOURCE", addr(k.Src.Netip())}, {"DESTINATION", addr(k.Dst.Netip())}, {"PROTOCOL", num(k.Proto)},
		{"ID", fmt.Sprintf("%#x", k.Id)}, {"SOURCE-PORT", num(be16(v.Sport))}, {"DESTINATION-PORT", num(be16(v.Dport))}}
}

func (m *Maps) metricRows() ([][]Column, error) {
	all, err := m.Metrics()
	var out [][]Column
	for _, x := range all {
		dir := [...]string{"unknown", "ingress", "egress", "3"}[x.Direction]
		out = append(out, []Column{{"REASON", num(x.Reason)}, {"DIRECTION", dir}, {"PACKETS", num(x.Packets)},
			{"BYTES", num(x.Bytes)}})
	}
	return out, err
}

func (m *Maps) eventRows() ([][]Column, error) {
	all, err := m.EventCounts()
	var out [][]Column
	for cpu, c := range all {
		out = append(out, []Column{{"CPU", num(cpu)}, {"STORED", num(c.Stored)}, {"LOST", num(c.Lost)}})
	}
	return out, err
}

type flag struct {
	on   bool
	name string
}

func flags(fs ...flag) string {
	var out []string
	for _, f := range fs {
		if f.on {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, ",")
}

func num[N ~int | ~uint8 | ~uint16 | ~uint32 | ~uint64](n N) string {
	return strconv.FormatUint(uint64(n), 10)
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func mac(b [6]byte) string { return net.HardwareAddr(b[:]).String() }
