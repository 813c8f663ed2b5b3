// Package kube is a Kubernetes cluster as a place for connectivity tests: it deploys workloads through the API server, runs commands in
// their pods, and asks agents by commands in theirs.
package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/connectivity"
)

// Places of Hypha's in a cluster.
const (
	agentLabel     = "k8s-app=cilium"
	agentContainer = "cilium-agent"
	configMap      = "cilium-config"
	program        = "/usr/bin/hypha"
)

// Place is one cluster. It is a connectivity.Place.
type Place struct {
	name    string
	options connectivity.Options
	rest    *rest.Config
	api     kubernetes.Interface
	dyn     dynamic.Interface

	agents   []corev1.Pod // those that are ready
	deployed bool         // there may be something to remove

	mu      sync.Mutex
	applied []unstructured.Unstructured // policies
}

// New is the cluster behind a configuration; nothing is asked yet.
func New(cfg *rest.Config, name string, o connectivity.Options) (*Place, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout, cfg.QPS, cfg.Burst = 0, 100, 200 // commands in pods end by themselves
	api, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	return &Place{name: name, options: o, rest: cfg, api: api, dyn: dyn}, nil
}

// Name implements connectivity.Place.
func (p *Place) Name() string { return p.name }

// pod is where commands of a peer run.
type pod struct {
	namespace, name string
	netns           string // a network namespace of its own in there; "": the pod's
}

// Exec implements connectivity.Place.
func (p *Place) Exec(ctx context.Context, from *connectivity.Peer, args ...string) ([]byte, error) {
	at := from.Handle.(pod)
	argv := append([]string{program, "workload"}, args...)
	if at.netns != "" {
		argv = append(argv, "--netns", at.netns)
	}
	return p.exec(ctx, at.namespace, at.name, "", argv)
}

// ask runs a command of the command line beside each agent, all at the same time, and gives fn what it printed.
func (p *Place) ask(ctx context.Context, fn func(agent *corev1.Pod, out []byte) error, args ...string) error {
	return p.each(ctx, func(ctx context.Context, a *corev1.Pod) error {
		out, err := p.exec(ctx, a.Namespace, a.Name, agentContainer, append([]string{program}, args...))
		if err != nil {
			return err
		}
		return fn(a, out)
	})
}

// each does something for each agent, all at the same time.
func (p *Place) each(ctx context.Context, fn func(context.Context, *corev1.Pod) error) error {
	errs := make([]error, len(p.agents))
	var wg sync.WaitGroup
	for i := range p.agents {
		wg.Go(func() {
			if err := fn(ctx, &p.agents[i]); err != nil {
				errs[i] = fmt.Errorf("agent on %s: %w", p.agents[i].Spec.NodeName, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Drops implements connectivity.Place.
func (p *Place) Drops(ctx context.Context, since time.Duration) ([]*flowpb.Flow, error) {
	var mu sync.Mutex
	var all []*flowpb.Flow
	err := p.ask(ctx, func(_ *corev1.Pod, out []byte) error {
		flows, err := connectivity.ParseFlows(out)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, flows...)
		return err
	}, "observe", "--since", since.String(), "--verdict", "DROPPED", "-o", "jsonpb", "--silent-errors")
	return all, err
}

// findAgents notes those that are ready.
func (p *Place) findAgents(ctx context.Context) error {
	list, err := p.api.CoreV1().Pods(p.options.AgentNamespace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return fmt.Errorf("look for agents: %w", err)
	}
	for _, a := range list.Items {
		if ready(&a) {
			p.agents = append(p.agents, a)
		}
	}
	if len(p.agents) == 0 {
		return fmt.Errorf("no agent is ready in namespace %s: see `hypha status`, or name its --namespace", p.options.AgentNamespace)
	}
	return nil
}

func ready(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

var _ connectivity.Place = (*Place)(nil)
