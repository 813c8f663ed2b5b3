package kubeapi

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Create makes one object.
func (s *Server) Create(ctx context.Context, o *unstructured.Unstructured) error {
	if _, err := s.of(o).Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// Remove deletes one object at once.
func (s *Server) Remove(ctx context.Context, o *unstructured.Unstructured) error {
	now := int64(0)
	if err := s.of(o).Delete(ctx, o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// Watchable waits until the API server has read all objects of a kind that were put into its store behind its back.
func (s *Server) Watchable(ctx context.Context, apiVersion, kind string) error {
	for {
		w, err := s.resource(apiVersion, kind, "").Watch(ctx, metav1.ListOptions{})
		if err == nil {
			w.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch %s: %w", kind, err)
		case <-time.After(time.Second):
		}
	}
}

var watches = regexp.MustCompile(`(?m)^apiserver_longrunning_requests\{.*verb="WATCH".*\} (\S+)$`)

// Watches is how many watches are open at the API server, its own included.
func (s *Server) Watches(ctx context.Context) (n int, err error) {
	text, err := s.rest.Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("count watches: %w", err)
	}
	for _, m := range watches.FindAllSubmatch(text, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, fmt.Errorf("count watches: %w", err)
		}
		n += int(v)
	}
	return n, nil
}
