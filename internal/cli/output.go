package cli

import (
	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
)

// output is the -o flag of a command.
type output struct {
	e   *env
	raw string
}

// output adds -o to a command.
func (e *env) output(cmd *cobra.Command) *output {
	o := &output{e: e}
	cmd.Flags().StringVarP(&o.raw, "output", "o", "", "json | yaml | jsonpath='{...}' (default: a table)")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "jsonpath="}, cobra.ShellCompDirectiveNoFileComp)))
	check := cmd.PreRunE
	cmd.PreRunE = func(c *cobra.Command, args []string) error {
		if _, err := o.format(); err != nil {
			return err
		}
		if check != nil {
			return check(c, args)
		}
		return nil
	}
	return o
}

// must is for errors that only a mistake in this package's own declarations makes.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (o *output) format() (out.Format, error) {
	f, err := out.ParseFormat(o.raw)
	if err != nil {
		return f, &usageError{what: err.Error()}
	}
	return f, nil
}

// table says whether people are to read the result.
func (o *output) table() bool {
	f, err := o.format()
	return err == nil && f.Table()
}

// write writes v in the chosen format, or what people makes of it.
func (o *output) write(v any, people func() error) error {
	f, err := o.format()
	if err != nil {
		return err
	}
	if f.Table() {
		return people()
	}
	return f.Write(o.e.Stdout, v)
}

// list writes a listing: the table that fill makes, or the sentence for an empty one (to standard error, so that a
// script reads nothing).
func (o *output) list(v any, none string, head []string, fill func(*out.Table)) error {
	return o.write(v, func() error {
		t := out.NewTable(o.e.color, head...)
		fill(t)
		if t.Len() == 0 {
			o.e.say("%s", none)
			return nil
		}
		_, err := t.WriteTo(o.e.Stdout)
		return err
	})
}
