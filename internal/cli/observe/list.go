package observe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	observerpb "github.com/hypha-net/hypha/api/observer"
	peerpb "github.com/hypha-net/hypha/api/peer"
	relaypb "github.com/hypha-net/hypha/api/relay"
	"github.com/hypha-net/hypha/internal/escape"
)

var listFormats = []string{"table", "wide", "json"}

func (e *env) listNodes() *cobra.Command {
	out := "table"
	c := &cobra.Command{Use: "nodes", Aliases: []string{"node"}, Short: "List the nodes whose flows can be seen"}
	c.Flags().VarP(&choice{&out, listFormats}, "output", "o", strings.Join(listFormats, " | "))
	return e.leaf(c, nil, func(c *cobra.Command, _ []string) error {
		nodes := map[string]*observerpb.Node{}
		_, err := e.each(c, func(ctx context.Context, s *server) error {
			r, err := s.observer.GetNodes(ctx, connect.NewRequest(&observerpb.GetNodesRequest{}))
			if err != nil {
				return err
			}
			for _, n := range r.Msg.GetNodes() { // each server knows most about itself
				if old := nodes[n.GetName()]; old == nil || old.GetState() != relaypb.NodeState_NODE_CONNECTED {
					nodes[n.GetName()] = n
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		res := &observerpb.GetNodesResponse{}
		for _, n := range nodes {
			res.Nodes = append(res.Nodes, n)
		}
		slices.SortFunc(res.Nodes, func(a, b *observerpb.Node) int { return cmp.Compare(a.GetName(), b.GetName()) })
		if out == "json" {
			return (&printer{out: c.OutOrStdout()}).json(res)
		}
		t := tabwriter.NewWriter(c.OutOrStdout(), 2, 0, 3, ' ', 0)
		head := "NAME\tSTATUS\tAGE\tFLOWS/S\tCURRENT/MAX-FLOWS"
		if out == "wide" {
			head += "\tVERSION\tADDRESS\tTLS"
		}
		fmt.Fprintln(t, head)
		for _, n := range res.Nodes {
			fmt.Fprintln(t, nodeRow(n, out == "wide"))
		}
		return t.Flush()
	})
}

func nodeRow(n *observerpb.Node, wide bool) string {
	state := strings.TrimPrefix(n.GetState().String(), "NODE_")
	cells := []string{escape.Text(n.GetName()), strings.ToUpper(state[:1]) + strings.ToLower(state[1:]), "N/A", "N/A", "N/A"}
	if n.GetState() == relaypb.NodeState_UNKNOWN_NODE_STATE {
		cells[1] = "Unknown"
	}
	if up := n.GetUptimeNs(); up > 0 {
		cells[2] = uptime(n)
		cells[3] = fmt.Sprintf("%.2f", float64(n.GetSeenFlows())/(float64(up)/1e9))
	}
	if m := n.GetMaxFlows(); m > 0 {
		cells[4] = fmt.Sprintf("%s/%s (%6.2f%%)", thousands(n.GetNumFlows()), thousands(m), 100*float64(n.GetNumFlows())/float64(m))
	}
	if wide {
		tls := "Disabled"
		if n.GetTls().GetEnabled() {
			tls = "Enabled"
		}
		cells = append(cells, escape.Text(cmp.Or(n.GetVersion(), "N/A")), escape.Text(cmp.Or(n.GetAddress(), "N/A")), tls)
	}
	return strings.Join(cells, "\t")
}

func (e *env) listNamespaces() *cobra.Command {
	out := "table"
	c := &cobra.Command{Use: "namespaces", Aliases: []string{"namespace", "ns"}, Short: "List the namespaces seen in flows during the last hour"}
	c.Flags().VarP(&choice{&out, []string{"table", "json"}}, "output", "o", "table | json")
	return e.leaf(c, nil, func(c *cobra.Command, _ []string) error {
		type key struct{ cluster, name string }
		seen := map[key]*observerpb.Namespace{}
		_, err := e.each(c, func(ctx context.Context, s *server) error {
			r, err := s.observer.GetNamespaces(ctx, connect.NewRequest(&observerpb.GetNamespacesRequest{}))
			if err != nil {
				return err
			}
			for _, n := range r.Msg.GetNamespaces() {
				seen[key{n.GetCluster(), n.GetNamespace()}] = n
			}
			return nil
		})
		if err != nil {
			return err
		}
		res := &observerpb.GetNamespacesResponse{}
		for _, n := range seen {
			res.Namespaces = append(res.Namespaces, n)
		}
		slices.SortFunc(res.Namespaces, func(a, b *observerpb.Namespace) int {
			return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetCluster(), b.GetCluster()))
		})
		if out == "json" {
			return (&printer{out: c.OutOrStdout()}).json(res)
		}
		t := tabwriter.NewWriter(c.OutOrStdout(), 2, 0, 3, ' ', 0)
		fmt.Fprintln(t, "NAMESPACE\tCLUSTER")
		for _, n := range res.Namespaces {
			fmt.Fprintf(t, "%s\t%s\n", escape.Text(n.GetNamespace()), escape.Text(n.GetCluster()))
		}
		return t.Flush()
	})
}

func (e *env) watchPeers() *cobra.Command {
	c := &cobra.Command{Use: "peers", Aliases: []string{"peer"}, Short: "Watch which nodes serve flows"}
	return e.leaf(c, nil, func(c *cobra.Command, _ []string) error {
		ts, err := e.targets()
		if err != nil {
			return err
		}
		for i, t := range ts { // all of them know the same: the first that answers will do
			s := t.connect(e.timeout)
			defer s.close()
			st, err := s.peer.Notify(c.Context(), connect.NewRequest(&peerpb.NotifyRequest{}))
			if err != nil {
				return t.fail(err)
			}
			got := false
			for st.Receive() {
				got = true
				if err := printPeer(c, st.Msg()); err != nil {
					return err
				}
			}
			err = st.Err()
			_ = st.Close()
			if c.Context().Err() != nil {
				return c.Context().Err()
			}
			if err == nil || got || i == len(ts)-1 {
				if err != nil {
					return t.fail(err)
				}
				return nil
			}
		}
		return nil
	})
}

func printPeer(c *cobra.Command, n *peerpb.ChangeNotification) error {
	tls := ""
	if n.GetTls() != nil {
		tls = fmt.Sprintf(" (TLS.ServerName: %s)", escape.Text(n.GetTls().GetServerName()))
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%-12s %s %s%s\n", n.GetType(), escape.Text(n.GetAddress()), escape.Text(n.GetName()), tls)
	return err
}
