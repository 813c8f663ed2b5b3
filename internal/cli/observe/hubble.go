package observe

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/version"
)

// NewHubbleCommand makes the whole tree of `hubble`.
func NewHubbleCommand() *cobra.Command {
	e := newEnv()
	root := e.group("hubble", "See the traffic between workloads, and what policy made of it",
		e.observe(), e.group("list", "List nodes or namespaces", e.listNodes(), e.listNamespaces()), e.status(),
		e.group("watch", "Watch changes", e.watchPeers()),
		e.group("config", "Show and change the settings in the configuration file", e.configGet(), e.configSet(), e.configReset(), e.configView()),
		e.version(), e.completion())
	root.Version = version.String()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &UsageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	e.flags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&e.stateDir, "state-dir", "", "without --server: look for agents below this directory (default: "+paths.StateDir+" and "+paths.DemoDir+")")
	return root
}

// group makes a command that only holds others.
func (e *env) group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		var names []string
		for _, s := range c.Commands() {
			names = append(names, s.Name())
		}
		return usagef("unknown command %q for %q; there are %s", args[0], c.CommandPath(), strings.Join(names, ", "))
	}
	// What is wrong with the words is found where arguments are checked, see leaf.
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return c.RunE(c, args)
	}
	c.AddCommand(subs...)
	return c
}

func (e *env) version() *cobra.Command {
	return e.leaf(&cobra.Command{Use: "version", Short: "Say which version this is"}, nil, func(c *cobra.Command, _ []string) error {
		i := version.Get()
		_, err := fmt.Fprintf(c.OutOrStdout(), "hubble %s compiled with %s on %s\n", cmp.Or(i.String(), "dev"), i.Go, i.Platform)
		return err
	})
}

func (e *env) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	c := &cobra.Command{Use: "completion SHELL", Short: "Print the completion script for a shell: " + strings.Join(shells, ", "),
		ValidArgs: shells, Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)}
	return e.leaf(c, nil, func(c *cobra.Command, args []string) error {
		root, out := c.Root(), c.OutOrStdout()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(out, true)
		case "zsh":
			return root.GenZshCompletion(out)
		case "fish":
			return root.GenFishCompletion(out, true)
		}
		return root.GenPowerShellCompletionWithDesc(out)
	})
}
