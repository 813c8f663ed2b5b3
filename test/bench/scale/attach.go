package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/test/bench/page"
	"github.com/hypha-net/hypha/test/bench/stat"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// attachments are what attaching took, and of what that was made up.
type attachments struct {
	took  []time.Duration
	steps steps
}

// steps are the times between the entries of the endpoints' logs, by entry, in the order of their first appearance.
type steps struct {
	order []string
	took  map[string][]time.Duration
}

func (s *steps) add(what string, d time.Duration) {
	if s.took == nil {
		s.took = map[string][]time.Duration{}
	}
	if s.took[what] == nil {
		s.order = append(s.order, what)
	}
	s.took[what] = append(s.took[what], d)
}

func (s *steps) table(title string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | p50 | p99 |\n| --- | ---: | ---: |\n", title)
	for _, what := range s.order {
		x := stat.SpreadOf(s.took[what])
		fmt.Fprintf(&b, "| %s | %s | %s |\n", what, page.MS(x.P50), page.MS(x.P99))
	}
	return b.String() + "\n"
}

// attach makes a pod and attaches it, and times only the latter: from the start of the plugin to its end.
func (s *site) attach(ctx context.Context, spec cluster.PodSpec) (*cluster.Pod, time.Duration, error) {
	p, err := s.Prepare(spec)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	err = s.Attach(ctx, p)
	return p, time.Since(began), err
}

// pod is the i-th of the node's lasting workloads.
func (s *site) pod(i int) *cluster.Pod { return s.Pod(fmt.Sprintf("w%d", i)) }

// attach attaches and detaches workloads, on each site in turn.
func attach(ctx context.Context, o options, all []*outcome) error {
	for _, s := range all {
		s.profile(ctx, o, "attach", 8*time.Second)
	}
	for i := range o.attach {
		for _, s := range all {
			for _, x := range []struct {
				into   *attachments
				name   string
				labels []string
			}{
				{&s.replica, fmt.Sprintf("replica%d", i), []string{appLabel(i % workloads)}},
				{&s.fresh, fmt.Sprintf("fresh%d", i), []string{appLabel(i % workloads), fmt.Sprintf("unlike=%d", i)}},
			} {
				pod, took, err := s.attach(ctx, cluster.PodSpec{Name: x.name, Labels: x.labels})
				if err != nil {
					return err
				}
				x.into.took = append(x.into.took, took)
				if err := s.explain(ctx, pod, took, &x.into.steps); err != nil {
					return err
				}
				if err := s.Delete(ctx, pod); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

var detail = regexp.MustCompile(`(addresses|identity) .*`)

// explain reads the endpoint's log: what happened when, between its first entry and its last.
func (s *site) explain(ctx context.Context, pod *cluster.Pod, whole time.Duration, into *steps) error {
	eps, err := s.node.Endpoints(ctx)
	if err != nil {
		return err
	}
	for _, e := range eps {
		if e.GetName() != pod.Name {
			continue
		}
		resp, err := s.node.Reader().EndpointLog(ctx, connect.NewRequest(&agentv1.EndpointLogRequest{Id: e.GetId()}))
		if err != nil {
			return fmt.Errorf("read an endpoint's log: %s", client.Message(err))
		}
		log := resp.Msg.GetEntries()
		if len(log) < 2 {
			return fmt.Errorf("the log of endpoint %d has %d entries", e.GetId(), len(log))
		}
		first, last := log[0].GetTime().AsTime(), log[len(log)-1].GetTime().AsTime()
		into.add("the plugin: exec, call, answer", whole-last.Sub(first))
		for i, x := range log[1:] {
			into.add(detail.ReplaceAllString(x.GetMessage(), "$1"), x.GetTime().AsTime().Sub(log[i].GetTime().AsTime()))
		}
		return nil
	}
	return fmt.Errorf("the agent does not list pod %s", pod.Name)
}

// importOnly imports a policy and does not wait until it is in force.
func (s *site) importOnly(ctx context.Context, doc string) (uint64, error) {
	resp, err := s.node.Admin().ImportPolicy(ctx, connect.NewRequest(&agentv1.ImportPolicyRequest{Document: doc, Filename: "bench"}))
	if err != nil {
		return 0, fmt.Errorf("import policy: %s", client.Message(err))
	}
	return resp.Msg.GetRevision(), nil
}
