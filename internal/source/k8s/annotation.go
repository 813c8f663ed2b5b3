package k8s

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/hypha-net/hypha/internal/model"
)

// Annotations of a Service that say how it is served.
const (
	annotationAlgorithm    = "service.cilium.io/lb-algorithm"      // random or maglev
	annotationTypes        = "service.cilium.io/type"              // frontends to make, of those that the Service has: "LoadBalancer,NodePort"
	annotationRangesPolicy = "service.cilium.io/src-ranges-policy" // allow (default) or deny what loadBalancerSourceRanges names
)

// annotations is what they say.
type annotations struct {
	selection  model.Selection
	types      map[model.ServiceType]bool // nil: all
	rangesDeny bool
}

func (a *annotations) has(t model.ServiceType) bool { return a.types == nil || a.types[t] }

// annotationsOf reads them. One with a value that means nothing is told and has no effect, so that source ranges whose policy cannot
// be read say who may come, as they do without one.
func annotationsOf(svc *corev1.Service) (a annotations, errs error) {
	if v := svc.Annotations[annotationAlgorithm]; v != "" {
		sel, err := model.ParseSelection(v)
		if err != nil {
			errs = joinf(errs, "annotation %s: %w", annotationAlgorithm, err)
		} else {
			a.selection = sel
		}
	}
	if v, ok := svc.Annotations[annotationTypes]; ok {
		a.types = map[model.ServiceType]bool{}
		for name := range strings.SplitSeq(v, ",") {
			t, err := model.ParseServiceType(trim(name))
			if err != nil {
				errs = joinf(errs, "annotation %s: %w", annotationTypes, err)
				continue
			}
			a.types[t] = true
		}
	}
	switch v := svc.Annotations[annotationRangesPolicy]; v {
	case "", "allow":
	case "deny":
		a.rangesDeny = true
	default:
		errs = joinf(errs, "annotation %s: %q: want allow or deny", annotationRangesPolicy, v)
	}
	return a, errs
}

func trim(s string) string { return strings.TrimSpace(s) }
