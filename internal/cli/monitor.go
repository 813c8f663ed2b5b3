package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/escape"
)

// monitorTypes are the events the datapath makes; upstreamTypes are those that other versions of it could.
var (
	monitorTypes  = []string{"drop", "trace", "policy-verdict"}
	upstreamTypes = []string{"agent", "capture", "debug", "l7", "recorder", "trace-sock"}
)

func (e *env) monitor() *cobra.Command {
	cmd := &cobra.Command{Use: "monitor", Short: "Show the datapath's events as they come", Args: need(0, 0, ""),
		Long: "Show the datapath's events as they come: drops, policy verdicts and traces, with numbers instead of names.\n`observe` shows them with names."}
	var types, related, from, to []string
	var verbose int
	var asJSON bool
	f := cmd.Flags()
	f.StringSliceVarP(&types, "type", "t", nil, "only events of these types: drop, trace, policy-verdict")
	f.StringSliceVar(&related, "related-to", nil, "only events from or to these endpoints")
	f.StringSliceVar(&from, "from", nil, "only events from these endpoints")
	f.StringSliceVar(&to, "to", nil, "only events to these endpoints")
	f.CountVarP(&verbose, "verbose", "v", "also the addresses and identities (-v), every field (-vv)")
	f.BoolVarP(&asJSON, "json", "j", false, "the same as -o json")
	must(cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(monitorTypes, cobra.ShellCompDirectiveNoFileComp)))
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := o.format()
		if err != nil {
			return err
		}
		r := &agentv1.MonitorRequest{}
		if r.Types, err = eventTypes(types); err != nil {
			return err
		}
		for _, x := range []struct {
			args []string
			ids  *[]uint32
		}{{related, &r.RelatedTo}, {from, &r.From}, {to, &r.To}} {
			if *x.ids, err = endpointNumbers(x.args); err != nil {
				return err
			}
		}
		show := func(ev *agentv1.MonitorEvent) error { return e.printEvent(ev, verbose) }
		switch {
		case asJSON || o.raw == "json":
			show = func(ev *agentv1.MonitorEvent) error { return out.WriteJSONLine(e.Stdout, eventJSON(ev)) }
		case !format.Table():
			show = func(ev *agentv1.MonitorEvent) error {
				if o.raw == "yaml" {
					fmt.Fprintln(e.Stdout, "---")
				}
				return format.Write(e.Stdout, eventJSON(ev))
			}
		}
		return e.watch(cmd, r, show)
	}
	return cmd
}

func eventTypes(words []string) ([]string, error) {
	for _, w := range words {
		switch {
		case slices.Contains(monitorTypes, w):
		case slices.Contains(upstreamTypes, w):
			return nil, usagef("this datapath has no events of type %q: it has %s", w, strings.Join(monitorTypes, ", "))
		default:
			e := &usageError{what: fmt.Sprintf("unknown event type %q: want %s", w, strings.Join(monitorTypes, ", "))}
			if near := nearest(w, monitorTypes); near != "" {
				e.hint = "hypha monitor -t " + near
			}
			return nil, e
		}
	}
	return words, nil
}

func endpointNumbers(words []string) ([]uint32, error) {
	var ids []uint32
	for _, w := range words {
		n, err := strconv.ParseUint(w, 10, 16)
		if err != nil || n == 0 {
			return nil, usagef("%q is no endpoint number: `hypha endpoint list` shows them", w)
		}
		ids = append(ids, uint32(n))
	}
	return ids, nil
}

func (e *env) watch(cmd *cobra.Command, r *agentv1.MonitorRequest, show func(*agentv1.MonitorEvent) error) error {
	c, err := e.reader()
	if err != nil {
		return err
	}
	s, err := c.Monitor(cmd.Context(), req(r))
	if err != nil {
		return err
	}
	defer s.Close()
	if e.StdoutTTY {
		e.say("Press Ctrl-C to quit")
	}
	for s.Receive() {
		if err := show(s.Msg()); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	return errors.New("the agent ended the stream: it was stopped")
}

func (e *env) printEvent(ev *agentv1.MonitorEvent, verbose int) error {
	var b strings.Builder
	if ev.GetType() == "lost" {
		fmt.Fprintf(&b, "%s\n", e.color.Paint(out.Red, fmt.Sprintf("%d events lost (CPU %d)", ev.GetLost(), ev.GetCpu())))
	} else {
		line := escape.Text(ev.GetSummary())
		switch ev.GetType() {
		case "drop":
			line = e.color.Paint(out.Red, line)
		case "policy-verdict":
			line = e.color.Paint(out.Yellow, line)
		}
		b.WriteString(line + "\n")
	}
	switch {
	case verbose == 1:
		at := ev.GetTime().AsTime().Local().Format("15:04:05.000000")
		parts := []string{at}
		for _, f := range ev.GetFields() {
			switch f.GetName() {
			case "type", "cpu", "line", "source-mac", "destination-mac", "length":
			default:
				parts = append(parts, f.GetName()+"="+escape.Text(f.GetValue()))
			}
		}
		b.WriteString("    " + strings.Join(parts, " ") + "\n")
	case verbose > 1:
		t := out.NewTable(e.color)
		t.Row("    time", ev.GetTime().AsTime().Local().Format("2006-01-02 15:04:05.000000000"))
		for _, f := range ev.GetFields() {
			t.Row("    "+f.GetName(), f.GetValue())
		}
		_, _ = t.WriteTo(&b) // a strings.Builder takes everything
	}
	_, err := fmt.Fprint(e.Stdout, b.String())
	return err
}

// eventJSON is an event with its fields as an object of their own.
func eventJSON(ev *agentv1.MonitorEvent) out.Object {
	o := out.Object{{Key: "time", Value: ev.GetTime().AsTime().Format("2006-01-02T15:04:05.000000000Z07:00")}, {Key: "type", Value: ev.GetType()}, {Key: "cpu", Value: ev.GetCpu()}}
	if ev.GetType() == "lost" {
		return append(o, out.Field{Key: "lost", Value: ev.GetLost()})
	}
	fields := out.Object{}
	for _, f := range ev.GetFields() {
		if f.GetName() != "type" && f.GetName() != "cpu" {
			fields = append(fields, out.Field{Key: camel(f.GetName()), Value: f.GetValue()})
		}
	}
	return append(o, out.Field{Key: "summary", Value: ev.GetSummary()}, out.Field{Key: "fields", Value: fields})
}
