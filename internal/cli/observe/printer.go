package observe

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/escape"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// Time formats by their names.
var timeFormats = map[string]string{
	"StampMilli": time.StampMilli, "YearMonthDay": "2006-01-02", "YearMonthDayHour": "2006-01-02T15",
	"YearMonthDayHourMinute": "2006-01-02T15:04", "RFC3339": time.RFC3339, "RFC3339Milli": "2006-01-02T15:04:05.000Z07:00",
	"RFC3339Micro": "2006-01-02T15:04:05.000000Z07:00", "RFC3339Nano": time.RFC3339Nano, "RFC1123Z": time.RFC1123Z,
}

var timeFormatNames = []string{"StampMilli", "YearMonthDay", "YearMonthDayHour", "YearMonthDayHourMinute", "RFC3339",
	"RFC3339Milli", "RFC3339Micro", "RFC3339Nano", "RFC1123Z"}

var formats = []string{"compact", "dict", "json", "jsonpb", "table"}

// printOptions are the flags on how to print.
type printOptions struct {
	output     string
	numeric    bool
	color      string
	translate  bool
	node       bool
	policies   bool
	timeFormat string
	silent     bool
}

func (o *printOptions) flags(f *pflag.FlagSet) {
	o.output, o.color, o.timeFormat = "compact", "auto", "StampMilli"
	f.VarP(&choice{&o.output, formats}, "output", "o", strings.Join(formats, " | "))
	f.BoolVar(&o.numeric, "numeric", false, "addresses, ports and identities as numbers")
	f.Var(&choice{&o.color, []string{"auto", "always", "never"}}, "color", "auto | always | never")
	f.BoolVar(&o.translate, "ip-translation", true, "names instead of addresses")
	f.BoolVar(&o.node, "print-node-name", false, "the node that saw it")
	f.BoolVar(&o.policies, "print-policy-names", false, "the policies behind a verdict")
	f.Var(&choice{&o.timeFormat, timeFormatNames}, "time-format", "one of "+strings.Join(timeFormatNames, ", "))
	f.BoolVarP(&o.silent, "silent-errors", "s", false, "no warnings")
}

// choice is a flag with a fixed list of values.
type choice struct {
	v    *string
	from []string
}

