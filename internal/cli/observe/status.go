package observe

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	observerpb "github.com/hypha-net/hypha/api/observer"
)

// each asks all servers the same thing, one after the other. A server found by looking around that does not answer is
// warned about; an error is returned if a named one does not answer, or none does.
func (e *env) each(c *cobra.Command, ask func(context.Context, *server) error) (answered int, err error) {
	ts, err := e.targets()
	if err != nil {
		return 0, err
	}
	var last error
	for _, t := range ts {
		e.note(c, "asking %s", t.name)
		ctx, cancel := context.WithTimeout(c.Context(), e.requestTimeout)
		s := t.connect(e.timeout)
		err := ask(ctx, s)
		cancel()
		s.close()
		if err == nil {
			answered++
			continue
		}
		last = t.fail(err)
		if t.found && len(ts) > 1 {
			fmt.Fprintf(c.ErrOrStderr(), "Warning: %s\n", last)
		}
	}
	if answered == 0 {
		return 0, last
	}
	return answered, nil
}

func (e *env) status() *cobra.Command {
	out := "compact"
	c := &cobra.Command{Use: "status", Short: "Say whether flows are being seen, and how many"}
	c.Flags().VarP(&choice{&out, formats}, "output", "o", strings.Join(formats, " | "))
	return e.leaf(c, nil, func(c *cobra.Command, _ []string) error {
		sum := &observerpb.ServerStatusResponse{}
		var names []string
		var nodes, away uint32
		answered, err := e.each(c, func(ctx context.Context, s *server) error {
			h, err := s.health.CallUnary(ctx, connect.NewRequest(&healthpb.HealthCheckRequest{}))
			if err != nil {
				return err
			}
			if st := h.Msg.GetStatus(); st != healthpb.HealthCheckResponse_SERVING {
				return fmt.Errorf("not healthy: %s", st)
			}
			r, err := s.observer.ServerStatus(ctx, connect.NewRequest(&observerpb.ServerStatusRequest{}))
			if err != nil {
				return err
			}
			names = append(names, s.name)
			add(sum, r.Msg)
			if n := r.Msg.GetNumConnectedNodes(); n != nil {
				nodes += n.GetValue()
				away += r.Msg.GetNumUnavailableNodes().GetValue()
			} else {
				nodes++
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("healthcheck failed: %w", err)
		}
		if sum.Version == "" || answered > 1 && sum.NumConnectedNodes == nil {
			sum.NumConnectedNodes, sum.NumUnavailableNodes = wrapperspb.UInt32(nodes), wrapperspb.UInt32(away)
		}
		return writeStatus(c.OutOrStdout(), out, names, sum, nodes, away)
	})
}

// add adds up what servers say; the uptime is the longest.
func add(sum, r *observerpb.ServerStatusResponse) {
	sum.NumFlows += r.GetNumFlows()
	sum.MaxFlows += r.GetMaxFlows()
	sum.SeenFlows += r.GetSeenFlows()
	sum.FlowsRate += r.GetFlowsRate()
	sum.UptimeNs = max(sum.UptimeNs, r.GetUptimeNs())
	sum.UnavailableNodes = append(sum.UnavailableNodes, r.GetUnavailableNodes()...)
	sum.Version = r.GetVersion()
	if n := r.GetNumConnectedNodes(); n != nil {
		sum.NumConnectedNodes = wrapperspb.UInt32(sum.GetNumConnectedNodes().GetValue() + n.GetValue())
		sum.NumUnavailableNodes = wrapperspb.UInt32(sum.GetNumUnavailableNodes().GetValue() + r.GetNumUnavailableNodes().GetValue())
	}
}

func writeStatus(w io.Writer, format string, names []string, s *observerpb.ServerStatusResponse, nodes, away uint32) error {
	if format == "json" || format == "jsonpb" {
		return (&printer{out: w}).json(s)
	}
	current := fmt.Sprintf("%s/%s", thousands(s.GetNumFlows()), thousands(s.GetMaxFlows()))
	if s.GetMaxFlows() > 0 {
		current += fmt.Sprintf(" (%.2f%%)", 100*float64(s.GetNumFlows())/float64(s.GetMaxFlows()))
	}
	connected := fmt.Sprintf("%d/%d", nodes, nodes+away)
	if format == "dict" || format == "table" {
		t := tabwriter.NewWriter(w, 2, 0, 3, ' ', 0)
		fmt.Fprintf(t, "Healthcheck:\tOk (%s)\nCurrent/Max Flows:\t%s\nSeen Flows:\t%s\nFlows/s:\t%.2f\nUptime:\t%s\nConnected Nodes:\t%s\nVersion:\t%s\n",
			strings.Join(names, ", "), current, thousands(s.GetSeenFlows()), s.GetFlowsRate(), uptime(s), connected, s.GetVersion())
		return t.Flush()
	}
	_, err := fmt.Fprintf(w, "Healthcheck (via %s): Ok\nCurrent/Max Flows: %s\nFlows/s: %.2f\nConnected Nodes: %s\n",
		strings.Join(names, ", "), current, s.GetFlowsRate(), connected)
	if err == nil && len(s.GetUnavailableNodes()) > 0 {
		_, err = fmt.Fprintf(w, "Unavailable Nodes: %d\n  - %s\n", away, strings.Join(s.GetUnavailableNodes(), "\n  - "))
	}
	return err
}

func uptime(s interface{ GetUptimeNs() uint64 }) string {
	return time.Duration(s.GetUptimeNs()).Round(time.Second).String()
}

// thousands writes 4095 as 4,095.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
