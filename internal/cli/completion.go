package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func (e *env) completion() *cobra.Command {
	cmd := &cobra.Command{Use: "completion [bash|zsh|fish|powershell]", Short: "Print the completion script for a shell (default bash)",
		Long: "Print the completion script for a shell (default bash).\n\n" +
			"  source <(hypha completion bash)\n  hypha completion zsh > \"${fpath[1]}/_hypha\"\n  hypha completion fish | source",
		Args: need(0, 1, ""), ValidArgs: shells}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shell := "bash"
		if len(args) > 0 {
			shell = args[0]
		}
		root := cmd.Root()
		switch shell {
		case "bash":
			return root.GenBashCompletionV2(e.Stdout, true)
		case "zsh":
			return root.GenZshCompletion(e.Stdout)
		case "fish":
			return root.GenFishCompletion(e.Stdout, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(e.Stdout)
		}
		err := &usageError{what: fmt.Sprintf("unknown shell %q: want %s", shell, strings.Join(shells, ", "))}
		if near := nearest(shell, shells); near != "" {
			err.hint = cmd.CommandPath() + " " + near
		}
		return err
	}
	return cmd
}
