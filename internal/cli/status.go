package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/escape"
)

func (e *env) status() *cobra.Command {
	var brief, wait, verbose bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether everything is well, and if not, what is wrong and how to mend it",
		Long: "Say whether everything is well, and if not, what is wrong and how to mend it.\n\n" +
			"On a machine without an agent but with a kubeconfig, and with --kubeconfig or --context, it is the cluster's status.\n" +
			"Exit code 0 when all is well, 1 when something is degraded or failed, or no agent answers.",
		Args: need(0, 0, ""),
	}
	f := cmd.Flags()
	f.BoolVar(&brief, "brief", false, "one line: ok, or what is wrong")
	f.BoolVar(&wait, "wait", false, "wait until all is well")
	f.DurationVar(&patience, "wait-duration", 5*time.Minute, "how long to --wait")
	f.BoolVarP(&verbose, "verbose", "v", false, "add the kernel maps and where things are")
	e.clusterFlags(cmd)
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c, err := e.ofCluster(cmd); c != nil || err != nil {
			switch {
			case err != nil:
				return err
			case !o.table():
				return usagef("the status of a cluster is text only")
			case !wait:
				patience = 0
			}
			return e.clusterStatus(cmd.Context(), c, patience)
		}
		var st *agentv1.StatusResponse
		var err error
		if wait {
			st, err = e.waitStatus(cmd.Context(), patience)
		} else {
			st, err = e.getStatus(cmd.Context())
		}
		if err != nil {
			return err
		}
		err = o.write(out.Proto{M: st}, func() error {
			var b strings.Builder
			if brief {
				b.WriteString(briefStatus(st) + "\n")
			} else {
				e.printStatus(&b, st, verbose)
			}
			_, err := io.WriteString(e.Stdout, b.String())
			return err
		})
		if err == nil && !well(st) {
			return silent{ExitFailed}
		}
		return err
	}
	return cmd
}

