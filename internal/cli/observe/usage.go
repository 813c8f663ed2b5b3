package observe

import (
	"fmt"

	"github.com/spf13/cobra"
)

// UsageError is a mistake in the command line, an environment variable or the configuration file.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitCode is 2, as shells have it.
func (e *UsageError) ExitCode() int { return 2 }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// leaf makes a command that runs. Everything the user could have got wrong is checked where cobra checks arguments:
// before anything runs, and so that whoever runs the tree can tell such mistakes from failures.
func (e *env) leaf(c *cobra.Command, check func(*cobra.Command) error, run func(*cobra.Command, []string) error) *cobra.Command {
	args := c.Args
	if args == nil {
		args = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, a []string) error {
		if err := args(c, a); err != nil {
			return &UsageError{err}
		}
		if err := e.overlay(c); err != nil {
			return err
		}
		if check == nil {
			return nil
		}
		return check(c)
	}
	c.RunE = run
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &UsageError{err} })
	return c
}
