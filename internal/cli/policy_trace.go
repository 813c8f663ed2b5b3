package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/escape"
)

const traceExample = "hypha policy trace --from id=app2 --to id=app1 --port 80"

func (e *env) policyTrace() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace [SOURCE DESTINATION]",
		Short: "Say whether A may reach B on a port, and which rule decides",
		Long: "Say whether A may reach B on a port, and which rule decides, from the same compiled policy as the datapath's.\n\n" +
			"An end is a workload ([namespace/]name), an address, labels (id=app1,team=x or reserved:world), identity:N or\n" +
			"endpoint:N. Labels need not belong to anything that exists; without a namespace they are of default.",
		Example: "  hypha policy trace app2 app1 --port 80\n  " + traceExample + " -v\n" +
			"  hypha policy trace --src-identity 2 -d id=app1 --dport 53/udp",
		Args: need(0, 2, "two ends"),
	}
	var src, dst peerFlags
	var ports, dports []string
	var proto string
	var verbose bool
	f := cmd.Flags()
	end := func(p *peerFlags, long, short, word, what string) {
		f.StringVar(&p.any, word, "", "the "+what+", in any of the ways")
		f.StringSliceVarP(&p.labels, long, short, nil, "labels of the "+what+", [source:]key[=value]")
		f.StringVar(&p.identity, long+"-identity", "", "identity of the "+what)
		f.StringVar(&p.endpoint, long+"-endpoint", "", "endpoint number of the "+what)
		f.StringVar(&p.pod, long+"-k8s-pod", "", "workload, [namespace:]name, of the "+what)
		f.StringVar(&p.ip, long+"-ip", "", "address of the "+what)
	}
	end(&src, "src", "s", "from", "source")
	end(&dst, "dst", "d", "to", "destination")
	f.StringSliceVar(&dports, "dport", nil, "destination ports: 80, 80/tcp, a name, or an ICMP type as 8/icmp")
	f.StringSliceVar(&ports, "port", nil, "the same as --dport")
	f.StringVar(&proto, "protocol", "", "protocol of ports written without one (default tcp)")
	f.BoolVarP(&verbose, "verbose", "v", false, "show each step of the judgement")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if !src.named() {
				src.any, args = args[0], args[1:]
			}
			if len(args) > 0 && !dst.named() {
				dst.any, args = args[0], args[1:]
			}
			if len(args) > 0 {
				return usagef("%q is one end too many: the source and the destination are named already", args[0])
			}
		}
		from, err := src.peer("source", traceExample)
		if err != nil {
			return err
		}
		to, err := dst.peer("destination", traceExample)
		if err != nil {
			return err
		}
		asked, err := parsePorts(append(dports, ports...), proto)
		if err != nil {
			return err
		}
		return e.trace(cmd, o, from, to, asked, verbose)
	}
	return cmd
}

func parsePorts(ports []string, proto string) ([]port, error) {
	if len(ports) == 0 {
		if p, ok := protocols[strings.ToLower(proto)]; ok && strings.HasPrefix(p, "ICMP") {
			ports = []string{proto}
		} else {
			return nil, &usageError{what: "policy trace needs a port", hint: traceExample}
		}
	}
	out := make([]port, 0, len(ports))
	for _, s := range ports {
		p, err := parsePort(s, proto)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (e *env) trace(cmd *cobra.Command, o *output, from, to *agentv1.Peer, ports []port, verbose bool) error {
	r, err := e.reader()
	if err != nil {
		return err
	}
	answers := make([]*agentv1.TracePolicyResponse, 0, len(ports))
	for _, p := range ports {
		resp, err := r.TracePolicy(cmd.Context(), req(&agentv1.TracePolicyRequest{
			Source: from, Destination: to, Protocol: p.proto, Port: p.number, PortName: p.name}))
		if err != nil {
			return err
		}
		answers = append(answers, resp.Msg)
	}
	var v any = out.List(answers)
	if len(answers) == 1 {
		v = out.Proto{M: answers[0]}
	}
	return o.write(v, func() error {
		var b strings.Builder
		for i, a := range answers {
			if i > 0 {
				b.WriteByte('\n')
			}
			e.printTrace(&b, from, to, ports[i], a, verbose)
		}
		_, err := fmt.Fprint(e.Stdout, b.String())
		return err
	})
}

func (e *env) printTrace(b *strings.Builder, from, to *agentv1.Peer, p port, a *agentv1.TracePolicyResponse, verbose bool) {
	t := out.NewTable(e.color)
	t.Row("From:", peerText(from, a.GetSourceLabels()))
	t.Row("To:", peerText(to, a.GetDestinationLabels()))
	t.Row("Port:", p.String())
	_, _ = t.WriteTo(b) // a strings.Builder takes everything
	b.WriteByte('\n')
	e.printVerdict(b, "Egress", a.GetEgress(), verbose)
	e.printVerdict(b, "Ingress", a.GetIngress(), verbose)
	fmt.Fprintf(b, "\nFinal verdict: %s   (policy revision %d)\n",
		e.color.Paint(verdictStyle(a.GetVerdict()), strings.ToUpper(escape.Text(a.GetVerdict()))), a.GetRevision())
}

func verdictStyle(v string) out.Style {
	switch v {
	case "allowed", "redirected":
		return out.Green
	case "audit":
		return out.Yellow
	}
	return out.Red
}

// printVerdict writes one direction: the verdict, the rule behind it and, if wanted, the steps.
func (e *env) printVerdict(b *strings.Builder, dir string, v *agentv1.TraceVerdict, verbose bool) {
	head := fmt.Sprintf("%-9s", dir+":")
	if v == nil {
		b.WriteString(head + "not asked: the policy of that end is not this cluster's\n")
		return
	}
	b.WriteString(head + e.color.Paint(verdictStyle(v.GetVerdict()), escape.Text(v.GetVerdict())))
	why := v.GetRuleText()
	if s := v.GetSection(); s != "" && !strings.Contains(why, s) {
		why = join(" ", why, s)
	}
	if why != "" {
		b.WriteString(": " + escape.Text(why))
	}
	if v.GetRule() != 0 {
		fmt.Fprintf(b, "   (rule %d)", v.GetRule())
	}
	b.WriteByte('\n')
	pad := strings.Repeat(" ", len(head))
	var unnamed []string // policies that the rule's text does not name
	for _, p := range v.GetPolicies() {
		if !strings.Contains(why, p) {
			unnamed = append(unnamed, p)
		}
	}
	if len(unnamed) > 0 {
		b.WriteString(pad + "of " + escape.Text(strings.Join(unnamed, ", ")) + "\n")
	}
	if verbose {
		for _, l := range v.GetLog() {
			b.WriteString(pad + "- " + escape.Text(l) + "\n")
		}
	}
}

func peerText(p *agentv1.Peer, labels []string) string {
	name := ""
	switch {
	case p.GetIdentity() != 0:
		name = "identity " + number(p.GetIdentity())
	case p.GetEndpoint() != 0:
		name = "endpoint " + number(p.GetEndpoint())
	case p.GetIp() != "":
		name = p.GetIp()
	case p.GetPod() != "":
		name = p.GetPod()
	}
	ls := strings.Join(labels, " ")
	if ls == "" {
		ls = strings.Join(p.GetLabels(), " ")
	}
	if name == "" || ls == "" {
		return name + ls
	}
	return name + " [" + ls + "]"
}
