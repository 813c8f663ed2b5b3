package observe

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	observerpb "github.com/hypha-net/hypha/api/observer"
)

// NewObserveCommand makes `observe` with its subcommands; inside `hypha` it has the flags that name a server itself.
func NewObserveCommand() *cobra.Command {
	e := newEnv()
	c := e.observe()
	e.flags(c.PersistentFlags())
	return c
}

// flowFlags are the flags of `observe` and `observe flows`.
type flowFlags struct {
	sel    selection
	filter *filters
	print  printOptions
	mask   []string
	input  string
	raw    bool
	req    *observerpb.GetFlowsRequest
}

func (e *env) observe() *cobra.Command {
	c := e.flowCommand("observe", "Show the traffic that was seen")
	c.Long = "Show flows: what traffic was seen, what became of it, and which policy says so.\n\n" +
		"A filter given several times takes flows that match any of its values; different filters must all match;\n" +
		"--not negates the filter after it. Every flag can also be set by HUBBLE_ and its name, such as HUBBLE_LAST=50."
	c.Example = "  " + "hubble observe --follow --verdict DROPPED\n" +
		"  hubble observe --pod default/app1 --last 100\n" +
		"  hubble observe --from-label id=app3 --to-port 80 --since 5m -o jsonpb"
	c.AddCommand(e.flowCommand("flows", "Show the traffic that was seen"), e.agentEvents(), e.debugEvents())
	return c
}

func (e *env) flowCommand(use, short string) *cobra.Command {
	o := &flowFlags{filter: newFilters()}
	c := &cobra.Command{Use: use, Short: short}
	f := c.Flags()
	f.SortFlags = false
	o.sel.flags(f)
	o.filter.flags(f)
	o.print.flags(f)
	f.StringSliceVar(&o.mask, "field-mask", nil, "fields of the flow to ask for, such as time,source.pod_name,verdict")
	f.StringVar(&o.input, "input-file", "", "read flows from a file in the format of -o jsonpb, - for standard input")
	f.BoolVar(&o.raw, "print-raw-filters", false, "print the filters as they would be sent, and stop")
	return e.leaf(c, func(c *cobra.Command) error {
		if err := o.sel.check(c); err != nil {
			return err
		}
		var err error
		if o.req, err = flowRequest(&o.sel, o.filter, o.mask); err != nil {
			return err
		}
		if len(o.mask) > 0 && o.print.output != "json" && o.print.output != "jsonpb" {
			return usagef("--field-mask: only -o jsonpb shows single fields")
		}
		return nil
	}, func(c *cobra.Command, _ []string) error { return e.flows(c, o) })
}

func (e *env) flows(c *cobra.Command, o *flowFlags) error {
	if o.raw {
		return printRaw(c.OutOrStdout(), o.req)
	}
	p := e.printer(c, o.print, o.sel.follow)
	if o.sel.none(c) {
		return p.close()
	}
	if o.input != "" {
		if err := readInput(c.InOrStdin(), o.input, o.req, p.response); err != nil {
			return err
		}
		return p.close()
	}
	return streams(e, c, p, &o.sel,
		func(ctx context.Context, s *server) (*connect.ServerStreamForClient[observerpb.GetFlowsResponse], error) {
			return s.observer.GetFlows(ctx, connect.NewRequest(o.req))
		},
		func(r *observerpb.GetFlowsResponse) *timestamppb.Timestamp { return r.GetTime() },
		func(r *observerpb.GetFlowsResponse) bool { return r.GetFlow() != nil },
		p.response)
}

func (e *env) printer(c *cobra.Command, o printOptions, follow bool) *printer {
	return &printer{printOptions: o, out: c.OutOrStdout(), err: c.ErrOrStderr(), follow: follow, paint: e.paint(o.color, c.OutOrStdout())}
}

