package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/escape"
	"github.com/hypha-net/hypha/internal/model"
)

func (e *env) prefilter() *cobra.Command {
	return group("prefilter", "Sources whose packets this node drops before anything else", e.prefilterList(), e.prefilterUpdate(), e.prefilterDelete())
}

func (e *env) prefilterList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the denied CIDRs and the revision of the list", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := r.GetPrefilter(cmd.Context(), req(&agentv1.GetPrefilterRequest{}))
		if err != nil {
			return err
		}
		m := resp.Msg
		return o.write(out.Proto{M: m}, func() error {
			t := out.NewTable(e.color)
			t.Row("Revision: " + number(m.GetRevision()))
			for _, c := range m.GetDeny() {
				t.Row(c)
			}
			_, err := t.WriteTo(e.Stdout)
			if len(m.GetDeny()) == 0 {
				e.say("No source is denied: `hypha prefilter update --cidr CIDR` denies one.")
				return err
			}
			var on []string
			for _, d := range m.GetDevices() {
				on = append(on, fmt.Sprintf("%s (%s)", d.GetName(), or(d.GetMode(), "not attached")))
			}
			e.say("Dropped on %s: %s, %s.", escape.Text(or(strings.Join(on, ", "), "no device")),
				count(m.GetDroppedPackets(), "packet"), count(m.GetDroppedBytes(), "byte"))
			return err
		})
	}
	return cmd
}

// cidrFlags are the flags of a change of the list.
type cidrFlags struct {
	revision uint64
	cidrs    []string
	file     string
}

func (e *env) cidrFlags(cmd *cobra.Command, verb string) *cidrFlags {
	v := &cidrFlags{}
	f := cmd.Flags()
	f.StringSliceVar(&v.cidrs, "cidr", nil, "CIDRs to "+verb+", or addresses")
	f.StringVar(&v.file, "file", "", "file with CIDRs to "+verb+", one on a line, # and ; begin comments; - is standard input")
	f.Uint64Var(&v.revision, "revision", 0, "only if the list is still at this revision (default: whichever it is at)")
	return v
}

// given are the CIDRs of the flags and the file. A bad one is refused before the agent is asked.
func (e *env) given(cmd *cobra.Command, v *cidrFlags) ([]string, error) {
	cidrs := v.cidrs
	for _, c := range cidrs {
		if _, err := model.ParseCIDR(c); err != nil {
			return nil, &usageError{what: "--cidr: " + err.Error()}
		}
	}
	if v.file != "" {
		listed, err := e.cidrFile(v.file)
		if err != nil {
			return nil, err
		}
		cidrs = append(cidrs, listed...)
	}
	if len(cidrs) == 0 {
		return nil, &usageError{what: cmd.CommandPath() + " needs at least one CIDR",
			hint: cmd.CommandPath() + " --cidr 192.0.2.0/24 --cidr 2001:db8::/32   or   --file FILE"}
	}
	return cidrs, nil
}

func (e *env) cidrFile(name string) ([]string, error) {
	from := e.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read CIDRs: %w", err)
		}
		defer f.Close()
		from = f
	} else {
		name = "standard input"
	}
	b, err := readAll(from, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read CIDRs of %s: %w", name, err)
	}
	if err := checkText(name, b); err != nil {
		return nil, err
	}
	var cidrs []string
	line := 0
	for text := range strings.Lines(string(b)) {
		line++
		if i := strings.IndexAny(text, "#;"); i >= 0 {
			text = text[:i]
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if _, err := model.ParseCIDR(text); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, line, err)
		}
		cidrs = append(cidrs, text)
	}
	return cidrs, nil
}

func (e *env) prefilterUpdate() *cobra.Command {
	cmd := &cobra.Command{Use: "update --cidr CIDR...", Aliases: []string{"add"}, Short: "Deny sources: add CIDRs to the list",
		Long: "Add CIDRs to the list, all or none. What comes from them is dropped on the outside devices before anything else looks at\n" +
			"it, in XDP. CIDRs that cover an address of a node of the cluster are refused.\n\n" +
			"  hypha prefilter update --cidr 192.0.2.0/24 --cidr 2001:db8::/32\n" +
			"  hypha prefilter update --revision 2 --file blocklist.txt",
		Args: need(0, 0, "")}
	v := e.cidrFlags(cmd, "deny")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cidrs, err := e.given(cmd, v)
		if err != nil {
			return err
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.UpdatePrefilter(cmd.Context(), req(&agentv1.UpdatePrefilterRequest{Revision: v.revision, Cidrs: cidrs}))
		if err != nil {
			return unchanged(err)
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			_, err := fmt.Fprintf(e.Stdout, "Updated %d prefilter entries\nRevision: %d\n", len(cidrs), resp.Msg.GetRevision())
			return err
		})
	}
	return cmd
}

func (e *env) prefilterDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete --cidr CIDR...", Aliases: []string{"rm"}, Short: "Let sources through again: take CIDRs off the list",
		Long: "Take CIDRs off the list, all or none. With the last one the program goes off the devices.", Args: need(0, 0, "")}
	v := e.cidrFlags(cmd, "let through")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cidrs, err := e.given(cmd, v)
		if err != nil {
			return err
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.DeletePrefilter(cmd.Context(), req(&agentv1.DeletePrefilterRequest{Revision: v.revision, Cidrs: cidrs}))
		if err != nil {
			return unchanged(err)
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			_, err := fmt.Fprintf(e.Stdout, "Deleted %d prefilter entries\nRevision: %d\n", len(cidrs), resp.Msg.GetRevision())
			return err
		})
	}
	return cmd
}
