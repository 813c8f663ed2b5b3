package cli

import (
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is a mistake in the command line.
type usageError struct {
	what string
	hint string // what to type instead; "" = the command's usage line
	err  error  // cause, if any
}

func (e *usageError) Error() string { return e.what }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{what: fmt.Sprintf(format, args...)} }

func isUsage(err error) bool {
	var u *usageError
	return errors.As(err, &u)
}

// refused makes a usage error of what the agent says of a malformed argument.
func refused(err error) error {
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		return err
	}
	return &usageError{what: strings.TrimPrefix(message(err), "invalid request: "), err: err}
}

// isGroup marks commands that do nothing but hold others.
const isGroup = "group"

// group makes a command that only holds others: alone it shows its help, with an unknown word it suggests one.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, Annotations: map[string]string{isGroup: "yes"}}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	c.AddCommand(subs...)
	return c
}

func unknownCommand(cmd *cobra.Command, word string) error {
	e := &usageError{what: fmt.Sprintf("unknown command %q for %q", word, cmd.CommandPath())}
	if near := nearest(word, names(cmd)); near != "" {
		e.hint = cmd.CommandPath() + " " + near
	} else {
		e.hint = cmd.CommandPath() + " --help"
	}
	return e
}

func names(cmd *cobra.Command) []string {
	var out []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(append(out, c.Name()), c.Aliases...)
		}
	}
	return out
}

// flagError turns a complaint of the flag parser into a usage error.
func flagError(_ *cobra.Command, err error) error { return &usageError{what: err.Error(), err: err} }

// flagMeant is the flag that was probably meant where err is about one that does not exist, else "".
func flagMeant(cmd *cobra.Command, err error) string {
	var no *pflag.NotExistError
	if !errors.As(err, &no) {
		return ""
	}
	var all []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			all = append(all, f.Name)
		}
	})
	return nearest(no.GetSpecifiedName(), all)
}

// wrapArgs makes the complaints of argument checks usage errors, in the whole tree; commands without any check take no
// arguments.
func wrapArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil && cmd.HasParent() && cmd.Runnable() {
		check = cobra.NoArgs
	}
	if check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			switch {
			case err == nil || isUsage(err):
				return err
			case len(args) > 0 && strings.HasPrefix(err.Error(), "unknown command"):
				if c.HasAvailableSubCommands() {
					return unknownCommand(c, args[0])
				}
				return usagef("%s takes no argument %q", c.CommandPath(), args[0])
			}
			return &usageError{what: err.Error(), err: err}
		}
	}
	for _, c := range cmd.Commands() {
		wrapArgs(c)
	}
}

// need checks the number of arguments and says what is missing.
func need(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s needs %s", cmd.CommandPath(), what)
		case most >= 0 && len(args) > most:
			return usagef("%s: one argument too many: %q", cmd.CommandPath(), args[most])
		}
		return nil
	}
}

// nearest is the word of the list that was probably meant, "" if none is near.
func nearest(word string, list []string) string {
	best, dist := "", len(word)/3+2
	for _, w := range list {
		if len(word) >= 3 && strings.HasPrefix(w, word) {
			return w
		}
		if d := distance(strings.ToLower(word), w); d < dist {
			best, dist = w, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
