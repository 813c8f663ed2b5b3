package demo

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
)

// NewCommand is `hypha demo`. Errors may have a method ExitCode() int for the code to end with.
func NewCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Two nodes and their pods on this machine, to try everything with",
		Long: "Make a cluster of two nodes on this machine, as network namespaces: real agents, a shared store, pods attached by\n" +
			"the real CNI plugin, and a policy between them. It does not touch the machine's own network. Needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "", "directory of the demo, for a second one beside the usual (default /var/lib/hypha-demo)")
	with := func(fn func(cmd *cobra.Command, d *Demo, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			d, err := New(Config{Dir: dir, Out: cmd.OutOrStdout()})
			if err != nil {
				return err
			}
			return fn(cmd, d, args)
		}
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "up", Short: "Make the demo, or mend the one that is there", Args: cobra.NoArgs,
			RunE: with(func(cmd *cobra.Command, d *Demo, _ []string) error { return d.Up(cmd.Context()) }),
		},
		&cobra.Command{
			Use: "down", Short: "Remove the demo without a trace", Args: cobra.NoArgs,
			RunE: with(func(cmd *cobra.Command, d *Demo, _ []string) error { return d.Down(cmd.Context()) }),
		},
		statusCommand(with), podsCommand(with), podCommand(with), execCommand(with),
	)
	return cmd
}

// runner wraps a function of the demo that is meant into what cobra runs.
type runner func(func(*cobra.Command, *Demo, []string) error) func(*cobra.Command, []string) error

// errUnwell ends `status` with code 1 when it has said why.
var errUnwell = errors.New("the demo is not well: `hypha demo up` mends it")

func statusCommand(with runner) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "status", Short: "Is the demo well, and if not, what is wrong", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, d *Demo, _ []string) error {
			f, err := parseFormat(format)
			if err != nil {
				return err
			}
			r, err := d.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := r.write(cmd, f); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return errUnwell
			}
			return nil
		}),
	}
	outputFlag(cmd, &format)
	return cmd
}

func (r *Report) write(cmd *cobra.Command, f out.Format) error {
	w := cmd.OutOrStdout()
	if !f.Table() {
		return f.Write(w, r)
	}
	t := out.NewTable(color(cmd), "NODE", "ADDRESSES", "AGENT", "PID", "KNOWS NODES", "PODS", "POLICY REVISION")
	for _, n := range r.Nodes {
		style := out.Red
		switch n.State {
		case "ok":
			style = out.Green
		case "warning":
			style = out.Yellow
		}
		t.Row(n.Name, strings.Join(n.Addresses, ", "), out.Styled{Text: n.State, Style: style}, fmt.Sprint(n.PID), fmt.Sprint(n.Nodes), fmt.Sprint(n.Pods), fmt.Sprint(n.Revision))
	}
	if _, err := t.WriteTo(w); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(w)
	if err := writePods(cmd, r.Pods); err != nil {
		return err
	}
	for _, p := range r.Problems {
		_, _ = fmt.Fprintf(w, "\nProblem: %s", p)
	}
	if len(r.Problems) > 0 {
		_, _ = fmt.Fprintln(w)
	}
	return nil
}

func podsCommand(with runner) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "pods", Short: "List the pods", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, d *Demo, _ []string) error {
			f, err := parseFormat(format)
			if err != nil {
				return err
			}
			pods, err := d.Pods(cmd.Context())
			if err != nil {
				return err
			}
			if f.Table() {
				return writePods(cmd, pods)
			}
			return f.Write(cmd.OutOrStdout(), pods)
		}),
	}
	outputFlag(cmd, &format)
	return cmd
}

func writePods(cmd *cobra.Command, pods []PodInfo) error {
	t := out.NewTable(color(cmd), "POD", "NAMESPACE", "NODE", "ADDRESSES", "IDENTITY", "STATE", "LABELS")
	for _, p := range pods {
		identity := "-"
		if p.Identity != 0 {
			identity = fmt.Sprint(p.Identity)
		}
		state := out.Styled{Text: p.State}
		if p.State != "ready" {
			state.Style = out.Red
		}
		t.Row(p.Name, p.Namespace, p.Node, joinAddrs(p.Addresses), identity, state, strings.Join(p.Labels, " "))
	}
	_, err := t.WriteTo(cmd.OutOrStdout())
	return err
}

func podCommand(with runner) *cobra.Command {
	cmd := &cobra.Command{
		Use: "pod", Short: "Add and delete pods", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var node, namespace string
	var labels, ports []string
	add := &cobra.Command{
		Use: "add NAME --node node1 --labels id=app2,team=x", Short: "Make a pod, attach it and start its servers", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, d *Demo, args []string) error {
			return d.AddPod(cmd.Context(), args[0], namespace, node, labels, ports...)
		}),
	}
	add.Flags().StringVar(&node, "node", nodes[0].name, "node to run it on")
	add.Flags().StringVar(&namespace, "namespace", "default", "namespace of the pod, for policies")
	add.Flags().StringSliceVarP(&labels, "labels", "l", nil, "labels, key=value, comma separated")
	add.Flags().StringSliceVar(&ports, "ports", nil, "ports that policies may name, such as http:80/tcp, comma separated")
	del := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Detach a pod and remove it", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, d *Demo, args []string) error { return d.DeletePod(cmd.Context(), args[0]) }),
	}
	cmd.AddCommand(add, del)
	return cmd
}

func execCommand(with runner) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NAME -- CMD...",
		Short: "Run a command in a pod's network namespace",
		Long: "Run a command in the network namespace of a pod (or of node1, node2, world). Pods, nodes and the world are known by\n" +
			"their names. Input, output, signals and the exit code are the command's own.",
		Args: func(_ *cobra.Command, args []string) error {
			if name, argv := splitExec(args); name == "" || len(argv) == 0 {
				return errors.New("want a pod and a command: hypha demo exec app2 -- curl app1")
			}
			return nil
		},
		RunE: with(func(_ *cobra.Command, d *Demo, args []string) error {
			name, argv := splitExec(args)
			return d.Exec(name, argv)
		}),
	}
	cmd.Flags().SetInterspersed(false) // what follows the name belongs to the command
	return cmd
}

func splitExec(args []string) (name string, argv []string) {
	if len(args) == 0 {
		return "", nil
	}
	name, argv = args[0], args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	return name, argv
}

func outputFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "", "json | yaml | jsonpath='{...}' (default: a table)")
}

func parseFormat(s string) (out.Format, error) {
	f, err := out.ParseFormat(s)
	if err != nil {
		return f, &UsageError{err.Error()}
	}
	return f, nil
}

// color says whether the command's output is a terminal that wants colours.
func color(cmd *cobra.Command) out.Color {
	f, ok := cmd.OutOrStdout().(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return out.WantColor(err == nil && st.Mode()&os.ModeCharDevice != 0, os.Getenv)
}