func (c *choice) Set(s string) error {
	for _, w := range c.from {
		if strings.EqualFold(w, s) {
			*c.v = w
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(c.from, ", "))
}

func (c *choice) String() string { return *c.v }
func (c *choice) Type() string   { return "word" }

// printer writes what comes, in one of the formats.
type printer struct {
	printOptions
	out, err io.Writer
	paint    bool
	follow   bool // tables are shown line by line

	tab  *tabwriter.Writer
	rows int
}

// close writes out what a table still holds back.
func (p *printer) close() error {
	if p.tab == nil {
		return nil
	}
	return p.tab.Flush()
}

func (p *printer) time(t *timestamppb.Timestamp) string {
	if t == nil {
		return "N/A"
	}
	return t.AsTime().Local().Format(timeFormats[p.timeFormat])
}

// response writes one answer of GetFlows.
func (p *printer) response(r *observerpb.GetFlowsResponse) error {
	if p.output == "json" || p.output == "jsonpb" {
		return p.json(r)
	}
	switch x := r.GetResponseTypes().(type) {
	case *observerpb.GetFlowsResponse_Flow:
		return p.flow(r, x.Flow)
	case *observerpb.GetFlowsResponse_LostEvents:
		return p.lost(r, x.LostEvents)
	case *observerpb.GetFlowsResponse_NodeStatus:
		if p.silent {
			return nil
		}
		n := x.NodeStatus
		_, err := fmt.Fprintf(p.err, "%s: %s: %s\n", n.GetStateChange(), strings.Join(escape.Texts(n.GetNodeNames()), ", "), escape.Text(n.GetMessage()))
		return err
	}
	return nil
}

// line is a flow or event in columns.
type line struct {
	time, node, src, srcID, arrow, dst, dstID, kind, verdict, summary string
	style                                                             style
}

func (p *printer) flow(r *observerpb.GetFlowsResponse, f *flowpb.Flow) error {
	node := f.GetNodeName()
	if node == "" {
		node = r.GetNodeName()
	}
	when := f.GetTime()
	if when == nil {
		when = r.GetTime()
	}
	l := line{time: p.time(when), node: escape.Text(node), kind: escape.Text(flowtext.Type(f)), verdict: flowtext.Verdict(f),
		style: verdictStyle(f.GetVerdict())}
	l.src, l.srcID = p.end(f.GetSource(), f.GetSourceService(), f.GetSourceNames(), f.GetIP().GetSource(), port(f, true))
	l.dst, l.dstID = p.end(f.GetDestination(), f.GetDestinationService(), f.GetDestinationNames(), f.GetIP().GetDestination(), port(f, false))
	if f.GetIP() == nil && f.GetEthernet() != nil {
		l.src, l.dst = escape.Text(f.GetEthernet().GetSource()), escape.Text(f.GetEthernet().GetDestination())
	}
	switch {
	case f.GetIsReply() == nil:
		l.arrow = "<>"
	case f.GetIsReply().GetValue():
		l.arrow = "<-"
	default:
		l.arrow = "->"
	}
	l.summary = escape.Text(p.summary(f))
	return p.write(l)
}

// summary is the server's, or made here where a field mask left it out.
func (p *printer) summary(f *flowpb.Flow) string {
	s := f.GetSummary()
	if s == "" {
		s = flowtext.Summary(f)
	}
	if !p.policies {
		return s
	}
	for _, l := range []struct {
		what string
		by   []*flowpb.Policy
	}{{"EGRESS ALLOWED BY", f.GetEgressAllowedBy()}, {"INGRESS ALLOWED BY", f.GetIngressAllowedBy()},
		{"EGRESS DENIED BY", f.GetEgressDeniedBy()}, {"INGRESS DENIED BY", f.GetIngressDeniedBy()}} {
		var names []string
		for _, y := range l.by {
			names = append(names, policyName(y))
		}
		if len(names) > 0 {
			s = strings.TrimPrefix(s+"; "+l.what+" "+strings.Join(names, ", "), "; ")
		}
	}
	return s
}

func policyName(y *flowpb.Policy) string {
	name := y.GetName()
	if name == "" {
		name = strings.Join(y.GetLabels(), ",")
	}
	if name == "" {
		name = "(unnamed)"
	}
	if y.GetNamespace() != "" {
		name = y.GetNamespace() + "/" + name
	}
	if y.GetKind() != "" {
		name = y.GetKind() + " " + name
	}
	return name
}

// port is the port of one end, -1 if the protocol has none.
func port(f *flowpb.Flow, source bool) int {
	s, d := ports(f)
	if source {
		return s
	}
	return d
}

// end names one end of a flow, and its identity.
func (p *printer) end(e *flowpb.Endpoint, svc *flowpb.Service, names []string, ip string, port int) (name, id string) {
	withPort := func(n string) string {
		if port < 0 {
			return n
		}
		return n + ":" + strconv.Itoa(port)
	}
	switch {
	case p.numeric || !p.translate:
		name = joined(ip, port)
	case e.GetPodName() != "":
		name = e.GetPodName()
		if e.GetNamespace() != "" {
			name = e.GetNamespace() + "/" + name
		}
		name = withPort(name)
	case svc.GetName() != "":
		name = svc.GetName()
		if svc.GetNamespace() != "" {
			name = svc.GetNamespace() + "/" + name
		}
		name = withPort(name)
	case len(names) > 0:
		name = withPort(strings.Join(names, ","))
	default:
		name = joined(ip, port)
	}
	n := model.IdentityID(e.GetIdentity())
	if n <= model.IdentityWorldIPv6 && !p.numeric {
		id = "(" + n.String() + ")"
	} else {
		id = "(ID:" + strconv.FormatUint(uint64(n), 10) + ")"
	}
	return escape.Text(name), id
}

func joined(ip string, port int) string {
	if port < 0 {
		return ip
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

func (p *printer) lost(r *observerpb.GetFlowsResponse, l *flowpb.LostEvent) error {
	text := fmt.Sprintf("EVENTS LOST: %s CPU(%d) %d", l.GetSource(), l.GetCpu().GetValue(), l.GetNumEventsLost())
	switch p.output {
	case "dict":
		return p.record([]field{{"TIMESTAMP", p.time(r.GetTime())}, {"NODE", escape.Text(r.GetNodeName())}, {"TYPE", "EVENTS LOST"},
			{"SOURCE", l.GetSource().String()}, {"SUMMARY", fmt.Sprintf("CPU(%d) %d", l.GetCpu().GetValue(), l.GetNumEventsLost())}})
	case "table":
		return p.row(line{time: p.time(r.GetTime()), node: escape.Text(r.GetNodeName()), src: l.GetSource().String(), kind: "EVENTS LOST",
			summary: fmt.Sprintf("CPU(%d) %d", l.GetCpu().GetValue(), l.GetNumEventsLost()), style: yellow})
	}
	_, err := fmt.Fprintln(p.out, p.styled(yellow, text))
	return err
}
