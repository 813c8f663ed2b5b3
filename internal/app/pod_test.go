package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/k8s"
	"github.com/hypha-net/hypha/internal/table"
)

// fakePods is a node with pods and their workloads, where new labels take their time to be in force.
type fakePods struct {
	pods      *table.Table[string, k8s.Pod]
	endpoints *table.Table[uint16, model.Endpoint]
	grace     time.Duration
	fail      atomic.Int32 // so many changes fail
}

func (f *fakePods) set(name, value string) {
	f.pods.Set("ns/"+name, k8s.Pod{Labels: model.NewLabels(model.Label{Source: model.SourceK8s, Key: "v", Value: value})})
}

func (f *fakePods) Update(ctx context.Context, id uint16, c endpoint.Change) (model.Endpoint, error) {
	select {
	case <-ctx.Done():
		return model.Endpoint{}, ctx.Err()
	case <-time.After(f.grace):
	}
	if f.fail.Add(-1) >= 0 {
		return model.Endpoint{}, errors.New("no")
	}
	var ls []model.Label
	for _, s := range c.Labels {
		l, err := model.ParseLabel(s, model.SourceK8s)
		if err != nil {
			return model.Endpoint{}, err
		}
		ls = append(ls, l)
	}
	e, _ := f.endpoints.Get(id)
	e.Labels = model.NewLabels(ls...)
	f.endpoints.Set(id, e)
	return e, nil
}

type podsOf struct{ *fakePods }

func (p podsOf) Table() *table.Table[string, k8s.Pod] { return p.pods }
func (p podsOf) Wait(context.Context, string, string, string) (k8s.Pod, error) {
	return k8s.Pod{}, errors.New("not asked")
}

type endpointsOf struct{ *fakePods }

func (e endpointsOf) Table() *table.Table[uint16, model.Endpoint] { return e.endpoints }

// TestPodLabels: pods whose labels change together do not wait for each other, one that changes twice has the last labels in the end, and what
// fails is tried again.
func TestPodLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		f := &fakePods{pods: table.New[string, k8s.Pod]("pods", table.String), endpoints: table.New[uint16, model.Endpoint]("endpoints", table.Uint), grace: 5 * time.Second}
		for i := range n {
			name := fmt.Sprint("p", i)
			f.endpoints.Set(uint16(i+1), model.Endpoint{Namespace: "ns", Name: name})
			f.set(name, "old")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- newPods(slog.New(slog.DiscardHandler), podsOf{f}, endpointsOf{f}).Run(ctx) }()
		values := func() map[string]int {
			out := map[string]int{}
			for _, e := range f.endpoints.Snapshot().All() {
				v, _ := e.Labels.Get(model.SourceK8s, "v")
				out[v]++
			}
			return out
		}
		want := func(what string, after time.Duration, value string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := values(); got[value] != n {
				t.Errorf("%s: %v", what, got)
			}
		}
		want("at the start", f.grace, "old")
		for i := range n {
			f.set(fmt.Sprint("p", i), "new")
		}
		want("changed together", f.grace, "new")
		f.set("p1", "passing")
		time.Sleep(time.Second)
		f.set("p1", "new")
		want("changed twice", 2*f.grace, "new")
		f.fail.Store(3)
		for i := range n {
			f.set(fmt.Sprint("p", i), "last")
		}
		want("failed at first", 2*f.grace+2*podRetry, "last")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
