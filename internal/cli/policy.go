package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

func (e *env) policy() *cobra.Command {
	c := group("policy", "Policies: who may talk to whom",
		e.policyImport(), e.policyGet(), e.policyDelete(), e.policyTrace(), e.policyValidate(), e.policySelectors(), e.policyWait())
	c.Aliases = []string{"policies"}
	return c
}

func (e *env) getPolicy(ctx context.Context, labels []string) (*agentv1.GetPolicyResponse, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	resp, err := r.GetPolicy(ctx, req(&agentv1.GetPolicyRequest{Labels: labels}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (e *env) policyGet() *cobra.Command {
	cmd := &cobra.Command{Use: "get [LABELS]", Short: "Show the imported policies, all or those that carry the labels", Args: need(0, -1, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		labels := split(args)
		p, err := e.getPolicy(cmd.Context(), labels)
		if err != nil {
			return notFound(err, "policy with the labels "+strings.Join(labels, ","), "hypha policy get")
		}
		rules := json.RawMessage(or(p.GetJson(), "[]"))
		v := out.Object{{Key: "policy", Value: rules}, {Key: "revision", Value: p.GetRevision()}, {Key: "count", Value: p.GetCount()}}
		if len(labels) > 0 && p.GetCount() == 0 {
			return fmt.Errorf("no policy carries the labels %s: `hypha policy get` shows what there is", strings.Join(labels, ","))
		}
		return o.write(v, func() error {
			if err := out.WriteJSON(e.Stdout, rules); err != nil {
				return err
			}
			_, err := fmt.Fprintf(e.Stdout, "Revision: %d\n", p.GetRevision())
			return err
		})
	}
	return cmd
}

func (e *env) policyDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete LABELS | --all", Aliases: []string{"rm"}, Short: "Delete policies by their labels, by name, or all", Args: need(0, -1, "")}
	r := &agentv1.DeletePolicyRequest{}
	var force bool
	cmd.Flags().BoolVar(&r.All, "all", false, "every policy")
	cmd.Flags().StringVar(&r.Name, "name", "", "the policy of this name, [namespace/]name")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Labels = split(args)
		ways := 0
		for _, given := range []bool{r.All, r.Name != "", len(r.Labels) > 0} {
			if given {
				ways++
			}
		}
		switch {
		case ways == 0:
			return &usageError{what: "policy delete needs the labels of the policies", hint: "hypha policy delete LABELS   or   hypha policy delete --all"}
		case ways > 1:
			return usagef("say which policies in one way: labels, --name or --all")
		case r.All && !force && e.StdinTTY:
			if !e.ask(cmd.Context(), "Delete every policy of the cluster?") {
				e.say("Nothing was deleted.")
				return silent{ExitFailed}
			}
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		resp, err := a.DeletePolicy(cmd.Context(), req(r))
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			return err
		}
		if err != nil || resp.Msg.GetCount() == 0 && !r.All {
			return fmt.Errorf("no policy carries %s, nothing was deleted: `hypha policy get` shows what there is", or(strings.Join(r.Labels, ","), "the name "+r.Name))
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			_, err := fmt.Fprintf(e.Stdout, "Revision: %d\n", resp.Msg.GetRevision())
			return err
		})
	}
	return cmd
}

func (e *env) policySelectors() *cobra.Command {
	cmd := &cobra.Command{Use: "selectors", Short: "List the selectors of the policies and the identities they match now", Args: need(0, 0, "")}
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := e.reader()
		if err != nil {
			return err
		}
		resp, err := r.ListSelectors(cmd.Context(), req(&agentv1.ListSelectorsRequest{}))
		if err != nil {
			return err
		}
		sels := resp.Msg.GetSelectors()
		return o.list(out.List(sels), "No policy is imported, so there is no selector.", []string{"SELECTOR", "LABELS", "USERS", "IDENTITIES"}, func(t *out.Table) {
			for _, s := range sels {
				ids := make([]string, len(s.GetIdentities()))
				for i, id := range s.GetIdentities() {
					ids[i] = number(id)
				}
				t.Row(s.GetSelector(), s.GetPolicies(), number(s.GetUsers()), ids)
			}
		})
	}
	return cmd
}

func (e *env) policyWait() *cobra.Command {
	cmd := &cobra.Command{Use: "wait [REVISION]", Short: "Wait until every endpoint enforces a policy revision, the newest if none is named", Args: need(0, 1, "")}
	patience := seconds(6 * time.Minute)
	cmd.Flags().Var(&patience, "max-wait-time", "how long to wait; a plain number is seconds")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var rev uint64
		if len(args) > 0 {
			if _, err := fmt.Sscanf(args[0]+" ", "%d ", &rev); err != nil || fmt.Sprint(rev) != args[0] {
				return usagef("%q is no revision: want the number that `policy import` printed", args[0])
			}
		} else {
			p, err := e.getPolicy(cmd.Context(), nil)
			if err != nil {
				return err
			}
			rev = p.GetRevision()
		}
		r, err := e.reader()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Duration(patience))
		defer cancel()
		resp, err := r.WaitPolicy(ctx, req(&agentv1.WaitPolicyRequest{Revision: rev}))
		if err != nil {
			if connect.CodeOf(err) == connect.CodeDeadlineExceeded && cmd.Context().Err() == nil {
				if p, err := e.getPolicy(cmd.Context(), nil); err == nil && p.GetRevision() < rev {
					return fmt.Errorf("revision %d has not come within %s: the newest is %d", rev, &patience, p.GetRevision())
				}
				return fmt.Errorf("revision %d is not in force after %s: `hypha endpoint list` shows which endpoints are not ready", rev, &patience)
			}
			return err
		}
		return o.write(out.Proto{M: resp.Msg}, func() error {
			_, err := fmt.Fprintf(e.Stdout, "Revision: %d\n", resp.Msg.GetRevision())
			return err
		})
	}
	return cmd
}
