package cli

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
)

// ipcache reads both tables of addresses: the exact one and the prefixes behind it.
func (e *env) ipcache(ctx context.Context, keep func(row) bool) (*rows, error) {
	rs, err := e.dump(ctx, "ipcache_exact_v1", 0, keep)
	if err != nil {
		return nil, err
	}
	prefixes, err := e.dump(ctx, "ipcache_v1", 0, keep)
	if err != nil {
		return nil, err
	}
	rs.join(prefixes)
	rs.sort()
	return rs, nil
}

// prefixOf reads the PREFIX column: a prefix, or an address of the exact table.
func prefixOf(r row) netip.Prefix {
	p, _ := cellPrefix(r.get("PREFIX")) // not valid where it is neither
	return p
}

func (e *env) ipcacheList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the rows", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rs, err := e.ipcache(cmd.Context(), nil)
		if err != nil {
			return err
		}
		return o.rows(rs, "The kernel knows no address.")
	}
	return cmd
}

func (e *env) ipcacheGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ADDRESS", Short: "Show the row that decides whose an address is", Args: need(1, 1, "an address: hypha bpf ipcache get 10.0.0.1")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := netip.ParseAddr(args[0])
		if err != nil {
			return usagef("%q is no address: want for example 10.0.0.1", args[0])
		}
		var best row
		_, err = e.ipcache(cmd.Context(), func(r row) bool {
			p := prefixOf(r)
			if p.IsValid() && p.Contains(a.Unmap()) && (best == nil || p.Bits() > prefixOf(best).Bits()) {
				best = r
			}
			return false
		})
		if err != nil {
			return err
		}
		if best == nil {
			return fmt.Errorf("the kernel has no row for %s: what it sends is dropped", a)
		}
		rs := &rows{}
		rs.add(best)
		return o.rows(rs, "")
	}
	return cmd
}

func (e *env) ipcacheMatch() *cobra.Command {
	cmd := &cobra.Command{Use: "match IDENTITY", Short: "Show the rows of an identity", Args: need(1, 1, "an identity: hypha bpf ipcache match ID")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := identityID(args[0])
		if err != nil {
			return err
		}
		want := number(uint32(id))
		rs, err := e.ipcache(cmd.Context(), func(r row) bool { return r.get("IDENTITY") == want })
		if err != nil {
			return err
		}
		return o.rows(rs, "No address has the identity "+args[0]+".")
	}
	return cmd
}
