package cli

import (
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) node() *cobra.Command {
	c := group("node", "Nodes of the cluster", e.nodeList())
	c.Aliases = []string{"nodes"}
	return c
}

func (e *env) nodeList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the nodes this agent knows", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := c.ListNodes(cmd.Context(), req(&agentv1.ListNodesRequest{}))
		if err != nil {
			return err
		}
		nodes := resp.Msg.GetNodes()
		head := []string{"Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Router", "Flows"}
		return o.list(out.List(nodes), "No node is known, not even this one: the agent has not joined its cluster yet.", head, func(t *out.Table) {
			for _, n := range nodes {
				name := n.GetName()
				if c := n.GetCluster(); c != "" && c != "default" {
					name = c + "/" + name
				}
				if n.GetLocal() {
					name += " (local)"
				}
				a4, a6 := byVersion(n.GetAddresses())
				p4, p6 := byVersion(n.GetPodCidrs())
				t.Row(name, a4, p4, a6, p6, strings.Join(n.GetRouters(), ", "), n.GetFlowAddress())
			}
		})
	}
	return cmd
}

// byVersion parts addresses or prefixes by their IP version.
func byVersion(ss []string) (v4, v6 string) {
	var four, six []string
	for _, s := range ss {
		a, _, _ := strings.Cut(s, "/")
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() {
			four = append(four, s)
		} else {
			six = append(six, s)
		}
	}
	return strings.Join(four, ", "), strings.Join(six, ", ")
}
