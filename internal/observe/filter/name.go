package filter

import (
	"errors"
	"slices"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// names holds the tests of who the ends are.
func names(b *builder) {
	f := b.f
	src := func(f *flowpb.Flow) *flowpb.Endpoint { return f.GetSource() }
	dst := func(f *flowpb.Flow) *flowpb.Endpoint { return f.GetDestination() }

	anyOf(b, "source_pod", f.GetSourcePod(), pod, src)
	anyOf(b, "destination_pod", f.GetDestinationPod(), pod, dst)
	anyOf(b, "source_fqdn", f.GetSourceFqdn(), fqdn, func(f *flowpb.Flow) []string { return f.GetSourceNames() })
	anyOf(b, "destination_fqdn", f.GetDestinationFqdn(), fqdn, func(f *flowpb.Flow) []string { return f.GetDestinationNames() })
	anyOf(b, "source_label", f.GetSourceLabel(), b.selector, func(f *flowpb.Flow) []string { return f.GetSource().GetLabels() })
	anyOf(b, "destination_label", f.GetDestinationLabel(), b.selector, func(f *flowpb.Flow) []string { return f.GetDestination().GetLabels() })
	anyOf(b, "source_service", f.GetSourceService(), service, func(f *flowpb.Flow) *flowpb.Service { return f.GetSourceService() })
	anyOf(b, "destination_service", f.GetDestinationService(), service, func(f *flowpb.Flow) *flowpb.Service { return f.GetDestinationService() })
	anyOf(b, "source_workload", f.GetSourceWorkload(), workload, src)
	anyOf(b, "destination_workload", f.GetDestinationWorkload(), workload, dst)
	oneOf(b, "source_identity", f.GetSourceIdentity(), func(f *flowpb.Flow) uint32 { return f.GetSource().GetIdentity() })
	oneOf(b, "destination_identity", f.GetDestinationIdentity(), func(f *flowpb.Flow) uint32 { return f.GetDestination().GetIdentity() })
	oneOf(b, "source_cluster_name", f.GetSourceClusterName(), func(f *flowpb.Flow) string { return f.GetSource().GetClusterName() })
	oneOf(b, "destination_cluster_name", f.GetDestinationClusterName(), func(f *flowpb.Flow) string { return f.GetDestination().GetClusterName() })
}

// named is a "[namespace/]name" pattern: the namespace exactly ("" = any), the name as a prefix. Without a slash the
// namespace is "default", which covers workloads that have none.
func named(s string) (match func(namespace, name string) bool, err error) {
	ns, name, slash := strings.Cut(s, "/")
	switch {
	case !slash && s == "":
		return nil, errors.New("want [NAMESPACE/]NAME")
	case !slash:
		ns, name = "default", s
	case strings.Contains(name, "/"):
		return nil, errors.New("want [NAMESPACE/]NAME: there is more than one slash")
	}
	return func(haveNS, have string) bool {
		if have == "" && haveNS == "" {
			return false
		}
		if haveNS == "" {
			haveNS = "default"
		}
		return (ns == "" || ns == haveNS) && strings.HasPrefix(have, name)
	}, nil
}

func pod(s string) (func(*flowpb.Endpoint) bool, error) {
	m, err := named(s)
	if err != nil {
		return nil, err
	}
	return func(e *flowpb.Endpoint) bool { return m(e.GetNamespace(), e.GetPodName()) }, nil
}

func service(s string) (func(*flowpb.Service) bool, error) {
	m, err := named(s)
	if err != nil {
		return nil, err
	}
	return func(e *flowpb.Service) bool { return m(e.GetNamespace(), e.GetName()) }, nil
}

func workload(w *flowpb.Workload) (func(*flowpb.Endpoint) bool, error) {
	if w.GetName() == "" && w.GetKind() == "" {
		return nil, errors.New("want a name or a kind")
	}
	return func(e *flowpb.Endpoint) bool {
		return slices.ContainsFunc(e.GetWorkloads(), func(h *flowpb.Workload) bool {
			return (w.GetName() == "" || w.GetName() == h.GetName()) && (w.GetKind() == "" || strings.EqualFold(w.GetKind(), h.GetKind()))
		})
	}, nil
}

// fqdn matches DNS names; case and a final dot do not count, "*" stands for any text.
func fqdn(s string) (func([]string) bool, error) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" {
		return nil, errors.New("want a DNS name, in which * stands for any text")
	}
	match, err := glob(s)
	if err != nil {
		return nil, err
	}
	return func(have []string) bool {
		return slices.ContainsFunc(have, func(n string) bool {
			return match(strings.ToLower(strings.TrimSuffix(n, ".")))
		})
	}, nil
}
