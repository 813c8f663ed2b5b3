package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

func (e *env) bpfPolicyList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the compiled policy sets: by peer class and direction, what is allowed", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rs, err := e.policyRows(cmd, nil)
		if err != nil {
			return err
		}
		return o.rows(rs, "No policy set is in the kernel: no workload is attached to this node.")
	}
	return cmd
}

func (e *env) bpfPolicyGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ENDPOINT | --all", Short: "Show the compiled policy of an endpoint", Args: need(0, 1, "one endpoint"), ValidArgsFunction: e.completeEndpoint}
	all := cmd.Flags().Bool("all", false, "of every endpoint")
	cmd.Flags().BoolP("numeric", "n", false, "accepted for compatibility; classes are numbers anyway")
	must(cmd.Flags().MarkHidden("numeric"))
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *all == (len(args) > 0) {
			return &usageError{what: "bpf policy get needs an endpoint, or --all", hint: "hypha bpf policy get ID   (hypha endpoint list shows the IDs)"}
		}
		var keep func(row) bool
		if !*all {
			ep, err := e.endpointID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if ep.GetPolicySet() == 0 {
				return fmt.Errorf("endpoint %d has no policy set yet: it is %s", ep.GetId(), ep.GetState())
			}
			set := number(ep.GetPolicySet())
			keep = func(r row) bool { return r.get("SET") == set }
		}
		rs, err := e.policyRows(cmd, keep)
		if err != nil {
			return err
		}
		return o.rows(rs, "The kernel has no policy for this endpoint: all its traffic is dropped until the agent writes one.")
	}
	return cmd
}

// policyRows reads the lists and, where one was too long for its row, the entries of the overflow table.
func (e *env) policyRows(cmd *cobra.Command, keep func(row) bool) (*rows, error) {
	rs, err := e.dump(cmd.Context(), "policy_v1", 0, keep)
	if err != nil {
		return nil, err
	}
	long, err := e.dump(cmd.Context(), "policy_overflow_v1", 0, keep)
	if err != nil {
		return nil, err
	}
	rs.join(long)
	rs.sort()
	rs.change("ENTRIES", portNames)
	rs.change("ENTRY", portNames)
	protocolNames(rs)
	return rs, nil
}

var protoPorts = regexp.MustCompile(`\b(\d+):(\d+(?:-\d+)?)\b`)

// portNames writes the "6:80" of compiled entries as a policy would: 80/TCP, 0/TCP for every port, 8/ICMP for a type.
func portNames(entries string) string {
	return protoPorts.ReplaceAllStringFunc(entries, func(s string) string {
		proto, ports, _ := strings.Cut(s, ":")
		if ports == "0-65535" {
			ports = "0"
		}
		return ports + "/" + protocol(proto)
	})
}
