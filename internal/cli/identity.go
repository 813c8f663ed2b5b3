package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/model"
)

func (e *env) identity() *cobra.Command {
	c := group("identity", "Security identities: numbers for sets of labels", e.identityList(), e.identityGet())
	c.Aliases = []string{"id", "identities"}
	return c
}

func (e *env) identityList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [LABELS]", Aliases: []string{"ls"}, Short: "List identities, all or those that carry the labels",
		Args: need(0, -1, "")}
	var r agentv1.ListIdentitiesRequest
	cmd.Flags().BoolVar(&r.EndpointsOnly, "endpoints", false, "only those of this node's endpoints")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Labels = split(args)
		return e.listIdentities(cmd, o, &r, "No identity fits.")
	}
	return cmd
}

// split reads labels given as arguments or separated by commas.
func split(args []string) []string {
	var ls []string
	for _, a := range args {
		for l := range strings.SplitSeq(a, ",") {
			if l = strings.TrimSpace(l); l != "" {
				ls = append(ls, l)
			}
		}
	}
	return ls
}

func (e *env) listIdentities(cmd *cobra.Command, o *output, r *agentv1.ListIdentitiesRequest, none string) error {
	c, err := e.reader()
	if err != nil {
		return err
	}
	resp, err := c.ListIdentities(cmd.Context(), req(r))
	if err != nil {
		return err
	}
	ids := resp.Msg.GetIdentities()
	return o.list(out.List(ids), none, []string{"ID", "LABELS", "CLASS", "USED BY"}, func(t *out.Table) {
		for _, i := range ids {
			t.Row(number(i.GetId()), i.GetLabels(), dash(number(i.GetClass())), number(i.GetReferences()))
		}
	})
}

// dash stands for the number 0 where it means "none".
func dash(n string) string {
	if n == "0" || n == "" {
		return "-"
	}
	return n
}

func (e *env) identityGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ID|NAME", Short: "Show an identity, by its number, its reserved name, or its labels", Args: need(0, 1, "one identity")}
	var labels []string
	cmd.Flags().StringSliceVar(&labels, "label", nil, "the identities that carry these labels")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &agentv1.ListIdentitiesRequest{Labels: labels}
		switch {
		case len(args) == 0 && len(labels) == 0:
			return &usageError{what: "identity get needs an identity", hint: "hypha identity get ID   (hypha identity list shows the IDs)"}
		case len(args) > 0 && len(labels) > 0:
			return usagef("name an identity or labels, not both")
		case len(args) > 0:
			id, err := identityID(args[0])
			if err != nil {
				return err
			}
			r.Id = uint32(id)
		}
		c, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := c.ListIdentities(cmd.Context(), req(r))
		if err != nil {
			return notFound(err, "identity "+strings.Join(args, ""), "hypha identity list")
		}
		if len(resp.Msg.GetIdentities()) == 0 {
			if len(args) > 0 {
				return fmt.Errorf("there is no identity %s: `hypha identity list` shows what there is", args[0])
			}
			return fmt.Errorf("no identity carries the labels %s: `hypha identity list` shows what there is", strings.Join(labels, ","))
		}
		ids := resp.Msg.GetIdentities()
		return o.list(out.List(ids), "", []string{"ID", "LABELS", "CLASS", "USED BY"}, func(t *out.Table) {
			for _, i := range ids {
				t.Row(number(i.GetId()), i.GetLabels(), dash(number(i.GetClass())), number(i.GetReferences()))
			}
		})
	}
	return cmd
}

// identityID reads a number or a reserved name ("host", "reserved:host").
func identityID(s string) (model.IdentityID, error) {
	if id, ok := model.ReservedID(strings.TrimPrefix(s, "reserved:")); ok && id != model.IdentityUnknown {
		return id, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("%q is no identity: want a number from 1 or a reserved name such as host or world", s)
	}
	return model.IdentityID(n), nil
}
