package cli

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) service() *cobra.Command {
	c := group("service", "Services: one address for many backends", e.serviceList(), e.serviceGet(), e.serviceUpdate(), e.serviceDelete())
	c.Aliases = []string{"services", "svc"}
	return c
}

func (e *env) serviceList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the services of the cluster and their backends", Args: need(0, 0, "")}
	affinity := cmd.Flags().Bool("clustermesh-affinity", false, "not supported yet: there are no services of other clusters")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *affinity {
			return &usageError{what: "--clustermesh-affinity is not supported yet: there are no services of other clusters", hint: cmd.CommandPath()}
		}
		r, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := r.ListServices(cmd.Context(), req(&agentv1.ListServicesRequest{}))
		if err != nil {
			return err
		}
		all := resp.Msg.GetServices()
		err = o.list(out.List(all), "There is no service: `hypha service update` makes one.", []string{"ID", "Frontend", "Service Type", "Backend"}, func(t *out.Table) {
			for _, s := range all {
				t.Row(number(s.GetId()), frontendText(s.GetFrontend()), s.GetType(), backendTexts(s))
			}
		})
		if err == nil && o.table() {
			for _, s := range all {
				e.sayRefused(s)
			}
		}
		return err
	}
	return cmd
}

func (e *env) sayRefused(s *agentv1.Service) {
	if s.GetRefused() != "" {
		e.say("Service %d is not served here: %s", s.GetId(), lines(s.GetRefused()))
	}
}

// endText is address:port/PROTOCOL.
func endText(ip string, port uint32, protocol string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		ip = "[" + ip + "]"
	}
	return fmt.Sprintf("%s:%d/%s", ip, port, protocol)
}

func frontendText(f *agentv1.Frontend) string {
	text := endText(f.GetIp(), f.GetPort(), f.GetProtocol())
	if f.GetScope() == "internal" {
		text += "/i"
	}
	return text
}

func backendTexts(s *agentv1.Service) []string {
	ls := make([]string, len(s.GetBackends()))
	for i, b := range s.GetBackends() {
		ls[i] = fmt.Sprintf("%d => %s (%s)", i+1, endText(b.GetIp(), b.GetPort(), b.GetProtocol()), b.GetState())
	}
	return ls
}

// serviceID reads a service's number.
func serviceID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, &usageError{what: fmt.Sprintf("%q is no service: want its number", s), hint: "hypha service list"}
	}
	return uint32(n), nil
}

func (e *env) getService(cmd *cobra.Command, id uint32) (*agentv1.Service, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.GetService(cmd.Context(), req(&agentv1.GetServiceRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetService(), nil
}

func (e *env) serviceGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get ID", Short: "Show a service", Args: need(1, 1, "the number of a service: hypha service get ID")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := serviceID(args[0])
		if err != nil {
			return err
		}
		s, err := e.getService(cmd, id)
		if err != nil {
			return notFound(err, "service "+args[0], "hypha service list")
		}
		return o.write(out.Proto{M: s}, func() error {
			t := out.NewTable(e.color)
			t.Row("ID:", number(s.GetId()))
			row := func(head, text string) {
				if text != "" {
					t.Row(head, text)
				}
			}
			row("Name:", join("/", s.GetNamespace(), s.GetName()))
			row("Frontend:", frontendText(s.GetFrontend()))
			row("Type:", s.GetType())
			row("Traffic:", "external "+s.GetExternalTrafficPolicy()+", internal "+s.GetInternalTrafficPolicy())
			if n := s.GetAffinitySeconds(); n > 0 {
				row("Affinity:", (time.Duration(n) * time.Second).String())
			}
			if p := s.GetHealthCheckNodePort(); p > 0 {
				row("Health check:", "node port "+number(p))
			}
			row("Source ranges:", join(" ", s.GetSourceRangesPolicy(), strings.Join(s.GetSourceRanges(), ", ")))
			row("Selection:", s.GetSelection())
			row("Distribution:", s.GetTrafficDistribution())
			if s.GetSource() == "file" {
				row("From:", "the services file of node "+s.GetSourceNode())
			}
			ls := backendTexts(s)
			for i, b := range s.GetBackends() {
				if b.GetWeight() > 0 {
					ls[i] += ", weight " + number(b.GetWeight())
				}
				ls[i] += prefixed(", node ", b.GetNode()) + prefixed(", zone ", b.GetZone()) + prefixed(", for zone ", strings.Join(b.GetHints(), " and "))
			}
			if len(ls) == 0 {
				ls = []string{"none"}
			}
			t.Row("Backends:", ls)
			_, err := t.WriteTo(e.Stdout)
			e.sayRefused(s)
			return err
		})
	}
	return cmd
}

func (e *env) serviceDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete ID | --all", Aliases: []string{"rm"}, Short: "Delete a service, or all", Args: need(0, 1, "")}
	var all, force bool
	cmd.Flags().BoolVar(&all, "all", false, "every service but those that come from a node's services file")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) == !all {
			return &usageError{what: "service delete needs the number of one service, or --all", hint: "hypha service delete ID   or   hypha service delete --all"}
		}
		r := &agentv1.DeleteServiceRequest{All: all}
		if !all {
			id, err := serviceID(args[0])
			if err != nil {
				return err
			}
			r.Id = id
		}
		if all && !force && e.StdinTTY && !e.ask(cmd.Context(), "Delete every service of the cluster?") {
			e.say("Nothing was deleted.")
			return silent{ExitFailed}
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.DeleteService(cmd.Context(), req(r))
		if err != nil {
			return notFound(err, fmt.Sprintf("service %d", r.GetId()), "hypha service list")
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			if !all {
				_, err := fmt.Fprintf(e.Stdout, "Service %d deleted successfully\n", r.GetId())
				return err
			}
			if n := resp.Msg.GetKept(); n > 0 {
				e.say("%s from services files stay: change those files.", count(uint64(n), "service"))
			}
			_, err := fmt.Fprintf(e.Stdout, "Deleted: %s\n", count(uint64(resp.Msg.GetCount()), "service"))
			return err
		})
	}
	return cmd
}

// unchanged adds that nothing has changed where the agent refuses a change.
func unchanged(err error) error {
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeAlreadyExists, connect.CodePermissionDenied, connect.CodeAborted, connect.CodeNotFound, connect.CodeResourceExhausted:
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return err
}
