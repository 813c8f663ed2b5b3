package k8s

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kubelabels "k8s.io/apimachinery/pkg/labels"

	"github.com/hypha-net/hypha/internal/model"
)

// Annotations of a Service that say how it is served.
const (
	annotationPrefix       = "service.cilium.io/"
	annotationAlgorithm    = annotationPrefix + "lb-algorithm"      // random or maglev
	annotationTypes        = annotationPrefix + "type"              // frontends to make, of those that the Service has: "LoadBalancer,NodePort"
	annotationRangesPolicy = annotationPrefix + "src-ranges-policy" // allow (default) or deny what loadBalancerSourceRanges names
	annotationSelector     = annotationPrefix + "node-selector"     // nodes that serve it to the outside, by their labels
	annotationNode         = annotationPrefix + "node"              // the same, by the value of their label of this name
)

// meshed are annotations about other clusters: without such they mean nothing.
var meshed = map[string]bool{annotationPrefix + "global": true, annotationPrefix + "shared": true, annotationPrefix + "affinity": true,
	annotationPrefix + "global-sync-endpoint-slices": true}

// annotations is what they say.
type annotations struct {
	selection  model.Selection
	types      map[model.ServiceType]bool // nil: all
	rangesDeny bool
	elsewhere  bool // it is not this node that serves it to the outside
}

func (a *annotations) has(t model.ServiceType) bool { return a.types == nil || a.types[t] }

// annotationsOf reads them for a node with these labels. One with a value that means nothing is told and has no effect, so that source
// ranges whose policy cannot be read say who may come, as they do without one; but nodes that cannot be read are none. One that is not
// known, or not done here, is told.
func annotationsOf(svc *corev1.Service, node kubelabels.Set) (a annotations, errs error) {
	for _, k := range slices.Sorted(maps.Keys(svc.Annotations)) {
		v := svc.Annotations[k]
		switch k {
		case annotationAlgorithm:
			sel, err := model.ParseSelection(v)
			if err != nil {
				errs = joinf(errs, "annotation %s: %w", k, err)
			} else {
				a.selection = sel
			}
		case annotationTypes:
			a.types = map[model.ServiceType]bool{}
			for name := range strings.SplitSeq(v, ",") {
				t, err := model.ParseServiceType(trim(name))
				if err != nil {
					errs = joinf(errs, "annotation %s: %w", k, err)
					continue
				}
				a.types[t] = true
			}
		case annotationRangesPolicy:
			if a.rangesDeny = v == "deny"; v != "" && v != "allow" && v != "deny" {
				errs = joinf(errs, "annotation %s: %q: want allow or deny", k, v)
			}
		case annotationSelector:
			sel, err := kubelabels.Parse(v)
			if err != nil {
				errs = joinf(errs, "annotation %s: %w", k, err)
			}
			a.elsewhere = err != nil || !sel.Matches(node)
		case annotationNode:
			if _, ok := svc.Annotations[annotationSelector]; !ok {
				a.elsewhere = node[annotationNode] != v
			}
		default:
			if strings.HasPrefix(k, annotationPrefix) && !meshed[k] {
				errs = joinf(errs, "annotation %s is not supported", k)
			}
		}
	}
	return a, errs
}

// aboutNodes says whether what an annotation says depends on the node.
func aboutNodes(svc *corev1.Service) bool {
	_, one := svc.Annotations[annotationNode]
	_, many := svc.Annotations[annotationSelector]
	return one || many
}

func trim(s string) string { return strings.TrimSpace(s) }
