package cli

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) bpf() *cobra.Command {
	return group("bpf", "What the datapath holds in the kernel",
		group("ct", "Connection table", e.ctList(), e.flush("ct_v1", "connection")),
		group("nat", "Masqueraded connections", e.table("nat_v2", "No connection is masqueraded now.", protocolNames), e.flush("nat_v2", "translation")),
		e.bpfLB(),
		group("ipcache", "Addresses and their identities", e.ipcacheList(), e.ipcacheGet(), e.ipcacheMatch()),
		group("policy", "Compiled policy", e.bpfPolicyList(), e.bpfPolicyGet()),
		group("class", "Peer classes of identities", e.table("class_v1", "No identity has a class."),
			rename(e.table("class_at_v1", "Nobody has a class by where he lives: no block of a policy is around a workload or node."), "areas",
				"List the classes of identities where they live, by area")),
		group("area", "Areas of addresses: the blocks of policies (ipBlock, networks)", e.table("area_v1", "No policy in use has a block of addresses.")),
		group("endpoint", "Endpoints of this node", e.table("endpoints_v1", "No workload is attached to this node.")),
		group("metrics", "Counters of packets forwarded and dropped", e.table("metrics_v1", "No packet was seen yet.", reasonNames)),
		group("frag", "Datagrams in fragments", e.table("frag_v1", "No datagram in fragments is on record.", protocolNames)),
		group("device", "Devices to the outside", e.table("devices_v1", "No outside device is configured.")),
		group("config", "State of the datapath that changes at run time", e.table("state_v1", "The datapath has no state yet.")),
	)
}

// rename gives a command another name.
func rename(cmd *cobra.Command, name, short string) *cobra.Command {
	cmd.Use, cmd.Aliases, cmd.Short = name, nil, short
	return cmd
}

// table lists one map; adapt may put words in place of numbers.
func (e *env) table(name, none string, adapt ...func(*rows)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the rows", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rs, err := e.dump(cmd.Context(), name, 0, nil)
		if err != nil {
			return err
		}
		rs.sort()
		for _, a := range adapt {
			a(rs)
		}
		return o.rows(rs, none)
	}
	return cmd
}

func protocolNames(rs *rows) { rs.change("PROTOCOL", protocol) }
func reasonNames(rs *rows)   { rs.change("REASON", dropReason) }

func (e *env) flush(name, what string) *cobra.Command {
	cmd := &cobra.Command{Use: "flush [global]", Short: "Forget all " + what + "s; live ones are judged again at their next packet", Args: need(0, 1, "")}
	if name == "nat_v2" {
		cmd.Short = "Forget all " + what + "s; live masqueraded connections break"
	}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := global(args); err != nil {
			return err
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.FlushMap(cmd.Context(), req(&agentv1.FlushMapRequest{Name: name}))
		if err != nil {
			return err
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			_, err := fmt.Fprintf(e.Stdout, "Deleted: %s\n", count(resp.Msg.GetDeleted(), what))
			return err
		})
	}
	return cmd
}

// global accepts the word that upstream wants here; all workloads share one table.
func global(args []string) error {
	if len(args) > 0 && args[0] != "global" {
		return usagef("%q: all workloads share one table, so the only word here is global", args[0])
	}
	return nil
}

func (e *env) ctList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [global|ENDPOINT]", Aliases: []string{"ls"}, Short: "List connections, all or those of an endpoint", Args: need(0, 1, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var keep func(row) bool
		if len(args) > 0 && args[0] != "global" {
			ep, err := e.endpointID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			keep = func(r row) bool { return isEnd(r.get("SOURCE"), ep) || isEnd(r.get("DESTINATION"), ep) }
		}
		rs, err := e.dump(cmd.Context(), "ct_v1", 0, keep)
		if err != nil {
			return err
		}
		rs.sort()
		protocolNames(rs)
		return o.rows(rs, "No connection is on record.")
	}
	return cmd
}

// isEnd says whether "address:port" is the endpoint's.
func isEnd(s string, ep *agentv1.Endpoint) bool {
	a := s
	if ap, err := netip.ParseAddrPort(s); err == nil {
		a = ap.Addr().String()
	}
	return a != "" && (a == ep.GetIpv4() || a == ep.GetIpv6())
}

// protocol names an IP protocol number.
func protocol(n string) string {
	if name, ok := map[string]string{"1": "ICMP", "6": "TCP", "17": "UDP", "58": "ICMPv6", "132": "SCTP"}[n]; ok {
		return name
	}
	return n
}

// dropReason names a reason number: "Forwarded", "Policy denied".
func dropReason(n string) string {
	code, err := strconv.ParseInt(n, 10, 32)
	if err != nil {
		return n
	}
	if code == 0 {
		return "Forwarded"
	}
	name, ok := flowpb.DropReason_name[int32(code)]
	if !ok {
		return n
	}
	s := strings.ToLower(strings.ReplaceAll(name, "_", " "))
	return strings.ToUpper(s[:1]) + s[1:]
}
