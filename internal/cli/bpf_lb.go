package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) bpfLB() *cobra.Command {
	return group("lb", "Services in the datapath", e.bpfLBList(),
		group("maglev", "Maglev tables", e.table("lb_maglev_v1", "No service has a Maglev table.")),
		group("affinity", "Clients that stay with their backend", e.table("lb_affinity_v1", "No client stays with its backend.")))
}

func (e *env) bpfLBList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the frontends that the datapath serves, with the backends that new flows get", Args: need(0, 0, "")}
	parts := []struct {
		flag, usage, table, none string
		on                       bool
	}{
		{flag: "frontends", usage: "the frontends alone, with all the datapath knows of them", table: "lb_frontend_v1", none: "The datapath serves no service."},
		{flag: "backends", usage: "the backends alone, by slot set", table: "lb_slot_v1", none: "The datapath knows no backend."},
		{flag: "revnat", usage: "what sockets believe to talk to", table: "lb_reverse_v1", none: "No socket talks to a service."},
		{flag: "source-ranges", usage: "who may reach a service from outside, or may not", table: "lb_source_v1", none: "No service has source ranges."},
	}
	for i := range parts {
		cmd.Flags().BoolVar(&parts[i].on, parts[i].flag, false, parts[i].usage)
	}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n := 0
		for _, p := range parts {
			if p.on {
				n++
			}
		}
		if n > 1 {
			return usagef("%s shows one thing at a time: --frontends, --backends, --revnat or --source-ranges", cmd.CommandPath())
		}
		for _, p := range parts {
			if !p.on {
				continue
			}
			rs, err := e.dump(cmd.Context(), p.table, 0, nil)
			if err != nil {
				return err
			}
			rs.sort()
			protocolNames(rs)
			return o.rows(rs, p.none)
		}
		fronts, err := e.lbFrontends(cmd.Context())
		if err != nil {
			return err
		}
		v := make(out.Object, len(fronts))
		for i, f := range fronts {
			v[i] = out.Field{Key: f.address, Value: f.lines}
		}
		return o.list(v, "The datapath serves no service.", []string{"SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"}, func(t *out.Table) {
			for _, f := range fronts {
				for slot, line := range f.lines {
					t.Row(fmt.Sprintf("%s (%d)", f.address, slot), line)
				}
			}
		})
	}
	return cmd
}

// lbFrontend is a frontend as upstream shows it: a line about itself, and one for each slot.
type lbFrontend struct {
	address string
	lines   []string
}

func (e *env) lbFrontends(ctx context.Context) ([]lbFrontend, error) {
	fronts, err := e.dump(ctx, "lb_frontend_v1", 0, nil)
	if err != nil {
		return nil, err
	}
	slots, err := e.dump(ctx, "lb_slot_v1", 0, nil)
	if err != nil {
		return nil, err
	}
	fronts.sort()
	slots.sort()
	protocolNames(fronts)
	protocolNames(slots)
	behind := map[string][]string{} // backends by slot set, in the order of their slots
	for i := range slots.rows {
		set := slots.cell(i, "SLOTS")
		behind[set] = append(behind[set], slots.cell(i, "BACKEND")+"/"+slots.cell(i, "PROTOCOL"))
	}
	list := make([]lbFrontend, len(fronts.rows))
	for i := range fronts.rows {
		f := &list[i]
		f.address = fronts.cell(i, "FRONTEND") + "/" + fronts.cell(i, "PROTOCOL")
		if fronts.cell(i, "SCOPE") == "internal" {
			f.address += "/i"
		}
		id := fronts.cell(i, "SERVICE")
		about := join(", ", fronts.cell(i, "TYPE"), fronts.cell(i, "SELECTION"), strings.ReplaceAll(fronts.cell(i, "FLAGS"), ",", ", "))
		if a := fronts.cell(i, "AFFINITY"); a != "0s" {
			about = join(", ", about, prefixed("affinity ", a))
		}
		f.lines = []string{fmt.Sprintf("0.0.0.0:0 (%s) (0) [%s]", id, about)}
		count, _ := strconv.Atoi(fronts.cell(i, "COUNT")) // the agent's own number
		set := behind[fronts.cell(i, "SLOTS")]
		for n, b := range set[:min(count, len(set))] {
			f.lines = append(f.lines, fmt.Sprintf("%s (%s) (%d)", b, id, n+1))
		}
	}
	return list, nil
}
