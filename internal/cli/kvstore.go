package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/escape"
)

func (e *env) kvstore() *cobra.Command {
	return group("kvstore", "The cluster's key-value store, directly", e.kvGet(), e.kvSet(), e.kvDelete())
}

func (e *env) kvGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get KEY", Short: "Show a key, or with --recursive all that begin with it",
		Example: "  hypha kvstore get --recursive cilium/state/identities/v1/id", Args: need(1, 1, "a key: hypha kvstore get [--recursive] KEY")}
	recursive := cmd.Flags().Bool("recursive", false, "all keys that begin with KEY")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.KVGet(cmd.Context(), req(&agentv1.KVGetRequest{Key: args[0], Prefix: *recursive}))
		if err != nil {
			return notFound(err, "key "+args[0], "hypha kvstore get --recursive cilium")
		}
		pairs := resp.Msg.GetPairs()
		if len(pairs) == 0 {
			if *recursive {
				return fmt.Errorf("no key begins with %s", args[0])
			}
			return fmt.Errorf("there is no key %s: `hypha kvstore get --recursive PREFIX` shows what there is", args[0])
		}
		rows := make([]out.Object, len(pairs))
		for i, p := range pairs {
			rows[i] = out.Object{{Key: "key", Value: p.GetKey()}, kvValue(p.GetValue()), {Key: "revision", Value: p.GetRevision()}}
		}
		return o.write(rows, func() error {
			for _, p := range pairs {
				line := escape.Text(string(p.GetValue()))
				if *recursive {
					line = escape.Text(p.GetKey()) + " => " + line
				}
				if _, err := fmt.Fprintln(e.Stdout, line); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

// kvValue is a value as JSON can hold it: text as it is, anything else as base64 under another name.
func kvValue(v []byte) out.Field {
	if utf8.Valid(v) {
		return out.Field{Key: "value", Value: string(v)}
	}
	return out.Field{Key: "valueBase64", Value: base64.StdEncoding.EncodeToString(v)}
}

func (e *env) kvSet() *cobra.Command {
	cmd := &cobra.Command{Use: "set KEY VALUE", Short: "Write a key; the value - is read from standard input", Args: need(0, 2, "")}
	key := cmd.Flags().String("key", "", "the key, instead of an argument")
	value := cmd.Flags().String("value", "", "the value, instead of an argument")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		k, v, haveValue := *key, *value, cmd.Flags().Changed("value")
		if k == "" && len(args) > 0 {
			k, args = args[0], args[1:]
		}
		if !haveValue && len(args) > 0 {
			v, args, haveValue = args[0], args[1:], true
		}
		switch {
		case len(args) > 0:
			return usagef("kvstore set: one argument too many: %q", args[0])
		case k == "" || !haveValue:
			return &usageError{what: "kvstore set needs a key and a value", hint: "hypha kvstore set KEY VALUE"}
		}
		data := []byte(v)
		if v == "-" {
			var err error
			if data, err = readAll(e.Stdin, 1<<20); err != nil {
				return fmt.Errorf("read the value from standard input: %w", err)
			}
			data = bytes.TrimSuffix(data, []byte("\n"))
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		_, err = a.KVSet(cmd.Context(), req(&agentv1.KVSetRequest{Key: k, Value: data}))
		return err
	}
	return cmd
}

// readAll reads at most limit bytes; more is an error.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	return b, err
}

func (e *env) kvDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete KEY", Aliases: []string{"rm"}, Short: "Delete a key, or with --recursive all that begin with it",
		Args: need(1, 1, "a key: hypha kvstore delete [--recursive] KEY")}
	recursive := cmd.Flags().Bool("recursive", false, "all keys that begin with KEY")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return usagef("kvstore delete needs a key that is not empty")
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.KVDelete(cmd.Context(), req(&agentv1.KVDeleteRequest{Key: args[0], Prefix: *recursive}))
		if err != nil {
			return err
		}
		n := resp.Msg.GetDeleted()
		if n == 0 {
			return fmt.Errorf("there is no key %s, nothing was deleted", args[0])
		}
		_, err = fmt.Fprintf(e.Stdout, "%s deleted\n", count(uint64(n), "key"))
		return err
	}
	return cmd
}
