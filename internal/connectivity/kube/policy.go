package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/hypha-net/hypha/internal/connectivity"
)

const (
	uidLabel     = "io.cilium.k8s.policy.uid"
	ownLabel     = "connectivity" // on what has no namespace: whose it is
	kindGroup    = "CiliumCIDRGroup"
	policyTime   = time.Minute // until agents have heard of a policy and enforce it
	policyPeriod = 200 * time.Millisecond
)

// policies is what an agent says it has.
type policies struct {
	Policy []struct {
		Labels []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"labels"`
	} `json:"policy"`
	Revision json.Number `json:"revision"`
}

func (s *policies) has(uid string) bool {
	for _, r := range s.Policy {
		for _, l := range r.Labels {
			if l.Key == uidLabel && l.Value == uid {
				return true
			}
		}
	}
	return false
}

// Apply implements connectivity.Place. Groups of prefixes come first, for an agent hears of each kind by itself.
func (p *Place) Apply(ctx context.Context, docs []connectivity.Document) error {
	var groups, rest []connectivity.Document
	for _, d := range docs {
		if d.Kind == kindGroup {
			groups = append(groups, d)
		} else {
			rest = append(rest, d)
		}
	}
	if len(groups) > 0 {
		before, err := p.revisions(ctx)
		if err != nil {
			return err
		}
		if _, err := p.create(ctx, groups); err != nil {
			return err
		}
		if err := p.settle(ctx, "the group of prefixes has not come", func(a *corev1.Pod, s *policies) bool { return revision(s) > before[a.Name] }); err != nil {
			return err
		}
	}
	made, err := p.create(ctx, rest)
	if err != nil {
		return err
	}
	err = p.settle(ctx, "policies have not come", func(_ *corev1.Pod, s *policies) bool {
		for _, o := range made {
			if !s.has(string(o.GetUID())) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return errors.Join(err, p.invalid(ctx, made))
	}
	return nil
}

func (p *Place) create(ctx context.Context, docs []connectivity.Document) ([]unstructured.Unstructured, error) {
	var made []unstructured.Unstructured
	for _, d := range docs {
		r := p.resource(d.Kind, d.Namespace)
		o, err := r.Create(ctx, &unstructured.Unstructured{Object: d.Object}, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) {
			if err = p.drop(ctx, d.Kind, d.Namespace, d.Name); err == nil {
				o, err = r.Create(ctx, &unstructured.Unstructured{Object: d.Object}, metav1.CreateOptions{FieldManager: fieldManager})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("create %s %s: %w", d.Kind, d.Name, err)
		}
		made = append(made, *o)
		p.mu.Lock()
		p.applied = append(p.applied, *o)
		p.mu.Unlock()
	}
	return made, nil
}

// invalid is what the cluster says of policies that agents do not take.
func (p *Place) invalid(ctx context.Context, made []unstructured.Unstructured) error {
	var errs []error
	for _, o := range made {
		now, err := p.resource(o.GetKind(), o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil {
			continue // the error at hand says more
		}
		conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["status"] == "False" {
				errs = append(errs, fmt.Errorf("%s %s: %v", o.GetKind(), o.GetName(), c["message"]))
			}
		}
	}
	return errors.Join(errs...)
}

// Remove implements connectivity.Place.
func (p *Place) Remove(ctx context.Context) error {
	p.mu.Lock()
	gone := p.applied
	p.applied = nil
	p.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	for _, o := range gone {
		if err := p.drop(ctx, o.GetKind(), o.GetNamespace(), o.GetName()); err != nil {
			p.mu.Lock()
			p.applied = append(p.applied, gone...) // for another try
			p.mu.Unlock()
			return err
		}
	}
	return p.settle(ctx, "policies are still there", func(_ *corev1.Pod, s *policies) bool {
		for _, o := range gone {
			if s.has(string(o.GetUID())) {
				return false
			}
		}
		return true
	})
}

func revision(s *policies) uint64 {
	n, err := strconv.ParseUint(s.Revision.String(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// revisions are those of all agents, by the names of their pods.
func (p *Place) revisions(ctx context.Context) (map[string]uint64, error) {
	var mu sync.Mutex
	out := map[string]uint64{}
	return out, p.ask(ctx, func(a *corev1.Pod, text []byte) error {
		var s policies
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("read policies: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		out[a.Name] = revision(&s)
		return nil
	}, "policy", "get", "-o", "json")
}

// settle waits until every agent knows what it should and enforces that.
func (p *Place) settle(ctx context.Context, complaint string, fine func(*corev1.Pod, *policies) bool) error {
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	return p.each(ctx, func(ctx context.Context, a *corev1.Pod) error {
		var s policies
		err := wait.PollUntilContextCancel(ctx, policyPeriod, true, func(ctx context.Context) (bool, error) {
			out, err := p.exec(ctx, a.Namespace, a.Name, agentContainer, []string{program, "policy", "get", "-o", "json"})
			if err != nil {
				return false, err
			}
			s = policies{}
			if err := json.Unmarshal(out, &s); err != nil {
				return false, fmt.Errorf("read policies: %w", err)
			}
			return fine(a, &s), nil
		})
		if wait.Interrupted(err) {
			return fmt.Errorf("%s after %s", complaint, policyTime)
		}
		if err != nil {
			return err
		}
		_, err = p.exec(ctx, a.Namespace, a.Name, agentContainer, []string{program, "policy", "wait", s.Revision.String(), "--max-wait-time", policyTime.String()})
		return err
	})
}

// leftover removes the policies of an earlier run that was killed.
func (p *Place) leftover(ctx context.Context) error {
	for kind, selector := range map[string]string{
		"NetworkPolicy": "", "CiliumNetworkPolicy": "",
		"CiliumClusterwideNetworkPolicy": ownLabel + "=" + p.options.Namespace, kindGroup: ownLabel + "=" + p.options.Namespace,
	} {
		namespace := p.options.Namespace
		if selector != "" {
			namespace = ""
		}
		list, err := p.resource(kind, namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for policies: %w", err)
		}
		p.mu.Lock()
		p.applied = append(p.applied, list.Items...)
		p.mu.Unlock()
	}
	return p.Remove(ctx)
}
