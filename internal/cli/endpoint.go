package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) endpoint() *cobra.Command {
	c := group("endpoint", "The workloads of this node",
		e.endpointList(), e.endpointGet(), e.endpointLabels(), e.endpointConfig(), e.endpointHealth(), e.endpointLog())
	c.Aliases = []string{"ep", "endpoints"}
	return c
}

// endpoints asks for the endpoints that a selector names; one, if it names one, else an error.
func (e *env) endpoints(ctx context.Context, selector string) ([]*agentv1.Endpoint, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.ListEndpoints(ctx, req(&agentv1.ListEndpointsRequest{Selector: selector}))
	if err != nil {
		return nil, notFound(refused(err), "endpoint "+strconv.Quote(selector), "hypha endpoint list")
	}
	if selector != "" && len(resp.Msg.GetEndpoints()) == 0 {
		return nil, fmt.Errorf("there is no endpoint %q: `hypha endpoint list` shows what there is", selector)
	}
	return resp.Msg.GetEndpoints(), nil
}

// endpointID is the number of the one endpoint that a selector names.
func (e *env) endpointID(ctx context.Context, selector string) (*agentv1.Endpoint, error) {
	eps, err := e.endpoints(ctx, selector)
	if err != nil {
		return nil, err
	}
	if len(eps) > 1 {
		ids := make([]string, len(eps))
		for i, ep := range eps {
			ids[i] = strconv.FormatUint(uint64(ep.GetId()), 10)
		}
		return nil, fmt.Errorf("%q names several endpoints (%s): name one by its number", selector, strings.Join(ids, ", "))
	}
	return eps[0], nil
}

const selectorHelp = "An endpoint is named by its number, or as ipv4:ADDR, ipv6:ADDR, pod-name:[NS/]NAME, container-id:ID,\n" +
	"container-name:NAME or cni-attachment-id:ID:IF."

func (e *env) endpointList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the endpoints of this node", Args: need(0, 0, "")}
	noHeaders := cmd.Flags().Bool("no-headers", false, "leave the column heads out")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		eps, err := e.endpoints(cmd.Context(), "")
		if err != nil {
			return err
		}
		head := []string{"ENDPOINT", "POLICY (ingress)\nENFORCEMENT", "POLICY (egress)\nENFORCEMENT", "IDENTITY",
			"LABELS (source:key[=value])", "IPv6", "IPv4", "STATUS"}
		if *noHeaders {
			head = nil
		}
		return o.list(out.List(eps), "No workload is attached to this node.", head, func(t *out.Table) {
			for _, ep := range eps {
				t.Row(number(ep.GetId()), enforcement(ep, ep.GetIngressEnforced()), enforcement(ep, ep.GetEgressEnforced()),
					number(ep.GetIdentity()), ep.GetLabels(), ep.GetIpv6(), ep.GetIpv4(), epState(ep))
			}
		})
	}
	return cmd
}

func number[N ~uint32 | ~uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }

func enforcement(ep *agentv1.Endpoint, enforced bool) string {
	switch {
	case enforced && ep.GetAudit():
		return "Disabled (Audit)"
	case enforced:
		return "Enabled"
	}
	return "Disabled"
}

func epState(ep *agentv1.Endpoint) out.Styled {
	style := out.Yellow
	if ep.GetState() == "ready" {
		style = out.Green
	}
	return out.Styled{Text: ep.GetState(), Style: style}
}

func (e *env) endpointGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ENDPOINT", Short: "Show everything about an endpoint",
		Long: "Show everything about an endpoint.\n\n" + selectorHelp, Args: need(0, 1, "one endpoint"), ValidArgsFunction: e.completeEndpoint}
	var labels []string
	cmd.Flags().StringSliceVarP(&labels, "labels", "l", nil, "the endpoints that carry all these labels")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var eps []*agentv1.Endpoint
		var err error
		switch {
		case len(args) == 0 && len(labels) == 0:
			return &usageError{what: "endpoint get needs an endpoint", hint: "hypha endpoint get ID   (hypha endpoint list shows the IDs)"}
		case len(args) > 0 && len(labels) > 0:
			return usagef("name an endpoint or labels, not both")
		case len(labels) > 0:
			eps, err = e.endpoints(cmd.Context(), "")
			eps = withLabels(eps, labels)
			if err == nil && len(eps) == 0 {
				err = fmt.Errorf("no endpoint carries the labels %s: `hypha endpoint list` shows what there is", strings.Join(labels, ","))
			}
		default:
			eps, err = e.endpoints(cmd.Context(), args[0])
		}
		if err != nil {
			return err
		}
		return o.write(out.List(eps), func() error {
			for i, ep := range eps {
				if i > 0 {
					fmt.Fprintln(e.Stdout)
				}
				if err := e.printEndpoint(ep); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func withLabels(eps []*agentv1.Endpoint, want []string) []*agentv1.Endpoint {
	var got []*agentv1.Endpoint
	for _, ep := range eps {
		if hasLabels(ep.GetLabels(), want) {
			got = append(got, ep)
		}
	}
	return got
}

// hasLabels says whether all wanted labels are there; one without a source means any source.
func hasLabels(have, want []string) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			_, bare, _ := strings.Cut(h, ":")
			found = found || h == w || bare == w || "any:"+bare == w
		}
		if !found {
			return false
		}
	}
	return true
}

func (e *env) printEndpoint(ep *agentv1.Endpoint) error {
	t := out.NewTable(e.color)
	row := func(name, value string) {
		if value != "" {
			t.Row(name, value)
		}
	}
	row("Endpoint:", number(ep.GetId()))
	row("Name:", join("/", ep.GetNamespace(), ep.GetName()))
	t.Row("State:", epState(ep))
	row("Identity:", number(ep.GetIdentity()))
	t.Row("Labels:", ep.GetLabels())
	row("IPv4:", ep.GetIpv4())
	row("IPv6:", ep.GetIpv6())
	row("MAC:", ep.GetMac())
	row("Interface:", join(" <-> ", ep.GetInterface(), ep.GetHostInterface()))
	row("Namespace:", ep.GetNetns())
	row("Container:", ep.GetContainerId())
	row("Policy (ingress):", enforcement(ep, ep.GetIngressEnforced()))
	row("Policy (egress):", enforcement(ep, ep.GetEgressEnforced()))
	row("Policy revision:", number(ep.GetPolicyRevision()))
	row("Policy set:", number(ep.GetPolicySet()))
	var ports []string
	for _, p := range ep.GetNamedPorts() {
		ports = append(ports, fmt.Sprintf("%s %d/%s", p.GetName(), p.GetPort(), p.GetProtocol()))
	}
	if len(ports) > 0 {
		t.Row("Named ports:", ports)
	}
	if c := ep.GetCreated(); c.IsValid() {
		row("Created:", c.AsTime().Local().Format("2006-01-02 15:04:05"))
	}
	_, err := t.WriteTo(e.Stdout)
	return err
}

// completeEndpoint offers the numbers of the endpoints.
func (e *env) completeEndpoint(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	eps, err := e.endpoints(cmd.Context(), "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, ep := range eps {
		ids = append(ids, number(ep.GetId())+"\t"+join("/", ep.GetNamespace(), ep.GetName()))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
