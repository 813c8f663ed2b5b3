package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) config() *cobra.Command {
	cmd := group("config", "Show or change the agent's options", e.configView(), e.configGet(), e.configSet(), e.configDelete())
	cmd.Use, cmd.Annotations = "config [OPTION=VALUE...]", nil
	cmd.Long = "Show or change the agent's options. Without a command: show them all, or with OPTION=VALUE change some.\n\n" +
		"Options have their names of flags (policy-audit-mode) or of the field (PolicyAuditMode, PolicyEnforcement, Debug).\n\n" +
		"On a machine without an agent but with a kubeconfig, and with --kubeconfig or --context, they are those in the cluster's\n" +
		"ConfigMap: a change starts all agents anew."
	e.clusterFlags(cmd)
	view := e.configView()
	cmd.Flags().AddFlagSet(view.Flags())
	cmd.PreRunE = view.PreRunE
	cmd.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return view.RunE(c, nil)
		case strings.Contains(args[0], "="):
			return e.setConfig(c, args)
		}
		return unknownCommand(c, args[0])
	}
	return cmd
}

// fieldNames are the names that the field has for options of the agent.
var fieldNames = map[string]string{"policyenforcement": "enable-policy", "enforcement": "enable-policy"}

// option reduces the spellings of an option's name to one: "PolicyAuditMode", "policy-audit-mode", "policy_audit_mode".
func option(s string) string {
	s = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
	if n, ok := fieldNames[s]; ok {
		return strings.ReplaceAll(n, "-", "")
	}
	return s
}

func (e *env) options(cmd *cobra.Command) ([]*agentv1.ConfigOption, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.GetConfig(cmd.Context(), req(&agentv1.GetConfigRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetOptions(), nil
}

func (e *env) configView() *cobra.Command {
	cmd := &cobra.Command{Use: "view", Aliases: []string{"list", "ls"}, Short: "Show the options in force and where each comes from", Args: need(0, 0, "")}
	changed := cmd.Flags().Bool("changed", false, "only those that differ from their default")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch c, err := e.ofCluster(cmd); {
		case err != nil:
			return err
		case c != nil:
			return e.viewClusterConfig(cmd.Context(), c, o)
		}
		all, err := e.options(cmd)
		if err != nil {
			return err
		}
		opts := make([]*agentv1.ConfigOption, 0, len(all))
		for _, c := range all {
			if !*changed || c.GetValue() != c.GetDefault() {
				opts = append(opts, c)
			}
		}
		return o.list(out.List(opts), "Every option has its default.", []string{"OPTION", "VALUE", "DEFAULT", "FROM", "CHANGEABLE"}, func(t *out.Table) {
			for _, c := range opts {
				t.Row(c.GetName(), c.GetValue(), c.GetDefault(), c.GetSource(), map[bool]string{true: "yes"}[c.GetChangeable()])
			}
		})
	}
	return cmd
}

func (e *env) configGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get OPTION", Short: "Show the value of an option", Args: need(1, 1, "an option: hypha config get OPTION"),
		ValidArgsFunction: e.completeOption}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch c, err := e.ofCluster(cmd); {
		case err != nil:
			return err
		case c != nil:
			return e.getClusterConfig(cmd.Context(), c, args[0], o)
		}
		all, err := e.options(cmd)
		if err != nil {
			return err
		}
		c, err := pickOption(all, args[0])
		if err != nil {
			return err
		}
		return o.write(out.Proto{M: c}, func() error {
			_, err := fmt.Fprintln(e.Stdout, lines(c.GetValue()))
			return err
		})
	}
	return cmd
}

func (e *env) completeOption(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if all, err := e.options(cmd); err == nil && len(args) == 0 {
		return optionNames(all), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func optionNames(all []*agentv1.ConfigOption) []string {
	ns := make([]string, len(all))
	for i, c := range all {
		ns[i] = c.GetName()
	}
	return ns
}

func pickOption(all []*agentv1.ConfigOption, name string) (*agentv1.ConfigOption, error) {
	for _, c := range all {
		if option(c.GetName()) == option(name) {
			return c, nil
		}
	}
	if near := nearest(name, optionNames(all)); near != "" {
		return nil, usagef("the agent has no option %q; did you mean %s?", name, near)
	}
	return nil, usagef("the agent has no option %q: `hypha config view` shows what there is", name)
}

func (e *env) configSet() *cobra.Command {
	return &cobra.Command{Use: "set OPTION=VALUE...", Short: "Change options while the agent runs",
		Long: "Change options while the agent runs. A restart forgets it; for good, put it into the agent's configuration file.",
		Args: need(1, -1, "what to set: hypha config set OPTION=VALUE"), RunE: e.setConfig, ValidArgsFunction: e.completeOption}
}

func (e *env) setConfig(cmd *cobra.Command, args []string) error {
	if len(args) == 2 && !strings.Contains(args[0], "=") { // "set OPTION VALUE"
		args = []string{args[0] + "=" + args[1]}
	}
	for _, a := range args {
		if name, _, ok := strings.Cut(a, "="); !ok || name == "" {
			return &usageError{what: fmt.Sprintf("%q is no OPTION=VALUE", a), hint: "hypha config set OPTION=VALUE"}
		}
	}
	switch c, err := e.ofCluster(cmd); {
	case err != nil:
		return err
	case c != nil:
		return e.setClusterConfig(cmd.Context(), c, args)
	}
	all, err := e.options(cmd)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		c, err := pickOption(all, name)
		if err != nil {
			return err
		}
		if !c.GetChangeable() {
			return fmt.Errorf("%s cannot change while the agent runs: set it in the agent's configuration and restart it", c.GetName())
		}
		if c.GetDefault() == "true" || c.GetDefault() == "false" {
			on, ok := boolean(value)
			if !ok {
				return usagef("%s is Enabled or Disabled, not %q", name, value)
			}
			value = fmt.Sprint(on)
		}
		want[c.GetName()] = value
	}
	a, err := e.admin()
	if err != nil {
		return err
	}
	resp, err := a.UpdateConfig(cmd.Context(), req(&agentv1.UpdateConfigRequest{Options: want}))
	if err != nil {
		return refused(err)
	}
	if len(resp.Msg.GetChanged()) == 0 {
		e.say("Nothing changed: it was so already.")
		return nil
	}
	t := out.NewTable(e.color)
	for _, c := range resp.Msg.GetChanged() {
		t.Row(c.GetName(), c.GetValue())
	}
	_, err = t.WriteTo(e.Stdout)
	return err
}
