package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/model"
)

func node(name, addrs, cidrs, routers string) model.Node {
	n := model.Node{Name: name}
	for s := range strings.FieldsSeq(addrs) {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(s))
	}
	for s := range strings.FieldsSeq(cidrs) {
		n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(s))
	}
	for s := range strings.FieldsSeq(routers) {
		n.Routers = append(n.Routers, netip.MustParseAddr(s))
	}
	return n
}

func show(p Plan) string {
	var b strings.Builder
	for _, r := range p.Rows {
		fmt.Fprintf(&b, "%s %s", r.Prefix, r.Identity)
		if r.Tunnel.IsValid() {
			fmt.Fprintf(&b, " tunnel=%s", r.Tunnel)
		}
		for _, f := range []struct {
			on   bool
			name string
		}{{r.Node, "node"}, {r.LocalCIDR, "local"}, {r.NoMasq, "nomasq"}} {
			if f.on {
				b.WriteString(" " + f.name)
			}
		}
		b.WriteString("\n")
	}
	for _, r := range p.Routes {
		fmt.Fprintf(&b, "route %s via=%s dev=%s src=%s mtu=%d\n", r.Prefix, r.Via, r.Device, r.Src, r.MTU)
	}
	for _, w := range p.Warnings {
		b.WriteString("warning " + w + "\n")
	}
	return b.String()
}

func TestCompute(t *testing.T) {
	self := node("n1", "192.0.2.1 2001:db8::1", "10.0.1.0/24 fd00::100/120", "10.0.1.1 fd00::101")
	other := node("n2", "192.0.2.2 2001:db8::2", "10.0.2.0/24 fd00::200/120", "10.0.2.1 fd00::201")
	dual := Options{IPv4: true, IPv6: true, Device: "hypha_vxlan", MTU: 1450}
	native := dual
	native.Native, native.DirectRoutes = true, true
	for _, c := range []struct {
		name  string
		nodes []model.Node
		o     Options
		want  string
	}{
		{"overlay", []model.Node{self, other}, dual, `
0.0.0.0/0 world-ipv4
10.0.1.0/24 unmanaged local nomasq
10.0.1.1/32 host node nomasq
10.0.2.0/24 unmanaged tunnel=192.0.2.2 nomasq
10.0.2.1/32 remote-node tunnel=192.0.2.2 nomasq
192.0.2.1/32 host node nomasq
192.0.2.2/32 remote-node node
::/0 world-ipv6
2001:db8::1/128 host node nomasq
2001:db8::2/128 remote-node node
fd00::100/120 unmanaged local nomasq
fd00::101/128 host node nomasq
fd00::200/120 unmanaged tunnel=192.0.2.2 nomasq
fd00::201/128 remote-node tunnel=192.0.2.2 nomasq
route 10.0.2.0/24 via=invalid IP dev=hypha_vxlan src=10.0.1.1 mtu=1450
route fd00::200/120 via=invalid IP dev=hypha_vxlan src=fd00::101 mtu=1450
`},
		{"native", []model.Node{other}, native, `
0.0.0.0/0 world-ipv4
10.0.1.0/24 unmanaged local nomasq
10.0.1.1/32 host node nomasq
10.0.2.0/24 unmanaged nomasq
10.0.2.1/32 remote-node nomasq
192.0.2.1/32 host node nomasq
192.0.2.2/32 remote-node node nomasq
::/0 world-ipv6
2001:db8::1/128 host node nomasq
2001:db8::2/128 remote-node node nomasq
fd00::100/120 unmanaged local nomasq
fd00::101/128 host node nomasq
fd00::200/120 unmanaged nomasq
fd00::201/128 remote-node nomasq
route 10.0.2.0/24 via=192.0.2.2 dev= src=invalid IP mtu=0
route fd00::200/120 via=2001:db8::2 dev= src=invalid IP mtu=0
`},
		{"alone, one version, more not masqueraded", nil,
			Options{IPv4: true, NonMasq: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}}, `
0.0.0.0/0 world
10.0.1.0/24 unmanaged local nomasq
10.0.1.1/32 host node nomasq
172.16.0.0/12 world nomasq
192.0.2.1/32 host node nomasq
::/0 world
2001:db8::1/128 host node nomasq
fd00::100/120 unmanaged local nomasq
fd00::101/128 host node nomasq
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(strings.TrimPrefix(c.want, "\n"), show(Compute(&self, c.nodes, c.o))); d != "" {
				t.Error(d)
			}
		})
	}
}

// A node that claims what belongs to another one gets nothing of it.
func TestFalseClaims(t *testing.T) {
	self := node("n1", "192.0.2.1", "10.0.1.0/24", "10.0.1.1")
	good := node("n2", "192.0.2.2", "10.0.2.0/24", "10.0.2.1")
	for _, c := range []struct {
		name string
		bad  model.Node
	}{
		{"own range", node("n3", "192.0.2.3", "10.0.1.128/25", "10.0.1.129")},
		{"own address", node("n3", "192.0.2.1", "10.0.3.0/24", "10.0.3.1")},
		{"other's range", node("n3", "192.0.2.3", "10.0.0.0/16", "10.0.2.77")},
		{"other's address as range", node("n3", "192.0.2.3", "192.0.2.0/24", "192.0.2.2")},
		{"router elsewhere", node("n3", "192.0.2.3", "", "10.0.2.9 8.8.8.8")},
		{"no address", node("n3", "", "10.0.3.0/24", "10.0.3.1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{IPv4: true, Device: "hypha_vxlan"}
			want := Compute(&self, []model.Node{good}, o)
			got := Compute(&self, []model.Node{good, c.bad}, o)
			var rows []model.IPEntry
			for _, r := range got.Rows {
				if r.Prefix.String() != "192.0.2.3/32" { // its own address it may have
					rows = append(rows, r)
				}
			}
			got.Rows = rows
			if len(got.Warnings) == 0 && c.name != "router elsewhere" {
				t.Error("no warning")
			}
			got.Warnings = nil
			if d := cmp.Diff(show(want), show(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	self := node("n1", "192.0.2.1", "10.0.1.0/24", "10.0.1.1")
	far := node("n2", "198.51.100.2", "10.0.2.0/24", "10.0.2.1")
	p := Compute(&self, []model.Node{far}, Options{IPv4: true, Native: true, DirectRoutes: true, Reachable: func(netip.Addr) bool { return false }})
	if len(p.Routes) != 0 || len(p.Warnings) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestNodeIdentity(t *testing.T) {
	self := node("n1", "192.0.2.1", "10.0.1.0/24", "10.0.1.1")
	other := node("n2", "192.0.2.2", "10.0.2.0/24", "10.0.2.1")
	p := Compute(&self, []model.Node{other}, Options{IPv4: true, Identity: func(*model.Node) model.IdentityID { return model.IdentityScopeRemote }})
	for _, r := range p.Rows {
		if (r.Prefix.Addr() == other.Addrs[0] || r.Prefix == single(other.Routers[0])) && r.Identity != model.IdentityScopeRemote {
			t.Errorf("%+v", r)
		}
	}
}
