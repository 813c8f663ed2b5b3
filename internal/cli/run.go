package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/escape"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1 // or degraded
	ExitUsage       = 2
	ExitInterrupted = 130
)

// Run runs one command line, argv[0] included: its base name chooses the tree. The context ends when the user
// interrupts.
func Run(ctx context.Context, argv []string, d Deps) int {
	name := "hypha"
	if len(argv) > 0 {
		name = strings.TrimSuffix(filepath.Base(argv[0]), ".exe")
		argv = argv[1:]
	}
	root := tree(name, d)
	root.SetArgs(argv)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if ctx.Err() != nil {
		return ExitInterrupted
	}
	if s, ok := errors.AsType[silent](err); ok {
		return s.code
	}
	code := ExitFailed
	var coded interface{ ExitCode() int } // errors of other packages' commands
	switch {
	case isUsage(err):
		code = ExitUsage
	case errors.As(err, &coded):
		code = coded.ExitCode()
	}
	if code == ExitUsage {
		explainUsage(d.Stderr, cmd, err)
	} else {
		fmt.Fprintf(d.Stderr, "Error: %s\n", message(err))
	}
	return code
}

// silent ends a command with a code after it has said everything itself.
type silent struct{ code int }

func (s silent) Error() string { return fmt.Sprintf("exit code %d", s.code) }

// message is one line for people: what the agent said, without the RPC's prefix.
func message(err error) string {
	if no, ok := errors.AsType[*client.NoAgentError](err); ok {
		return no.Error()
	}
	text := err.Error()
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		inner := client.Message(err)
		var down *client.Error
		if errors.As(err, &down); ce.Code() == connect.CodeUnimplemented && (down == nil || strings.HasSuffix(ce.Message(), "is not implemented")) {
			inner = "this agent does not know the call; hypha and hypha-agent are of different versions (compare: hypha version)"
		}
		text = strings.Replace(text, ce.Error(), inner, 1)
		if down != nil {
			text = inner
		}
	}
	return lines(text)
}

// lines escapes a message but keeps its line breaks.
func lines(s string) string {
	ls := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(escape.Texts(ls), "\n")
}

// explainUsage says what was wrong and what to type instead, a line each.
func explainUsage(w io.Writer, cmd *cobra.Command, err error) {
	fmt.Fprintf(w, "Error: %s\n", lines(err.Error()))
	var u *usageError
	meant := flagMeant(cmd, err)
	switch {
	case meant != "":
		fmt.Fprintf(w, "Try:   %s --%s\n", cmd.CommandPath(), meant)
	case errors.As(err, &u) && u.hint != "":
		fmt.Fprintf(w, "Try:   %s\n", lines(u.hint))
	default:
		fmt.Fprintf(w, "Usage: %s   (more: %s --help)\n", useLine(cmd), cmd.CommandPath())
	}
}

func useLine(cmd *cobra.Command) string {
	line := cmd.UseLine()
	if cmd.Annotations[isGroup] != "" {
		line = cmd.CommandPath() + " COMMAND"
	}
	return strings.TrimSuffix(line, " [flags]")
}
