package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/doctor"
	"github.com/hypha-net/hypha/internal/paths"
)

func (e *env) doctor() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "Say what this machine and its kernel have and lack, without an agent", Args: need(0, 0, ""),
		Long: "Say what this machine and its kernel have and lack, without an agent. As root it can ask more. Exit code 1 when\nsomething is missing that the agent cannot do without."}
	o := e.output(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		r := doctor.Examine(e.Probe, or(e.stateDir, paths.StateDir))
		err := o.write(r, func() error { return e.printDoctor(r) })
		if err == nil && !r.OK {
			return silent{ExitFailed}
		}
		return err
	}
	return cmd
}

func (e *env) printDoctor(r doctor.Report) error {
	t := out.NewTable(e.color)
	for _, c := range r.Checks {
		word := out.Styled{Text: "ok", Style: out.Green}
		switch {
		case c.OK:
		case c.Required:
			word = out.Styled{Text: "missing", Style: out.Red}
		default:
			word = out.Styled{Text: "without", Style: out.Yellow}
		}
		text := strings.Split(strings.TrimRight(c.Detail, "\n"), "\n")
		if c.Remedy != "" && !c.OK {
			text = append(text, "to mend: "+c.Remedy)
		}
		t.Row(word, c.Name, text)
	}
	if _, err := t.WriteTo(e.Stdout); err != nil {
		return err
	}
	end := e.color.Paint(out.Green, "Hypha can run here.")
	switch {
	case !r.OK:
		end = e.color.Paint(out.Red, "Hypha cannot run here:") + " something marked missing is needed."
	case !r.Root:
		end = "Nothing is missing, as far as can be seen without root. Run it as root to ask the kernel itself."
	}
	_, err := fmt.Fprintf(e.Stdout, "\n%s\n", end)
	return err
}
