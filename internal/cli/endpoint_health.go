package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

// health is what endpoint health found, as JSON names it.
type health struct {
	ID        uint32 `json:"id"`
	Overall   string `json:"overallHealth"`
	Datapath  string `json:"bpf"`
	Policy    string `json:"policy"`
	Connected bool   `json:"connected"`
}

// judge reads an endpoint's health off its state and the policy revision it enforces.
func judge(ep *agentv1.Endpoint, revision uint64) health {
	h := health{ID: ep.GetId(), Overall: "OK", Datapath: "OK", Policy: "OK", Connected: true}
	switch ep.GetState() {
	case "ready":
	case "waiting-for-identity", "regenerating":
		h.Overall, h.Datapath = "Pending", "Pending"
	case "disconnected":
		h.Overall, h.Datapath, h.Connected = "Disabled", "Disabled", false
	default:
		h.Overall, h.Datapath = "Failure", "Failure"
	}
	if h.Connected && ep.GetPolicyRevision() < revision {
		h.Policy = fmt.Sprintf("Pending (revision %d of %d)", ep.GetPolicyRevision(), revision)
		if h.Overall == "OK" {
			h.Overall = "Pending"
		}
	}
	return h
}

func (e *env) endpointHealth() *cobra.Command {
	cmd := &cobra.Command{Use: "health ENDPOINT", Short: "Say whether an endpoint is ready and enforces the newest policy",
		Long: "Say whether an endpoint is ready and enforces the newest policy. Exit code 1 when not.\n\n" + selectorHelp,
		Args: need(1, 1, "an endpoint: hypha endpoint health ID"), ValidArgsFunction: e.completeEndpoint}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ep, err := e.endpointID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		st, err := e.getStatus(cmd.Context())
		if err != nil {
			return err
		}
		h := judge(ep, st.GetPolicyRevision())
		err = o.write(h, func() error {
			t := out.NewTable(e.color)
			t.Row("Overall Health:", h.Overall)
			t.Row("BPF Health:", h.Datapath)
			t.Row("Policy Health:", h.Policy)
			t.Row("Connected:", map[bool]string{true: "yes", false: "no"}[h.Connected])
			_, err := t.WriteTo(e.Stdout)
			return err
		})
		if err == nil && h.Overall != "OK" {
			return silent{ExitFailed}
		}
		return err
	}
	return cmd
}

func (e *env) endpointLog() *cobra.Command {
	cmd := &cobra.Command{Use: "log ENDPOINT", Short: "Show what happened to an endpoint",
		Long: "Show what happened to an endpoint, oldest first.\n\n" + selectorHelp,
		Args: need(1, 1, "an endpoint: hypha endpoint log ID"), ValidArgsFunction: e.completeEndpoint}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ep, err := e.endpointID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		r, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := r.EndpointLog(cmd.Context(), req(&agentv1.EndpointLogRequest{Id: ep.GetId()}))
		if err != nil {
			return err
		}
		log := resp.Msg.GetEntries()
		return o.list(out.List(log), "Nothing is recorded about this endpoint.", []string{"Timestamp", "Status", "State", "Message"}, func(t *out.Table) {
			for _, l := range log {
				t.Row(l.GetTime().AsTime().Local().Format("2006-01-02T15:04:05.000Z07:00"), l.GetCode(), l.GetState(), l.GetMessage())
			}
		})
	}
	return cmd
}