func (e *env) getStatus(ctx context.Context) (*agentv1.StatusResponse, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.Status(ctx, req(&agentv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// waitStatus asks until all is well. When patience ends it returns the last answer, or the last error.
func (e *env) waitStatus(ctx context.Context, patience time.Duration) (*agentv1.StatusResponse, error) {
	end, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var st *agentv1.StatusResponse
	var err error
	for {
		s, serr := e.getStatus(end)
		switch {
		case serr == nil && well(s):
			return s, nil
		case serr == nil:
			st, err = s, nil
		case end.Err() == nil:
			st, err = nil, serr
			if !worthWaiting(serr) {
				return nil, serr
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.Done():
			if st == nil && err == nil {
				err = fmt.Errorf("the agent did not answer within %s", patience)
			}
			return st, err
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// worthWaiting says whether the error may go away by itself: an agent that is not there yet.
func worthWaiting(err error) bool {
	var no *client.NoAgentError
	var down *client.Error
	return errors.As(err, &no) || errors.As(err, &down)
}

func well(st *agentv1.StatusResponse) bool {
	return st.GetState() == agentv1.Component_OK || st.GetState() == agentv1.Component_DISABLED
}

func briefStatus(st *agentv1.StatusResponse) string {
	if well(st) {
		return "ok"
	}
	word := "degraded"
	if st.GetState() == agentv1.Component_FAILURE {
		word = "failed"
	}
	var bad []string
	for _, c := range st.GetComponents() {
		if s := c.GetState(); s == agentv1.Component_WARNING || s == agentv1.Component_FAILURE {
			bad = append(bad, escape.Text(c.GetName()+": "+c.GetMessage()))
		}
	}
	if len(bad) == 0 {
		return word
	}
	return word + ": " + strings.Join(bad, "; ")
}

var stateText = map[agentv1.Component_State]out.Styled{
	agentv1.Component_OK:       {Text: "OK", Style: out.Green},
	agentv1.Component_WARNING:  {Text: "Warning", Style: out.Yellow},
	agentv1.Component_FAILURE:  {Text: "Failure", Style: out.Red},
	agentv1.Component_DISABLED: {Text: "Disabled", Style: out.Faint},
}

func (e *env) printStatus(w *strings.Builder, st *agentv1.StatusResponse, verbose bool) {
	t := out.NewTable(e.color)
	up := ""
	if s := st.GetStarted(); s.IsValid() {
		up = ", up " + age(time.Since(s.AsTime()))
	}
	t.Row("Node:", fmt.Sprintf("%s (cluster %s)%s", st.GetNodeName(), or(st.GetClusterName(), "default"), up))
	t.Row("Agent:", join("  ", st.GetVersion(), prefixed("kernel ", st.GetKernel())))
	t.Row("Addresses:", join("  ", strings.Join(st.GetAddresses(), ", "), prefixed("pods ", strings.Join(st.GetPodCidrs(), ", ")), prefixed("routing ", st.GetRoutingMode())))
	if kv := st.GetKvstore(); kv != "" {
		t.Row("KVStore:", kv)
	}
	t.Row("Endpoints:", fmt.Sprintf("%d, %d ready", st.GetEndpoints(), st.GetEndpointsReady()))
	t.Row("Cluster:", fmt.Sprintf("%s, %s", count(uint64(st.GetNodes()), "node"), count(uint64(st.GetIdentities()), "identity")))
	t.Row("Policy:", fmt.Sprintf("%s, revision %d", count(uint64(st.GetPolicies()), "policy"), st.GetPolicyRevision()))
	events := fmt.Sprintf("%d stored, %d lost", st.GetEventsStored(), st.GetEventsLost())
	if m := st.GetFlowsMax(); m > 0 {
		events += fmt.Sprintf("; flows %d of %d (%d%%)", st.GetFlowsCurrent(), m, st.GetFlowsCurrent()*100/m)
	}
	t.Row("Events:", events)
	_, _ = t.WriteTo(w) // a strings.Builder takes everything

	if len(st.GetComponents()) > 0 {
		w.WriteByte('\n')
		t = out.NewTable(e.color)
		for _, c := range st.GetComponents() {
			s, ok := stateText[c.GetState()]
			if !ok {
				s = out.Styled{Text: c.GetState().String(), Style: out.Yellow}
			}
			text := strings.Split(strings.TrimRight(c.GetMessage(), "\n"), "\n")
			if c.GetRemedy() != "" && c.GetState() != agentv1.Component_OK {
				text = append(text, "to mend: "+c.GetRemedy())
			}
			t.Row(c.GetName(), s, text)
		}
		_, _ = t.WriteTo(w)
	}
	if verbose {
		w.WriteString("\nState directory: " + escape.Text(st.GetStateDir()) + "\n")
		if len(st.GetMaps()) > 0 {
			w.WriteByte('\n')
			_, _ = e.mapTable(st.GetMaps()).WriteTo(w)
		}
	}
	w.WriteByte('\n')
	switch {
	case well(st):
		w.WriteString(e.color.Paint(out.Green, "Everything is well.") + "\n")
	default:
		word, style := "Degraded", out.Yellow
		if st.GetState() == agentv1.Component_FAILURE {
			word, style = "Failed", out.Red
		}
		w.WriteString(e.color.Paint(style, word+":") + " " + problems(st) + "\n")
	}
}

func problems(st *agentv1.StatusResponse) string {
	var fails, warns uint64
	for _, c := range st.GetComponents() {
		switch c.GetState() {
		case agentv1.Component_FAILURE:
			fails++
		case agentv1.Component_WARNING:
			warns++
		}
	}
	var parts []string
	if fails > 0 {
		parts = append(parts, count(fails, "failure"))
	}
	if warns > 0 {
		parts = append(parts, count(warns, "warning"))
	}
	if len(parts) == 0 {
		return "the agent does not say why; see its log"
	}
	return strings.Join(parts, ", ") + "; what to do stands above."
}
