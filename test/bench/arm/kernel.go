package arm

import (
	"context"

	"github.com/hypha-net/hypha/internal/netns"
)

// Addresses of the topology cli - node - srv. Two backends are the same server.
const (
	cliAddr  = "10.201.1.2"
	cliGate  = "10.201.1.1"
	srvAddr  = "10.201.2.2"
	srvAddr2 = "10.201.2.3"
	srvGate  = "10.201.2.1"
)

// Kernel are the arms that only the kernel's own forwarding is in.
func Kernel() []Arm {
	return []Arm{
		&loopback{label: label{"A0", "loopback, one namespace"}},
		&direct{label: label{"A1", "one veth pair between the two namespaces: the limit for two namespaces"}},
		&routed{label: label{"A2", "plain kernel routing through the node, conntrack loaded"}},
		&bridged{label: label{"A3", "bridge in the node"}},
	}
}

type loopback struct {
	label
	lan
}

func (a *loopback) Setup(context.Context) (Ends, error) {
	n := a.space("a0")
	return a.ends(n, n, "127.0.0.1")
}

type direct struct {
	label
	lan
}

func (a *direct) Setup(context.Context) (Ends, error) {
	cli, srv := a.space("a1-cli"), a.space("a1-srv")
	a.veth(cli, "eth0", srv, "eth0")
	a.addr(cli, "eth0", "10.201.1.2/24")
	a.addr(srv, "eth0", "10.201.1.3/24")
	return a.ends(cli, srv, "10.201.1.3")
}

// threeSpaces makes cli - node - srv with routes and forwarding.
func (l *lan) threeSpaces(name string) (cli, node, srv *netns.NS) {
	cli, node, srv = l.space(name+"-cli"), l.space(name+"-node"), l.space(name+"-srv")
	l.veth(node, "cli", cli, "eth0")
	l.veth(node, "srv", srv, "eth0")
	l.addr(cli, "eth0", cliAddr+"/24")
	l.addr(node, "cli", cliGate+"/24")
	l.addr(node, "srv", srvGate+"/24")
	l.addr(srv, "eth0", srvAddr+"/24", srvAddr2+"/24")
	l.route(cli, "default", cliGate)
	l.route(srv, "default", srvGate)
	l.sysctl(node, "net.ipv4.ip_forward", "1")
	return cli, node, srv
}

// conntrack loads connection tracking: one rule that asks for the state of what is forwarded.
func (l *lan) conntrack(node *netns.NS) {
	l.feed(node, `
table inet bench {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ct state invalid drop
	}
}
`, "nft", "-f", "-")
}

type routed struct {
	label
	lan
}

func (a *routed) Setup(context.Context) (Ends, error) {
	cli, node, srv := a.threeSpaces("a2")
	a.conntrack(node)
	return a.ends(cli, srv, srvAddr)
}

type bridged struct {
	label
	lan
}

func (a *bridged) Setup(context.Context) (Ends, error) {
	cli, node, srv := a.space("a3-cli"), a.space("a3-node"), a.space("a3-srv")
	a.veth(node, "cli", cli, "eth0")
	a.veth(node, "srv", srv, "eth0")
	a.addr(cli, "eth0", "10.201.1.2/24")
	a.addr(srv, "eth0", "10.201.1.3/24")
	a.do(func() error { return node.Bridge("br0", "cli", "srv") })
	return a.ends(cli, srv, "10.201.1.3")
}
