package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) mapCmd() *cobra.Command {
	c := group("map", "The datapath's kernel maps", e.mapList(), e.mapGet())
	c.Aliases = []string{"maps"}
	return c
}

func (e *env) maps(cmd *cobra.Command) ([]*agentv1.MapStatus, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.ListMaps(cmd.Context(), req(&agentv1.ListMapsRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetMaps(), nil
}

func (e *env) mapList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the maps, how full they are and what went wrong writing them", Args: need(0, 0, "")}
	verbose := cmd.Flags().BoolP("verbose", "v", false, "add sizes and where they are pinned")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ms, err := e.maps(cmd)
		if err != nil {
			return err
		}
		return o.write(out.List(ms), func() error {
			if len(ms) == 0 {
				e.say("The agent has no maps open: its datapath is not loaded.")
				return nil
			}
			t := e.mapTable(ms)
			if *verbose {
				t = out.NewTable(e.color, "NAME", "KEY", "VALUE", "PINNED AT")
				for _, m := range ms {
					t.Row(m.GetName(), fmt.Sprintf("%d B", m.GetKeySize()), fmt.Sprintf("%d B", m.GetValueSize()), m.GetPin())
				}
			}
			_, err := t.WriteTo(e.Stdout)
			return err
		})
	}
	return cmd
}

func (e *env) mapTable(ms []*agentv1.MapStatus) *out.Table {
	t := out.NewTable(e.color, "NAME", "TYPE", "ENTRIES", "MAX", "FULL", "ERRORS", "LAST ERROR")
	for _, m := range ms {
		full, style := "", out.Plain
		if m.GetMaxEntries() > 0 && !strings.Contains(strings.ToLower(m.GetType()), "array") { // arrays are always full
			p := uint64(m.GetEntries()) * 100 / uint64(m.GetMaxEntries())
			full = fmt.Sprintf("%d%%", p)
			if p >= 90 {
				style = out.Yellow
			}
		}
		errs := out.Styled{Text: number(m.GetErrors())}
		if m.GetErrors() > 0 {
			errs.Style = out.Red
		}
		t.Row(m.GetName(), m.GetType(), number(m.GetEntries()), number(m.GetMaxEntries()), out.Styled{Text: full, Style: style}, errs, m.GetLastError())
	}
	return t
}

func (e *env) mapGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get NAME", Short: "Show the rows of a map", Args: need(1, 1, "a map: hypha map get NAME   (hypha map list shows the names)")}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var ns []string
		if ms, err := e.maps(cmd); err == nil && len(args) == 0 {
			for _, m := range ms {
				ns = append(ns, m.GetName())
			}
		}
		return ns, cobra.ShellCompDirectiveNoFileComp
	}
	limit := cmd.Flags().Int("limit", 0, "show at most so many rows; 0 = all")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rs, err := e.dump(cmd.Context(), args[0], *limit, nil)
		if err != nil {
			return err
		}
		return o.rows(rs, "The map "+args[0]+" is empty.")
	}
	return cmd
}
