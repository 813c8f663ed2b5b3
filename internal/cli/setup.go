package cli

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cniconf"
)

// setup prepares a node before its agent starts. Images hold no shell, so what a pod's init containers do are commands.
func (e *env) setup() *cobra.Command {
	cmd := group("setup", "Prepare this node for its agent, as the agent's pod does", e.setupCNI())
	if e.MountBPF != nil {
		cmd.AddCommand(&cobra.Command{Use: "bpffs", Short: "Mount the file system of pinned programs and maps, if it is not", Args: need(0, 0, ""),
			RunE: func(*cobra.Command, []string) error { return e.MountBPF() }})
	}
	cmd.Hidden = true
	return cmd
}

func (e *env) setupCNI() *cobra.Command {
	cmd := &cobra.Command{Use: "cni", Short: "Install the CNI plugin's program", Args: need(0, 0, "")}
	program := cmd.Flags().String("program", "", "the program (default: "+cniconf.Plugin+" beside this one)")
	dir := cmd.Flags().String("bin-dir", "/opt/cni/bin", "directory of CNI plugins")
	cmd.RunE = func(*cobra.Command, []string) error {
		from := *program
		if from == "" {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			from = filepath.Join(filepath.Dir(self), cniconf.Plugin)
		}
		return cniconf.Install(from, *dir)
	}
	return cmd
}
