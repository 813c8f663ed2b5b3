package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) endpointLabels() *cobra.Command {
	cmd := &cobra.Command{Use: "labels ENDPOINT", Short: "Show or change the labels of an endpoint, and with them its identity",
		Long: "Show or change the labels of an endpoint, and with them its identity.\n\n" + selectorHelp,
		Args: need(1, 1, "an endpoint: hypha endpoint labels ID [--add LABEL] [--delete LABEL]"), ValidArgsFunction: e.completeEndpoint}
	var add, del []string
	cmd.Flags().StringSliceVarP(&add, "add", "a", nil, "labels to add, [source:]key[=value]")
	cmd.Flags().StringSliceVarP(&del, "delete", "d", nil, "labels to take away")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ep, err := e.endpointID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(add)+len(del) > 0 {
			a, err := e.admin()
			if err != nil {
				return err
			}
			resp, err := a.UpdateEndpoint(cmd.Context(), req(&agentv1.UpdateEndpointRequest{Id: ep.GetId(), AddLabels: add, DeleteLabels: del}))
			if err != nil {
				return refused(err)
			}
			ep = resp.Msg.GetEndpoint()
		}
		v := out.Object{{Key: "id", Value: ep.GetId()}, {Key: "identity", Value: ep.GetIdentity()}, {Key: "labels", Value: texts(ep.GetLabels())}}
		return o.write(v, func() error {
			t := out.NewTable(e.color)
			t.Row("Identity:", number(ep.GetIdentity()))
			t.Row("Labels:", ep.GetLabels())
			_, err := t.WriteTo(e.Stdout)
			return err
		})
	}
	return cmd
}

// texts makes a missing list an empty one.
func texts(ss []string) []string {
	if ss == nil {
		return []string{}
	}
	return ss
}

const auditOption = "PolicyAuditMode"

func (e *env) endpointConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config ENDPOINT [" + auditOption + "=Enabled|Disabled]", Short: "Show or change the options of an endpoint",
		Long: "Show or change the options of an endpoint. " + auditOption + ": what policy denies passes, reported as AUDIT.\n\n" + selectorHelp,
		Args: need(1, -1, "an endpoint: hypha endpoint config ID [OPTION=VALUE]"), ValidArgsFunction: e.completeEndpoint}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var audit *bool
		for _, a := range args[1:] {
			name, value, ok := strings.Cut(a, "=")
			if !ok {
				return usagef("%q is no option: want %s=Enabled or %s=Disabled", a, auditOption, auditOption)
			}
			if option(name) != option(auditOption) {
				return usagef("an endpoint has no option %q: it has %s", name, auditOption)
			}
			on, ok := boolean(value)
			if !ok {
				return usagef("%s is Enabled or Disabled, not %q", auditOption, value)
			}
			audit = &on
		}
		ep, err := e.endpointID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if audit != nil {
			a, err := e.admin()
			if err != nil {
				return err
			}
			resp, err := a.UpdateEndpoint(cmd.Context(), req(&agentv1.UpdateEndpointRequest{Id: ep.GetId(), Audit: audit}))
			if err != nil {
				return err
			}
			ep = resp.Msg.GetEndpoint()
		}
		v := out.Object{{Key: "id", Value: ep.GetId()}, {Key: auditOption, Value: enabled(ep.GetAudit())}}
		return o.write(v, func() error {
			_, err := fmt.Fprintf(e.Stdout, "%s   %s\n", auditOption, enabled(ep.GetAudit()))
			return err
		})
	}
	return cmd
}

func enabled(b bool) string {
	if b {
		return "Enabled"
	}
	return "Disabled"
}

// boolean reads what people write for yes and no.
func boolean(s string) (on, ok bool) {
	switch strings.ToLower(s) {
	case "enabled", "enable", "true", "on", "yes", "1":
		return true, true
	case "disabled", "disable", "false", "off", "no", "0":
		return false, true
	}
	return false, false
}
