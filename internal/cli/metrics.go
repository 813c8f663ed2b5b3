package cli

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) metrics() *cobra.Command {
	return group("metrics", "The agent's own metrics", e.metricsList())
}

func (e *env) metricsList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [PATTERN]", Aliases: []string{"ls"}, Short: "List metrics, all or those whose name matches a regular expression",
		Args: need(0, 1, "")}
	pattern := cmd.Flags().StringP("match-pattern", "p", "", "the regular expression, instead of an argument")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := *pattern
		if len(args) > 0 {
			p = args[0]
		}
		if _, err := regexp.Compile(p); err != nil {
			return usagef("%q is no regular expression: %v", p, err)
		}
		r, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := r.ListMetrics(cmd.Context(), req(&agentv1.ListMetricsRequest{Pattern: p}))
		if err != nil {
			return err
		}
		ms := resp.Msg.GetMetrics()
		return o.list(out.List(ms), "No metric fits.", []string{"Metric", "Labels", "Value"}, func(t *out.Table) {
			for _, m := range ms {
				var ls []string
				for _, k := range slices.Sorted(maps.Keys(m.GetLabels())) {
					ls = append(ls, k+`="`+m.GetLabels()[k]+`"`)
				}
				v := strconv.FormatFloat(m.GetValue(), 'f', -1, 64)
				if m.GetCount() > 0 {
					v += " / " + number(m.GetCount())
				}
				t.Row(m.GetName(), strings.Join(ls, " "), v)
			}
		})
	}
	return cmd
}