// paint decides about colours: NO_COLOR (https://no-color.org) and everything but a terminal get none unless asked for.
func (e *env) paint(mode string, out io.Writer) bool {
	switch mode {
	case "always":
		return true
	case "never":
		return false
	}
	if v, ok := e.getenv("NO_COLOR"); ok && v != "" {
		return false
	}
	if v, _ := e.getenv("TERM"); v == "dumb" {
		return false
	}
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (e *env) agentEvents() *cobra.Command {
	var sel selection
	var po printOptions
	c := &cobra.Command{Use: "agent-events", Short: "Show what the agent did: policy, endpoint and ipcache changes"}
	sel.flags(c.Flags())
	po.flags(c.Flags())
	return e.leaf(c, sel.check, func(c *cobra.Command, _ []string) error {
		p := e.printer(c, po, sel.follow)
		if sel.none(c) {
			return p.close()
		}
		req := &observerpb.GetAgentEventsRequest{Number: sel.number, First: sel.first > 0, Follow: sel.follow, Since: sel.from(), Until: sel.until.proto()}
		return streams(e, c, p, &sel,
			func(ctx context.Context, s *server) (*connect.ServerStreamForClient[observerpb.GetAgentEventsResponse], error) {
				return s.observer.GetAgentEvents(ctx, connect.NewRequest(req))
			},
			func(r *observerpb.GetAgentEventsResponse) *timestamppb.Timestamp { return r.GetTime() },
			func(*observerpb.GetAgentEventsResponse) bool { return true },
			p.agentEvent)
	})
}

func (e *env) debugEvents() *cobra.Command {
	var sel selection
	var po printOptions
	c := &cobra.Command{Use: "debug-events", Short: "Show what the datapath said for debugging"}
	sel.flags(c.Flags())
	po.flags(c.Flags())
	return e.leaf(c, sel.check, func(c *cobra.Command, _ []string) error {
		p := e.printer(c, po, sel.follow)
		if sel.none(c) {
			return p.close()
		}
		req := &observerpb.GetDebugEventsRequest{Number: sel.number, First: sel.first > 0, Follow: sel.follow, Since: sel.from(), Until: sel.until.proto()}
		return streams(e, c, p, &sel,
			func(ctx context.Context, s *server) (*connect.ServerStreamForClient[observerpb.GetDebugEventsResponse], error) {
				return s.observer.GetDebugEvents(ctx, connect.NewRequest(req))
			},
			func(r *observerpb.GetDebugEventsResponse) *timestamppb.Timestamp { return r.GetTime() },
			func(*observerpb.GetDebugEventsResponse) bool { return true },
			p.debugEvent)
	})
}

// streams asks all servers and prints what comes.
func streams[T any](e *env, c *cobra.Command, p *printer, sel *selection,
	open func(context.Context, *server) (*connect.ServerStreamForClient[T], error),
	at func(*T) *timestamppb.Timestamp, counts func(*T) bool, emit func(*T) error) error {
	ts, err := e.targets()
	if err != nil {
		return err
	}
	ctx := c.Context()
	if !sel.follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.timeout+e.requestTimeout)
		defer cancel()
	}
	m := &merge[T]{open: open, counts: counts, emit: emit, number: sel.number, first: sel.first > 0, follow: sel.follow,
		time: func(r *T) time.Time { return at(r).AsTime() },
		warn: func(err error) {
			if !p.silent {
				fmt.Fprintf(c.ErrOrStderr(), "Warning: %s\n", err)
			}
		}}
	for _, t := range ts {
		e.note(c, "asking %s", t.name)
		s := t.connect(e.timeout)
		defer s.close()
		m.servers = append(m.servers, s)
	}
	err = m.run(ctx)
	if cerr := p.close(); err == nil {
		err = cerr
	}
	return err
}

// printRaw prints the filters of a request, a JSON object each.
func printRaw(w io.Writer, req *observerpb.GetFlowsRequest) error {
	var b strings.Builder
	for _, l := range []struct {
		name string
		list []*ff
	}{{"allowlist", req.GetWhitelist()}, {"denylist", req.GetBlacklist()}} {
		if len(l.list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s:\n", l.name)
		for _, f := range l.list {
			var line strings.Builder
			p := &printer{out: &line}
			if err := p.json(f); err != nil {
				return err
			}
			fmt.Fprintf(&b, "    - '%s'\n", strings.ReplaceAll(strings.TrimSpace(line.String()), "'", "''"))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// decodeJSON reads a GetFlowsResponse, or a flow as older files have it.
func decodeJSON(raw []byte) (*observerpb.GetFlowsResponse, error) {
	o := protojson.UnmarshalOptions{DiscardUnknown: true}
	r := &observerpb.GetFlowsResponse{}
	if err := o.Unmarshal(raw, r); err != nil {
		return nil, err
	}
	if r.GetResponseTypes() != nil {
		return r, nil
	}
	f := &observerpb.GetFlowsResponse_Flow{}
	f.Flow = newFlow()
	if err := o.Unmarshal(raw, f.Flow); err != nil {
		return nil, err
	}
	r.ResponseTypes = f
	r.Time, r.NodeName = f.Flow.GetTime(), f.Flow.GetNodeName()
	return r, nil
}
