package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Part is one program of the cluster's.
type Part struct {
	Name      string         // "Cilium"
	Kind      string         // "DaemonSet" or "Deployment"
	Object    string         // its name
	Installed bool           //
	Needed    bool           // without it nothing works
	Desired   int            // pods
	Ready     int            //
	Available int            //
	Updated   int            // of the version in force
	Phases    map[string]int // pods in each phase
	Images    map[string]int // containers of each image
	Errors    []string       // why it is not well
}

// Well says whether a part works as it should.
func (p *Part) Well() bool {
	if !p.Installed {
		return !p.Needed
	}
	return len(p.Errors) == 0
}

// State is how Hypha does in a cluster.
type State struct {
	Parts []Part
	Chart string // version of the chart, "" where none installed it
	Pods  Pods   // counted only when every part is well
}

// Well says whether every part is.
func (s *State) Well() bool {
	return !slices.ContainsFunc(s.Parts, func(p Part) bool { return !p.Well() })
}

// Status asks how every part does.
func (c *Cluster) Status(ctx context.Context) (State, error) {
	var s State
	var err error
	if s.Parts, s.Chart, err = c.parts(ctx); err == nil && s.Well() {
		s.Pods, err = c.workloads(ctx)
	}
	return s, err
}

func (c *Cluster) parts(ctx context.Context) (parts []Part, chart string, err error) {
	agent := Part{Name: "Cilium", Kind: "DaemonSet", Object: agents, Needed: true}
	d, err := c.api.AppsV1().DaemonSets(c.namespace).Get(ctx, agents, metav1.GetOptions{})
	if err == nil {
		agent.Installed, chart = true, strings.TrimPrefix(d.Labels["helm.sh/chart"], "cilium-")
		s := d.Status
		agent.Desired, agent.Ready, agent.Available, agent.Updated =
			int(s.DesiredNumberScheduled), int(s.NumberReady), int(s.NumberAvailable), int(s.UpdatedNumberScheduled)
		if s.ObservedGeneration < d.Generation {
			agent.Errors = append(agent.Errors, "the cluster has not looked at its newest version yet")
		}
		err = c.pods(ctx, &agent, d.Spec.Selector)
	} else if apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("look at %s: %w", agents, err)
	}
	parts = []Part{agent}
	for _, p := range []Part{
		{Name: "Operator", Object: operator, Needed: true}, {Name: "Hubble Relay", Object: relay}, {Name: "ClusterMesh", Object: mesh},
	} {
		p.Kind = "Deployment"
		d, err := c.api.AppsV1().Deployments(c.namespace).Get(ctx, p.Object, metav1.GetOptions{})
		if err == nil {
			err = c.deployment(ctx, &p, d)
		} else if apierrors.IsNotFound(err) {
			err = nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("look at %s: %w", p.Object, err)
		}
		parts = append(parts, p)
	}
	for i := range parts {
		parts[i].judge()
	}
	return parts, chart, nil
}

func (c *Cluster) deployment(ctx context.Context, p *Part, d *appsv1.Deployment) error {
	p.Installed, p.Desired = true, 1
	if d.Spec.Replicas != nil {
		p.Desired = int(*d.Spec.Replicas)
	}
	s := d.Status
	p.Ready, p.Available, p.Updated = int(s.ReadyReplicas), int(s.AvailableReplicas), int(s.UpdatedReplicas)
	if s.ObservedGeneration < d.Generation {
		p.Errors = append(p.Errors, "the cluster has not looked at its newest version yet")
	}
	return c.pods(ctx, p, d.Spec.Selector)
}

// judge adds what the counts say.
func (p *Part) judge() {
	switch {
	case !p.Installed:
		if p.Needed {
			p.Errors = append(p.Errors, fmt.Sprintf("%s %s is not there: install it with `hypha install`, or name its --namespace", strings.ToLower(p.Kind), p.Object))
		}
		return
	case p.Desired == 0:
		p.Errors = append(p.Errors, "no pod of it is wanted: no node fits it, or it has no replicas")
	case p.Ready < p.Desired:
		p.Errors = append(p.Errors, fmt.Sprintf("%d of %d pods are not ready", p.Desired-p.Ready, p.Desired))
	case p.Available < p.Desired:
		p.Errors = append(p.Errors, fmt.Sprintf("%d of %d pods are not available", p.Desired-p.Available, p.Desired))
	}
	if p.Updated < p.Desired {
		p.Errors = append(p.Errors, fmt.Sprintf("%d of %d pods are of an older version", p.Desired-p.Updated, p.Desired))
	}
}

// pods adds what pods say of themselves.
func (c *Cluster) pods(ctx context.Context, p *Part, selector *metav1.LabelSelector) error {
	list, err := c.api.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(selector)})
	if err != nil {
		return err
	}
	p.Phases, p.Images = map[string]int{}, map[string]int{}
	for _, pod := range list.Items {
		p.Phases[string(pod.Status.Phase)]++
		for _, container := range pod.Spec.Containers {
			p.Images[container.Image]++
		}
		p.Errors = append(p.Errors, complaints(&pod)...)
	}
	return nil
}

// complaints are why a pod does not run.
func complaints(pod *corev1.Pod) []string {
	var out []string
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			text := fmt.Sprintf("pod %s on %s: %s: %s", pod.Name, pod.Spec.NodeName, s.Name, w.Reason)
			if w.Message != "" {
				text += ": " + w.Message
			}
			if t := s.LastTerminationState.Terminated; t != nil && t.Message != "" {
				text += ": " + strings.TrimSpace(t.Message)
			}
			out = append(out, text)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			out = append(out, fmt.Sprintf("pod %s: %s: %s", pod.Name, c.Reason, c.Message))
		}
	}
	return out
}

// counts is "Running: 2, Pending: 1".
func counts(m map[string]int) string {
	out := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s: %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}
