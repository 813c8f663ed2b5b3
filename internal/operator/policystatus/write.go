package policystatus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

// Add runs it with the manager, whose cache has ByObject.
func Add(mgr ctrl.Manager) error {
	for _, kind := range kinds {
		w := &writer{kind: kind, kept: mgr.GetCache(), c: mgr.GetClient()}
		if err := ctrl.NewControllerManagedBy(mgr).Named("status of " + strings.ToLower(kind)).For(empty(kind)).Complete(w); err != nil {
			return fmt.Errorf("watch %s: %w", kind, err)
		}
	}
	return nil
}

// writer writes the condition of policies of a kind where it is not as it should be.
type writer struct {
	kind string
	kept client.Reader
	c    client.Client
}

// Reconcile implements reconcile.Reconciler.
func (w *writer) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	u := empty(w.kind)
	if err := w.kept.Get(ctx, req.NamespacedName, u); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var p struct {
		Status ciliumv2.PolicyStatus `json:"status"`
		Fault  string                `json:"fault"`
		Caveat string                `json:"caveat"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return reconcile.Result{}, fmt.Errorf("read status of %s %s: %w", w.kind, req, err)
	}
	conditions, same := with(p.Status.Conditions, verdict(p.Fault, p.Caveat))
	if same {
		return reconcile.Result{}, nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": u.GetResourceVersion(), "uid": string(u.GetUID())},
		"status":   ciliumv2.PolicyStatus{Conditions: conditions},
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	err = w.c.Status().Patch(ctx, u, client.RawPatch(types.MergePatchType, body))
	if apierrors.IsConflict(err) { // another version is on its way here
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

func verdict(fault, caveat string) ciliumv2.Condition {
	if fault != "" {
		return ciliumv2.Condition{Type: ciliumv2.ConditionValid, Status: "False", Reason: "NotUnderstood", Message: fault}
	}
	return ciliumv2.Condition{Type: ciliumv2.ConditionValid, Status: "True", Reason: "Understood", Message: caveat}
}

// with is a list of conditions with this one in it; same says that it is there already.
func with(all []ciliumv2.Condition, c ciliumv2.Condition) (out []ciliumv2.Condition, same bool) {
	c.LastTransitionTime = metav1.Now()
	i := slices.IndexFunc(all, func(x ciliumv2.Condition) bool { return x.Type == c.Type })
	if i < 0 {
		return append(slices.Clone(all), c), false
	}
	if all[i].Status == c.Status {
		c.LastTransitionTime = all[i].LastTransitionTime
	}
	if same = all[i] == c; same {
		return all, true
	}
	out = slices.Clone(all)
	out[i] = c
	return out, false
}
