// The tests of Kubernetes' network policy API (docs/conformance.md).
module github.com/hypha-net/hypha/tools/kubernetes/policy

go 1.26.6

require sigs.k8s.io/network-policy-api v0.3.0
