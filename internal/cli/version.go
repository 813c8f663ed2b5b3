package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/version"
)

func (e *env) version() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show the versions of this program and of the agent", Args: need(0, 0, "")}
	clientOnly := cmd.Flags().Bool("client", false, "do not ask the agent")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := version.Get()
		agent, why := "", ""
		if !*clientOnly {
			if st, err := e.getStatus(cmd.Context()); err == nil {
				agent = st.GetVersion()
			} else if isUsage(err) {
				return err
			} else {
				why = message(err)
			}
		}
		obj := out.Object{{Key: "client", Value: v}}
		if !*clientOnly {
			obj = append(obj, out.Field{Key: "agent", Value: out.Object{{Key: "version", Value: agent}, {Key: "error", Value: why}}})
		}
		return o.write(obj, func() error {
			fmt.Fprintf(e.Stdout, "Client: %s %s %s\n", v, v.Go, v.Platform)
			if *clientOnly {
				return nil
			}
			if why != "" {
				agent = "not reached: " + why
			}
			_, err := fmt.Fprintf(e.Stdout, "Agent:  %s\n", lines(agent))
			return err
		})
	}
	return cmd
}
