package cli

import (
	"net/netip"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/model"
)

func (e *env) ip() *cobra.Command {
	return group("ip", "Addresses and whose they are, as the agent knows them", e.ipList(), e.ipGet())
}

func (e *env) ipList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [CIDR]", Aliases: []string{"ls"}, Short: "List the known addresses and prefixes", Args: need(0, 1, "")}
	numeric := cmd.Flags().BoolP("numeric", "n", false, "identities as numbers, reserved ones too")
	verbose := cmd.Flags().BoolP("verbose", "v", false, "labels instead of the identity alone")
	identity := cmd.Flags().String("identity", "", "only addresses of this identity")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &agentv1.ListIPsRequest{}
		if len(args) > 0 {
			if err := addressOrPrefix(args[0]); err != nil {
				return err
			}
			r.Cidr = args[0]
		}
		if *identity != "" {
			id, err := identityID(*identity)
			if err != nil {
				return err
			}
			r.Identity = uint32(id)
		}
		return e.listIPs(cmd, o, r, *numeric, *verbose)
	}
	return cmd
}

func (e *env) ipGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ADDRESS|CIDR", Short: "Say whose an address is", Args: need(0, 1, "one address")}
	labels := cmd.Flags().StringSliceP("labels", "l", nil, "the addresses whose identity carries these labels")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &agentv1.ListIPsRequest{Labels: *labels}
		switch {
		case len(args) == 0 && len(*labels) == 0:
			return &usageError{what: "ip get needs an address", hint: "hypha ip get 10.0.0.1"}
		case len(args) > 0:
			if err := addressOrPrefix(args[0]); err != nil {
				return err
			}
			_, err := netip.ParseAddr(args[0])
			r.Cidr, r.Longest = args[0], err == nil
		}
		return e.listIPs(cmd, o, r, false, true)
	}
	return cmd
}

func addressOrPrefix(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	return usagef("%q is no address or prefix: want for example 10.0.0.1, 10.0.0.0/24 or fd00::/64", s)
}

func (e *env) listIPs(cmd *cobra.Command, o *output, r *agentv1.ListIPsRequest, numeric, verbose bool) error {
	c, err := e.reader()
	if err != nil {
		return err
	}
	resp, err := c.ListIPs(cmd.Context(), req(r))
	if err != nil {
		return notFound(err, "row for "+or(r.GetCidr(), "this"), "hypha ip list")
	}
	ips := resp.Msg.GetEntries()
	return o.list(out.List(ips), "No known address fits.", []string{"IP", "IDENTITY", "SOURCE", "HOST", "NAME"}, func(t *out.Table) {
		for _, i := range ips {
			var id any = model.IdentityID(i.GetIdentity()).String()
			switch {
			case numeric:
				id = number(i.GetIdentity())
			case verbose && len(i.GetLabels()) > 0:
				id = append([]string{number(i.GetIdentity())}, i.GetLabels()...)
			}
			t.Row(i.GetPrefix(), id, i.GetSource(), i.GetHostIp(), join("/", i.GetNamespace(), i.GetName()))
		}
	})
}
