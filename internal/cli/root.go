package cli

import (
	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/version"
)

// tree is the command tree for a program name.
func tree(name string, d Deps) *cobra.Command {
	var root *cobra.Command
	switch {
	case name == "hubble" && d.Hubble != nil:
		root = d.Hubble()
	case name == "cilium" || name == "cilium-dbg":
		root = newRoot(name, d)
	default:
		root = newRoot("hypha", d)
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(d.Stdin)
	root.SetOut(d.Stdout)
	root.SetErr(d.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(help(root))
	wrapArgs(root)
	return root
}

func newRoot(name string, d Deps) *cobra.Command {
	e := &env{Deps: d, color: out.WantColor(d.StdoutTTY, d.Getenv)}
	root := group(name, "See and steer Hypha: workloads connected, secured and observed by eBPF")
	root.Long = "See and steer the Hypha agent of this node.\n\nFirst things to type:\n" +
		"  " + name + " status                  is everything well, and if not, what to do\n" +
		"  " + name + " endpoint list           the workloads of this node\n" +
		"  " + name + " policy import FILE      put a policy in force\n" +
		"  " + name + " policy trace A B --port 80   may A reach B, and which rule says so\n" +
		"  " + name + " observe --follow        watch the traffic\n\n" +
		"Exit codes: 0 fine, 1 failed or degraded, 2 usage, 130 interrupted."
	root.Version = version.String()
	e.flags(root)
	root.AddCommand(
		e.status(), e.endpoint(), e.identity(), e.ip(), e.policy(), e.bpf(), e.mapCmd(), e.node(), e.service(), e.prefilter(), e.kvstore(),
		e.monitor(), e.config(), e.metrics(), e.debuginfo(), e.cleanup(), e.completion(), e.version(), e.doctor(), e.setup(), e.connectivity(),
	)
	if d.Commands != nil {
		root.AddCommand(d.Commands()...)
	}
	return root
}

func help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND...]",
		Short: "Show the help of a command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				if c == nil {
					c = root
				}
				return unknownCommand(c, append(rest, args...)[0])
			}
			return c.Help()
		},
	}
}
